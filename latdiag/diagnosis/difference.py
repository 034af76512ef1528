"""Two sides as they are drawn from, and one difference between them as it stands in ``--json``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from latdiag.attribution.parts import Parts
from latdiag.measurement.metric_rows import Rows
from latdiag.stats.bootstrap import TIMES, Deviates


@dataclass(frozen=True, slots=True)
class RunRows:
    """What one run brings: its requests in components, and in metrics."""

    parts: Parts
    rows: Rows

    @property
    def identity(self) -> str:
        """Equal for runs of the same requests, wherever they lie."""
        said = hashlib.blake2b(repr(self.rows.sending).encode(), digest_size=16)
        said.update(self.parts.total.tobytes())
        for piece in self.rows.metrics["e2e"]:
            said.update(b"|" + piece.values.tobytes())
        return said.hexdigest()


class Side:
    """One side. The order in which its runs were named does not matter."""

    def __init__(self, runs: Iterable[RunRows]) -> None:
        found = sorted(((run.identity, run) for run in runs), key=lambda pair: pair[0])
        self.identities = [identity for identity, _ in found]
        self.runs = [run for _, run in found]

    def random(self, seed: int) -> np.random.Generator:
        """Draws that belong to these rows and not to the place at which they are named."""
        words = hashlib.blake2b("".join(self.identities).encode(), digest_size=8).digest()
        return np.random.default_rng([seed, int.from_bytes(words, "big")])


def stated(value: float | None, unit: str, **more: Any) -> dict[str, Any]:
    """A difference without an interval; ``more`` adds one, or says why there is none."""
    found = {"value": value, "lo": None, "hi": None, "unit": unit, "contains_zero": None}
    return found | {"method": "no interval"} | more


def refused(unit: str, why: str) -> dict[str, Any]:
    """No difference at all, and why."""
    return stated(None, unit, method="none", refused=why)


def bounded(
    value: float, bounds: tuple[float, float], unit: str, one: Deviates, other: Deviates
) -> dict[str, Any]:
    """With the interval at ``value`` plus ``bounds`` (below and above it)."""
    lo, hi = value + bounds[0], value + bounds[1]
    blocks = f"A in {one.blocks}, B in {other.blocks}"
    return stated(
        value,
        unit,
        lo=lo,
        hi=hi,
        contains_zero=lo <= 0.0 <= hi,
        method=f"block bootstrap, {TIMES} draws: {blocks}",
    )


def why_none(sides: Mapping[str, str | None]) -> str | None:
    """The reasons of both sides in one sentence; None where there is none."""
    said = [f"{name}: {why}" for name, why in sides.items() if why]
    return f"no interval; {'; '.join(said)}" if said else None
