"""What gateways state of themselves in the headers of their replies: the least that they took.

A header leaves before the stream ends, so what it states ends there too: of a gateway that holds
the stream back afterwards it says nothing. What its replies state is true of each request alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.replies import columns
from latdiag.measurement.frame import Frame
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.stacks import catalogue
from latdiag.stacks.signal import Signal, Stack, of

_GATEWAY = of("gateway")


@dataclass(frozen=True, slots=True)
class Overhead:
    """One gateway's own time by its header. ``ns``: of each request of the frame it was read for,
    NaN where the reply does not state it; ``n``: those that do."""

    stack: Stack
    header: str
    ns: NDArray[np.float64]
    n: int

    @property
    def mean_ns(self) -> float:
        """Over the requests that state it."""
        return float(np.nanmean(self.ns))


def fields(known: Sequence[Stack]) -> list[Signal]:
    """The headers in which a gateway states time of its own and of nobody else."""
    return [signal for _, signal in _stated(known)]


def _stated(known: Sequence[Stack]) -> list[tuple[Stack, Signal]]:
    return [
        (stack, signal)
        for stack in known
        for signal in stack.signals
        if signal.kind == "header" and signal.covers and signal.covers <= _GATEWAY
    ]


def overheads(replies: columns.Reader, seen: Frame) -> list[Overhead]:
    """What gateways state of the requests ``seen``, each header by itself; most requests have to
    bear one, or it says nothing of all."""
    known = _stated(catalogue.stacks())
    stated = replies.replies([signal for _, signal in known]).columns
    found = []
    for stack, signal in known:
        column = stated.get(columns.foreign_name(signal))
        if column is None:
            continue
        whole = dict(zip(column.rows.tolist(), column.values.tolist(), strict=True))
        ns = np.array([whole.get(row, np.nan) for row in seen.row.tolist()], dtype=float)
        n = int(np.isfinite(ns).sum())
        if 2 * n > seen.n:
            found.append(Overhead(stack, signal.foreign, ns, n))
    return found


def caveats(found: Sequence[Overhead]) -> list[Caveat]:
    """What each states, for people."""
    return [
        caveat(
            "LD119", gateway=one.stack.title, took=round(one.mean_ns), header=one.header, n=one.n
        )
        for one in found
    ]
