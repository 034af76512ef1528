"""Caddy as a reverse proxy: it names itself in ``via``, and passes on a stream as it flushes.

caddyserver.com/docs/caddyfile/directives/reverse_proxy
"""

from __future__ import annotations

from latdiag.stacks.signal import Knob, Mark, Stack

STACK = Stack(
    name="caddy",
    title="Caddy",
    layer="gateway",
    provenance="documented",
    versions="2",
    signals=(),
    marks=(Mark("header", r"(server: Caddy|via: (.*, )?1\.1 Caddy)"),),
    knobs=(Knob("flush", "flush_interval -1"),),
)
