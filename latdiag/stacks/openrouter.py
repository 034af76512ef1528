"""OpenRouter: where it is asked to, its replies say which way a request took.

openrouter.ai/docs/guides/features/router-metadata; it states the times of a request only when they
are asked for afterwards, by its id.
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
