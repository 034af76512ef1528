"""``transformers serve``: it reports no times of its own, so only the client's are known."""

from __future__ import annotations

from latdiag.stacks.signal import Mark, Stack

STACK = Stack(
    name="transformers",
    title="transformers serve",
    layer="engine",
    provenance="captured",
    versions="5.19 to 5.23",
    signals=(),
    marks=(
        Mark("reply", r"model: .+@main", certain=False),
        Mark("reply", "system_fingerprint: ", certain=False),
    ),
    captures=("transformers",),
)
