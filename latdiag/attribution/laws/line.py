"""Whether requests that wait stand in a line that a refused POST stands in too.

A POST that is refused brings no work to an engine. Where it takes as long as the requests beside
it wait, what they wait for lies before whatever refuses, and what they wait for behind that is the
rest. Where it passes while they wait, nothing that it passed makes them wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws.path import HTTP_LAYER_NS, Refusals
from latdiag.load.plan import LOADED_PATH

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Fewer refused POSTs beside the workload tell nothing.
_FEWEST = 4
_DRAWS = 400
#: Times the noise of requests alone that a wait has to take.
_CLEAR = 3.0
#: The interval of the share may be so wide for the line to be one and the same.
_SHARP, _NEARLY = 0.5, 0.85
#: From this share on, what a refused POST shows of the waits is more than chance and a busy loop.
_SOME = 0.2


@dataclass(frozen=True, slots=True)
class Line:
    """``share``: of what a request waits, a refused POST at the same moment waits so much, in
    [``lo``, ``hi``]; ``n``: POSTs. ``of_workload``: they went out beside the workload; those
    beside bursts met another crowd, and show only who does not wait."""

    share: float
    lo: float
    hi: float
    n: int
    of_workload: bool = True

    @property
    def one(self) -> bool:
        """Whether all of the wait may be that of the POSTs, and little else can."""
        return self.share >= _NEARLY and self.lo <= 1.0 and self.hi - self.lo < _SHARP

    @property
    def before(self) -> float:
        """The share of the waits that lies before whatever refuses."""
        if not self.of_workload:
            return 0.0
        return 1.0 if self.one else min(self.share, 1.0) if self.lo > _SOME else 0.0

    @property
    def doubt(self) -> float:
        """What of ``before`` may not lie there."""
        return max(0.0, self.before - self.lo) if self.before else 0.0


def line_of(
    seen: Observations,
    refusals: Refusals | None,
    behind: float,
    rows: NDArray[np.int64],
    waits: NDArray[np.int64],
    noise_ns: float,
) -> Line | None:
    """``waits``: ns that each of these ``rows`` waited; ``behind``: of the way of a GET;
    ``noise_ns``: by how much requests alone differ. None: too few POSTs, or nobody waits more."""
    posts = np.flatnonzero(
        (seen.stage == LOADED_PATH)
        & (seen.scenario == "refused")
        & (seen.answer >= 0)
        & ((seen.status == 400) | (seen.status == 422))
    )
    if refusals is None or not len(rows):
        return None
    late = posts[seen.begin[posts] > seen.done[seen.stage == "S6"].max(initial=-1)]
    of_workload = len(late) >= _FEWEST
    posts = late if of_workload else posts
    if len(posts) < _FEWEST:
        return None
    took = seen.answer[posts] - behind - refusals.at(seen.isl[posts])
    beside = _left(seen.begin[rows], waits, seen.begin[posts])
    if float(beside.mean()) < max(HTTP_LAYER_NS, _CLEAR * noise_ns):
        return None
    random = np.random.default_rng(len(posts))
    drawn = random.integers(0, len(posts), (_DRAWS, len(posts)))
    above, below = took[drawn].sum(axis=1), beside[drawn].sum(axis=1)
    shares = above / np.maximum(below, HTTP_LAYER_NS)
    lo, hi = np.quantile(shares, (0.025, 0.975))
    share = float(took.sum() / beside.sum())
    return Line(share, float(lo), float(hi), len(posts), of_workload)


def _left(
    begin: NDArray[np.int64], waits: NDArray[np.int64], at: NDArray[np.int64]
) -> NDArray[np.float64]:
    """ns from each instant ``at`` until all that began before have had their turn: what whoever
    comes then waits at least, in a line."""
    order = np.argsort(begin, kind="stable")
    turns = np.maximum.accumulate((begin + waits)[order])
    before = np.searchsorted(begin[order], at, side="right")
    until = np.where(before > 0, turns[np.maximum(before - 1, 0)], at)
    left: NDArray[np.float64] = np.maximum(until - at, 0).astype(float)
    return left
