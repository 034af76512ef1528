"""Grafana dashboards and Prometheus rules, made from the table of watch's metrics.

``python -m latdiag.dashboards FOLDER`` writes them; ``dashboards/`` of the repository holds the
result, and a test makes it again and compares. Plain JSON of Grafana's classic schema.
"""
