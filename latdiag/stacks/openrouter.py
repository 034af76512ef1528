"""OpenRouter: on request, its replies say which provider served a request.

openrouter.ai/docs/guides/features/router-metadata; it reports the times of a request only
afterwards, when asked for them by the request's id.
"""

from __future__ import annotations

from latdiag.stacks.signal import Mark, Stack

STACK = Stack(
    name="openrouter",
    title="OpenRouter",
    layer="gateway",
    provenance="documented",
    versions="hosted, 2026",
    signals=(),
    marks=(Mark("reply", r"openrouter_metadata(\..*)?"),),
)
