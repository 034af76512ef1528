"""NIXL, the library that moves KV caches: a few counters of its own, no request ids.

Its sums of time are in microseconds, although their names do not say so.
"""

from __future__ import annotations

from latdiag.stacks.figures import counter, histogram
from latdiag.stacks.signal import Mark, Stack, Switch, of

_PER_TRANSFER = "one sample per transfer and rank, not one per request"

STACK = Stack(
    name="nixl",
    title="NIXL",
    layer="engine",
    provenance="documented",
    versions="8770b65",
    signals=(
        histogram(
            "nixl.transfer",
            "agent_xfer_time_us",
            of("interconnect.kv"),
            "interconnect.kv",
            unit="us",
            note=_PER_TRANSFER,
        ),
        counter("nixl.sent", "agent_tx_bytes_total", "B"),
        counter("nixl.received", "agent_rx_bytes_total", "B"),
        counter("nixl.errors", "agent_errors_total"),
        counter("nixl.dropped", "agent_telemetry_events_dropped_total"),
    ),
    marks=(Mark("metric", r"agent_(xfer_time_us|xfer_post_time_us|telemetry_events_.*)"),),
    switches=(
        Switch(
            "/metrics of each process",
            ("nixl.transfer", "nixl.sent"),
            "NIXL_TELEMETRY_ENABLE=y NIXL_TELEMETRY_EXPORTER=prometheus_mp",
        ),
    ),
)
