"""Prometheus: what ``/metrics`` of servers and gateways say at an instant.

``scrape`` is not imported here: whoever reads a file of metrics needs no HTTP client.
"""

from latdiag.ingest.prometheus.exposition import Exposition, Series, columns_of, read_exposition

__all__ = ["Exposition", "Series", "columns_of", "read_exposition"]
