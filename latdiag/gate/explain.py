"""Which component takes what a red check lost. It explains; it never votes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from latdiag.gate.blocks import Blocks
from latdiag.gate.plan import Plan
from latdiag.gate.result import Component, Outcome
from latdiag.gate.twins import Mask
from latdiag.stats.flips import lower_bound, null_of, scores_of, upper_bound

_INTERVAL = 0.025
#: What lies on one side of the first token alone: no cause of what is lost on the other.
_BEFORE = frozenset({"frontend", "queue", "prefill", "to first token"})
_AFTER = frozenset({"decode", "after first token"})
#: What joins the members of a class that evidence cannot part.
JOINT = " + "


def components_of(blocks: Blocks, valid: Mask, plan: Plan) -> tuple[Component, ...]:
    """Every component over the valid pairs: exact sums, and an interval if pairs suffice."""
    return tuple(_components(blocks, valid, plan))


def _components(blocks: Blocks, valid: Mask, plan: Plan) -> Iterator[Component]:
    requests = int(blocks.alike[valid].sum())
    places = np.flatnonzero(valid)
    if not requests:
        return
    names = list(blocks.parts)
    apart = np.column_stack(
        [(each.candidate_ns - each.base_ns)[valid] for each in blocks.parts.values()]
    ).astype(float)
    settings = plan.settings
    null = null_of(apart, places, plan.pairs, settings.flips, settings.seed)
    criticals = null.critical_each(_INTERVAL)
    twins = np.maximum(blocks.alike[valid], 1)
    ranks = _rank_critical(plan, places)
    for place, name in enumerate(names):
        part = blocks.parts[name]
        scale = len(places) / requests
        lo, hi = (
            bound(apart[:, place], "mean", float(criticals[place])) * scale
            for bound in (lower_bound, upper_bound)
        )
        yield Component(
            name,
            int(part.base_ns[valid].sum()),
            int(part.candidate_ns[valid].sum()),
            round(lo, 3) + 0.0 if math.isfinite(lo) else None,
            round(hi, 3) + 0.0 if math.isfinite(hi) else None,
            _proved(lower_bound(np.round(apart[:, place] / twins), "rank", ranks)),
        )


def _rank_critical(plan: Plan, places: NDArray[np.int64]) -> float:
    """Of any column without ties: the ranks are the same, whatever its values."""
    scores = scores_of(np.arange(1.0, len(places) + 1), "rank")[:, None]
    settings = plan.settings
    null = null_of(scores, places, plan.pairs, settings.flips, settings.seed)
    return float(null.critical_each(_INTERVAL)[0])


def _proved(bound: float) -> float | None:
    return bound if bound > 0.0 and math.isfinite(bound) else None


def cause_of(components: Iterable[Component], red: Iterable[Outcome]) -> str | None:
    """The component that is proved to have lost most; None where none is proved to have lost any.
    Of a red TTFT alone it is none that begins with the first token, and the other way round."""
    metrics = {outcome.metric for outcome in red}
    out: frozenset[str] = frozenset()
    if metrics == {"ttft"}:
        out = _AFTER
    elif metrics and metrics <= {"tpot", "itl"}:
        out = _BEFORE
    able = [
        each
        for each in components
        if each.proved_ns is not None and not out.issuperset(each.name.split(JOINT))
    ]
    largest = max(able, key=lambda each: each.proved_ns or 0.0, default=None)
    return largest.name if largest else None
