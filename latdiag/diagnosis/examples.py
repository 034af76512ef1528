"""The median request and the slowest ones, taken apart: what a chart of single requests shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latdiag.diagnosis.requests import members_of

if TYPE_CHECKING:
    from latdiag.attribution.parts import Parts

_SLOWEST = 3


@dataclass(frozen=True, slots=True)
class Example:
    """One request. ``row``: its place in reading order, None where that is not known. ``parts``:
    the members of each part and its ns, in time order; they add up to ``total_ns``, and one of an
    estimate may be negative. ``ttft_ns``: from its beginning to the first token."""

    what: str
    row: int | None
    total_ns: int
    ttft_ns: int
    parts: tuple[tuple[tuple[str, ...], int], ...]


def examples_of(parts: Parts | None) -> tuple[Example, ...]:
    """The median first, then the slowest; fewer where there are not so many requests."""
    if parts is None or not len(parts.total):
        return ()
    order = np.argsort(parts.total, kind="stable")
    n = len(order)
    if n == 1:
        return (_example("The only request", parts, int(order[0])),)
    middle = int(order[(n - 1) // 2])
    slowest = [int(place) for place in order[::-1][:_SLOWEST] if int(place) != middle]
    names = ("Slowest request", "Second slowest", "Third slowest")
    found = [_example("Median request", parts, middle)]
    return (*found, *(_example(what, parts, p) for what, p in zip(names, slowest, strict=False)))


def _example(what: str, parts: Parts, place: int) -> Example:
    return Example(
        what=what,
        row=int(parts.row[place]) if parts.row is not None else None,
        total_ns=int(parts.total[place]),
        ttft_ns=int(parts.ttft[place]),
        parts=tuple((members_of(parts, n), int(ns[place])) for n, ns in parts.parts.items()),
    )
