"""Latencies of requests in parts, whatever evidence they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: What each interval holds, in time order; a part that is not there is left out.
INSIDE = {
    "client_e2e": (
        *("client", "network", "gateway", "frontend", "queue", "prefill"),
        *("interconnect", "decode", "unattributed"),
    ),
    "client_ttft": ("client", "network", "gateway", "frontend", "queue", "prefill"),
    "decode": ("interconnect", "decode"),
}


@dataclass(frozen=True, slots=True)
class Source:
    """What a part rests on. ``members``: components merged in it, its own name first.

    ``settles``: the part that gives and takes where this one's sum, a difference of estimates,
    comes out below nothing.
    """

    grade: str
    evidence: str
    members: tuple[str, ...] = ()
    settles: str | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """One entry per row that could be partitioned, in the order of ``sent_ns``; int64 ns.

    ``total = done - begin`` is the sum of the parts in every row (begin: due in open loop, sent in
    closed). ``slack``: (less, more) ns of each row that the evidence leaves open for a part; what
    one may lack another may have. ``draws``: for a part that rests on fitted laws, (laws drawn
    again, rows): what they would make of each row. ``leaves``: finer than parts, by
    ``component.what``; they may be negative, and those of one component add up to no more than
    its part.    ``borrowed``: leaves of a weaker account than the part that they are of.
    ``alone``: what each request would take on an idle server. ``segment``: the independent
    repetition that each row belongs to. ``within``: columns of an interval (client_ttft, decode)
    where they are not those of ``parts`` that INSIDE names. ``interval``: what ``total`` is:
    client_e2e, or server where no client was there. ``row``: which rows of the frame these are.
    ``most``: ns of each row that a part cannot exceed, where a stronger source states the sum that
    it is a part of. ``no_tail``: why the slowest requests cannot be taken apart by themselves.
    ``stretch``: before and after which changes of the server each row was sent; None where none
    was seen.
    """

    total: NDArray[np.int64]
    ttft: NDArray[np.int64]
    parts: dict[str, NDArray[np.int64]]
    delayed: NDArray[np.bool_]
    left_out: int
    sources: Mapping[str, Source]
    draws: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    slack: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(
        default_factory=dict
    )
    leaves: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    leaf_sources: Mapping[str, Source] = field(default_factory=dict)
    borrowed: frozenset[str] = frozenset()
    alone: NDArray[np.int64] | None = None
    segment: NDArray[np.int64] | None = None
    within: Mapping[str, Mapping[str, NDArray[np.int64]]] = field(default_factory=dict)
    interval: str = "client_e2e"
    row: NDArray[np.int64] | None = None
    most: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    no_tail: str | None = None
    stretch: NDArray[np.int64] | None = None

    def inside(self, interval: str) -> dict[str, NDArray[np.int64]]:
        """The columns that an interval is the sum of, in time order."""
        if interval in self.within:
            return dict(self.within[interval])
        return {name: self.parts[name] for name in INSIDE[interval] if name in self.parts}

    @property
    def segments(self) -> int:
        """How many independent repetitions there are."""
        return len(set(self.segment.tolist())) if self.segment is not None else 1


def chosen_rows(total: NDArray[np.int64], population: str) -> NDArray[np.int64]:
    """The rows of a population, by their totals."""
    rows = np.arange(len(total))
    if population == "p95_tail" and len(rows):
        rows = np.flatnonzero(total >= np.quantile(total, 0.95, method="higher"))
    return rows
