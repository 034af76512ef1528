"""Sums of a server's components handed out to the requests that they are of.

A sum and a histogram say how much there was and how it was spread, not whose it was. That goes by
rank, and by what each request can have had at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.metrics.shares import Share
from latdiag.attribution.metrics.tail import observations


def handed_out(
    named: Sequence[Share],
    sums: Sequence[int],
    behind: NDArray[np.int64],
    first: NDArray[np.int64],
    later: NDArray[np.int64] | None,
) -> dict[str, NDArray[np.int64]]:
    """Every sum on requests: the first component's in the order of ``first``, the others' in that
    of ``later``. Nobody gets more than is left. The estimate (None): the others' in the order of
    what is left, and the first's as near to what the client waited as its buckets allow.
    """
    found: dict[str, NDArray[np.int64]] = {}
    left = behind.copy()
    for at, (share, value) in enumerate(zip(named, sums, strict=True)):
        leads = share.component == named[0].component
        key = first if leads else left if later is None else later
        order = np.argsort(key, kind="stable")
        wanted = np.empty(len(left))
        wanted[order] = values = _quantiles(share, value, len(left))
        if later is None and at == 0:
            open_ns2 = np.empty(len(left))
            open_ns2[order] = _within_buckets(share, values)
            wanted = _nearer(wanted, open_ns2, behind, value, named[1:], sums[1:])
        taken = poured(wanted, left, value)
        column = found.setdefault(share.component, np.zeros(len(left), dtype=np.int64))
        column += taken
        left -= taken
    return found


def _quantiles(share: Share, sum_ns: int, n: int) -> NDArray[np.float64]:
    """What each of ``n`` requests has of a sum, ascending: as its histogram is spread."""
    total = share.counts[-1] if share.counts else 0
    if not total:
        return np.full(n, sum_ns / max(1, n))
    values = observations(share.bounds_ns, share.counts, share.sum_ns)
    spread = values[((np.arange(n) + 0.5) * len(values) / n).astype(np.int64)]
    summed = float(spread.sum())
    return spread * (sum_ns / summed) if summed > 0 else np.full(n, sum_ns / n)


def _within_buckets(share: Share, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each of a sum's quantiles the variance, ns^2, of those that share its bucket: so much
    its place in it is not known."""
    bucket = np.searchsorted(np.asarray(share.bounds_ns, dtype=float), values)
    place = np.unique(bucket, return_inverse=True)[1]
    n = np.bincount(place)
    middle = np.bincount(place, values) / n
    spread: NDArray[np.float64] = (np.bincount(place, (values - middle[place]) ** 2) / n)[place]
    return spread


def _nearer(
    wanted: NDArray[np.float64],
    open_ns2: NDArray[np.float64],
    behind: NDArray[np.int64],
    sum_ns: int,
    others: Sequence[Share],
    sums: Sequence[int],
) -> NDArray[np.float64]:
    """Two estimates of one time, weighted by how sure each is: its quantile, and what the client
    waited less what the others take on the average, which varies as their histograms do.
    """
    n = len(wanted)
    shaped = [(share, ns) for share, ns in zip(others, sums, strict=True) if share.counts]
    if not shaped:
        return wanted
    varies = sum(float(_quantiles(share, ns, n).var()) for share, ns in shaped)
    seen = behind - (int(behind.sum()) - sum_ns) / n
    sure = open_ns2 + varies
    weight = (open_ns2 / sure) if varies > 0 else (open_ns2 > 0).astype(float)
    return wanted + weight * (seen - wanted)


def poured(wanted: NDArray[np.float64], room: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Whole numbers near ``wanted`` that add up to ``total``, each from 0 to its ``room``.

    What is too much is taken where there is some, in proportion; what is lacking goes where there
    is room left, in proportion. ValueError for a total that is negative or has no room.
    """
    if not 0 <= total <= int(room.sum()):
        raise ValueError(f"{total} ns do not fit into {int(room.sum())}")
    found = np.minimum(np.maximum(np.rint(wanted), 0).astype(np.int64), room)
    while lacking := total - int(found.sum()):
        spare = room - found if lacking > 0 else found
        takers = np.flatnonzero(spare)
        if abs(lacking) <= len(takers):
            # Less than one each is left: those with most to spare give or take it.
            moved = np.zeros_like(spare)
            moved[np.argsort(-spare, kind="stable")[: abs(lacking)]] = 1
        else:
            ratio = abs(lacking) / int(spare.sum())
            moved = np.minimum((spare * ratio).astype(np.int64), spare)
        found += moved if lacking > 0 else -moved
    return found
