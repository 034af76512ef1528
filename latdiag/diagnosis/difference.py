"""Two sides as they are drawn from, and one difference between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
        digest = hashlib.blake2b(repr(self.rows.sending).encode(), digest_size=16)
        digest.update(self.parts.total.tobytes())
        for piece in self.rows.metrics["e2e"]:
            digest.update(b"|" + piece.values.tobytes())
        return digest.hexdigest()


class SideRows:
    """The rows of one side. The order in which its runs were named does not matter."""

    def __init__(self, runs: Iterable[RunRows]) -> None:
        pairs = sorted(((run.identity, run) for run in runs), key=lambda pair: pair[0])
        self.identities = [identity for identity, _ in pairs]
        self.runs = [run for _, run in pairs]

    def random(self, seed: int) -> np.random.Generator:
        """Draws that belong to these rows and not to the place at which they are named."""
        words = hashlib.blake2b("".join(self.identities).encode(), digest_size=8).digest()
        return np.random.default_rng([seed, int.from_bytes(words, "big")])


@dataclass(frozen=True, slots=True)
class Difference:
    """``B - A`` in ``unit``, and its 95 % interval from ``lo`` to ``hi``.

    ``method``: how the interval came about, or why there is none. ``refused``: why there is not
    even a value.
    """

    value: float | None
    unit: str
    method: str
    lo: float | None = None
    hi: float | None = None
    refused: str | None = None

    @property
    def contains_zero(self) -> bool | None:
        """Whether the interval does; None without one."""
        return None if self.lo is None or self.hi is None else self.lo <= 0.0 <= self.hi

    @property
    def lacking(self) -> str | None:
        """Why there is no value, or no interval; None where there are both."""
        return self.refused or (self.method if self.contains_zero is None else None)

    def to_json(self) -> dict[str, object]:
        """As it stands in ``--json``."""
        found: dict[str, object] = {
            "value": self.value,
            "lo": self.lo,
            "hi": self.hi,
            "unit": self.unit,
            "contains_zero": self.contains_zero,
            "method": self.method,
        }
        return found if self.refused is None else found | {"refused": self.refused}


def refused(unit: str, why: str) -> Difference:
    """No difference at all, and why."""
    return Difference(None, unit, "none", refused=why)


def bounded(
    value: float, bounds: tuple[float, float], unit: str, one: Deviates, other: Deviates
) -> Difference:
    """With the interval at ``value`` plus ``bounds`` (below and above it)."""
    blocks = f"A in {one.blocks}, B in {other.blocks}"
    method = f"block bootstrap, {TIMES} draws: {blocks}"
    return Difference(value, unit, method, value + bounds[0], value + bounds[1])


def no_interval(sides: Mapping[str, str | None]) -> str | None:
    """The reasons of both sides in one sentence; None where there is none."""
    reasons = [f"{name}: {why}" for name, why in sides.items() if why]
    return f"no interval; {'; '.join(reasons)}" if reasons else None
