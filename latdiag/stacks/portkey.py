"""Portkey's AI gateway: it names itself in four headers and reports no times.

portkey.ai/docs/api-reference/inference-api/response-schema
"""

from __future__ import annotations

from latdiag.stacks.signal import Mark, Stack

STACK = Stack(
    name="portkey",
    title="Portkey",
    layer="gateway",
    provenance="documented",
    versions="hosted, 2026",
    signals=(),
    marks=(
        Mark(
            "header",
            r"x-portkey-(trace-id|cache-status|retry-attempt-count|last-used-option-index): .*",
        ),
    ),
)
