"""Cloudflare in front of a server, or its AI Gateway: headers that name it, but no times.

developers.cloudflare.com/fundamentals/reference/http-headers
"""

from __future__ import annotations

from latdiag.stacks.signal import Mark, Stack

STACK = Stack(
    name="cloudflare",
    title="Cloudflare",
    layer="gateway",
    provenance="documented",
    versions="hosted, 2026",
    signals=(),
    marks=(
        Mark("header", r"cf-(ray|aig-[a-z-]+): .*"),
        Mark("header", r"server: cloudflare", certain=False),
        Mark("header", r"cf-cache-status: .*", certain=False),
    ),
)
