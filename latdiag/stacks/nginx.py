"""nginx as a reverse proxy: it shows itself by its ``server`` header and states no times.

With ``proxy_buffering on`` (the default) it gathers a slow stream's chunks
(nginx.org/en/docs/http/ngx_http_proxy_module.html); ``X-Accel-Buffering: no`` in the reply of the
server behind it turns that off for one reply.
"""

from __future__ import annotations

from latdiag.stacks.signal import Knob, Mark, Stack

STACK = Stack(
    name="nginx",
    title="nginx",
    layer="gateway",
    provenance="documented",
    versions="1.22",
    signals=(),
    marks=(Mark("header", r"server: (nginx|openresty)(/(?P<version>[\d.]+).*)?"),),
    knobs=(Knob("flush", "proxy_buffering off, or X-Accel-Buffering: no in the reply"),),
)
