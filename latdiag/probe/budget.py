"""How much of each stage a probe makes, and the purse that it pays from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from latdiag.measurement.stages import Limits, Shot, Stage


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of each stage. ``*_s``: seconds that the stage may be expected to take. ``beside``:
    GETs, and as many refused POSTs, beside each segment of the workload. ``patience_s``: time that
    the limits of a server may cost besides. ``total_s``: from the first request to the last; what
    the designed stages leave of it is for the workload, as far as that decides something."""

    gets: int
    fresh: int
    refusals: int
    beside: int
    stream_s: float
    ladder: int
    ladder_s: float
    outputs: int
    outputs_s: float
    batches: tuple[int, ...]
    batches_s: float
    injections: int
    interference_s: float
    requests: int
    segments: int
    load_s: float
    longest: int
    patience_s: float
    total_s: float


BUDGETS = {
    "quick": Budget(
        10, 3, 3, 6, 2.0, 2, 4.0, 1, 2.0, (2, 4, 8, 16), 4.0, 4, 3.0, 100, 2, 20.0, 4096,
        120.0, 50.0,
    ),
    "standard": Budget(
        40, 10, 8, 12, 6.0, 5, 20.0, 3, 8.0, (2, 4, 8, 16, 32), 20.0, 4, 12.0, 1000, 4, 240.0,
        16384, 600.0, 340.0,
    ),
    "deep": Budget(
        100, 20, 16, 20, 15.0, 10, 60.0, 6, 30.0, (2, 4, 8, 16, 32, 64), 60.0, 16, 60.0, 3000, 6,
        900.0, 16384, 1800.0, 1180.0,
    ),
}  # fmt: skip
#: The shortest prompt that a design sends, and how far its ladder of lengths goes, tokens.
SHORT, REACH = 32, 1024
#: Refused POSTs beside a burst.
BURST_POSTS = 4
#: What shows a server's limits (S12): rounds, requests of each at most; and requests that were
#: refused as too many and are sent again.
REFUSAL_ROUNDS, REFUSAL_POSTS, RESENT = 5, 40, 60
#: Default of --max-tokens-total.
MAX_TOKENS = {"quick": 200_000, "standard": 1_000_000, "deep": 5_000_000}

#: Tokens of a prompt's template and of a server's own that a context must have room for.
_SPARE = 16


class Purse:
    """Tokens left, and the longest prompt that the server takes.

    ``reserved``: tokens that the workload needs at least: the stages before must not take them.
    """

    def __init__(self, limits: Limits, reserved: int) -> None:
        self.left = limits.max_tokens
        self.context = limits.max_model_len or 1 << 20
        self._designed = min(limits.max_tokens // 2, limits.max_tokens - reserved)

    def fitting(self, lengths: Sequence[int]) -> Iterator[int]:
        """The lengths that the context holds."""
        return (n for n in lengths if n + _SPARE <= self.context)

    def pays(self, stage: Stage, share: bool = True) -> Stage | None:
        """The stage, cut to the context and paid for; None where the tokens do not reach."""
        shots = tuple(self._cut(stage.shots))
        stage = replace(stage, shots=shots)
        if not shots or stage.tokens > (self._designed if share else self.left):
            return None
        self.left -= stage.tokens
        self._designed -= stage.tokens if share else 0
        return stage

    def _cut(self, shots: Sequence[Shot]) -> Iterator[Shot]:
        for shot in shots:
            room = self.context - _SPARE - shot.isl
            if room >= 1:
                yield shot._replace(osl=min(shot.osl, room))
