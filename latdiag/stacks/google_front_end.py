"""Google's load balancers: an entry in ``via``, but no times."""

from __future__ import annotations

from latdiag.stacks.signal import Mark, Stack

STACK = Stack(
    name="google_front_end",
    title="Google Cloud load balancer",
    layer="gateway",
    provenance="documented",
    versions="hosted, 2026",
    signals=(),
    marks=(Mark("header", r"via: (.*, )?1\.1 google"),),
)
