"""What a histogram says of the slowest requests: a marginal, coupled to what the client saw.

A histogram of queue times says how long waits were, not whose. The client knows each request's
TTFT, and what of it the prompt explains; by the rank of the rest the waits are handed out
(attribution.md, conclusion 7). That is an estimate. What holds without it is the interval: no
request waits longer than its TTFT, and the slowest have no more than the longest waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tail:
    """A part's time in the chosen requests, ns. ``sum_ns``: by coupled ranks; ``lo_ns`` and
    ``hi_ns``: whatever the coupling; ``independent_ns`` and ``comonotone_ns``: as if waits fell
    on requests at random, and as if the longest all fell on the chosen."""

    sum_ns: float
    lo_ns: float
    hi_ns: float
    independent_ns: float
    comonotone_ns: float
    n: int


def coupled_tail(
    bounds_ns: Sequence[float],
    counts: Sequence[int],
    total_ns: float,
    rest_ns: NDArray[np.float64],
    most_ns: NDArray[np.float64],
    chosen: NDArray[np.bool_],
) -> Tail | None:
    """The time that a histogram's part takes in the ``chosen`` requests.

    ``bounds_ns``, ``counts`` (cumulative), ``total_ns``: of one observation per request, all in
    ns. Per request: ``rest_ns``, what orders the observations (TTFT less what the prompt
    explains); ``most_ns``, what the part cannot exceed (TTFT, or the whole request); ``chosen``,
    which are asked about. None without observations or requests. The three arrays are of one
    length; as many observations as requests are expected, and rescaled where they differ.
    """
    n = len(rest_ns)
    if not n or not counts or not counts[-1] or not chosen.any():
        return None
    held = observations(bounds_ns, counts, total_ns)
    scale = n / len(held)
    values = held[((np.arange(n) + 0.5) / scale).astype(np.int64)]
    total = total_ns * scale
    if values.sum() > 0:
        values = values * (total / values.sum())
    share = int(np.count_nonzero(chosen))
    order = np.argsort(rest_ns, kind="stable")
    assigned = np.empty(n)
    assigned[order] = values
    low, high = _edges(bounds_ns, counts, total, n)
    room, others = float(most_ns[chosen].sum()), float(most_ns[~chosen].sum())
    most = min(float(high[n - share :].sum()), room, total)
    least = max(float(low[:share].sum()), total - others, 0.0)
    most = max(most, least)  # observations that the client's own times contradict
    return Tail(
        sum_ns=float(np.clip(assigned[chosen].sum(), least, most)),
        lo_ns=least,
        hi_ns=most,
        independent_ns=total * share / n,
        comonotone_ns=float(values[n - share :].sum()),
        n=share,
    )


def observations(
    bounds: Sequence[float], counts: Sequence[int], total: float
) -> NDArray[np.float64]:
    """The observations of a histogram, ascending, as its buckets and its sum allow: evenly spread
    in each bucket, around a place in it that is the same for all and makes the sum right.

    Those above the last finite bound have what the sum leaves for them.
    """
    inside = np.diff(np.concatenate(([0], np.asarray(counts, dtype=np.int64))))
    edges = np.asarray(bounds, dtype=np.float64)
    lower = np.concatenate(([min(0.0, edges[0])], edges[:-1]))
    lower = np.where(np.isfinite(lower), lower, 0.0)
    width = np.where(np.isfinite(edges), edges - lower, 0.0)
    room = float((inside * width).sum())
    above = int(inside[~np.isfinite(edges)].sum())
    spare = total - float((inside * lower).sum())
    place = 0.5 if above else (spare / room if room else 0.0)
    if above:
        place = min(place, spare / room) if room else 0.0
    place = min(1.0, max(0.0, place))
    if above:
        beyond = max(0.0, spare - place * room) / above
        width = np.where(np.isfinite(edges), width, 2 * beyond)
    # Spread as wide as the place allows: all of the bucket in its middle, a point at its edges.
    half = min(place, 1.0 - place)
    centers = np.repeat(lower + np.where(np.isfinite(edges), place, 0.5) * width, inside)
    halves = np.repeat(np.where(np.isfinite(edges), half, 0.5) * width, inside)
    within = np.concatenate([(np.arange(c) + 0.5) / c * 2 - 1 for c in inside if c])
    found: NDArray[np.float64] = np.sort(centers + within * halves)
    return found


def _edges(
    bounds: Sequence[float], counts: Sequence[int], total: float, n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bound of the k-th smallest of ``n`` observations, k ascending."""
    inside = np.diff(np.concatenate(([0], np.asarray(counts, dtype=np.int64))))
    upper = np.asarray(bounds, dtype=np.float64)
    lower = np.concatenate(([min(0.0, upper[0])], upper[:-1]))
    lower = np.where(np.isfinite(lower), lower, 0.0)
    upper = np.where(np.isfinite(upper), upper, total)
    place = ((np.arange(n) + 0.5) * inside.sum() / n).astype(np.int64)
    return np.repeat(lower, inside)[place], np.repeat(upper, inside)[place]
