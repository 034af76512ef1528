"""nginx as a reverse proxy: its ``server`` header shows it, and it reports no times.

With ``proxy_buffering on`` (the default) it collects the chunks of a slow stream
(nginx.org/en/docs/http/ngx_http_proxy_module.html); ``X-Accel-Buffering: no`` in a reply of the
server behind it turns that off for that reply.
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
    knobs=(
        Knob("flush", "proxy_buffering off, or X-Accel-Buffering: no in the reply"),
        Knob("workers", "worker_processes", source="nginx documentation, ngx_core_module"),
    ),
)
