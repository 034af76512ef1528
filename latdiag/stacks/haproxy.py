"""HAProxy: by default nothing in a reply shows it, and it holds small chunks for up to 200 ms.

``option http-no-delay`` passes them on at once (HAProxy's configuration manual, 4.2). It names
itself only where it is configured to, and in the metrics of its own exporter.
"""

from __future__ import annotations

from latdiag.stacks.signal import Knob, Mark, Stack

STACK = Stack(
    name="haproxy",
    title="HAProxy",
    layer="gateway",
    provenance="documented",
    versions="2.6",
    signals=(),
    marks=(
        Mark("metric", r"haproxy_(frontend|backend|server|process)_.*"),
        Mark("header", r"(server|via|x-served-by): .*haproxy.*"),
    ),
    knobs=(
        Knob("flush", "option http-no-delay"),
        Knob("workers", "nbthread", source="HAProxy configuration manual, 3.1"),
    ),
)
