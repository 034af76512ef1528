"""Shares of a population's time: ratios of exact sums, with what they rest on.

Every row is partitioned in integer nanoseconds, so the sums are exact; a share is a ratio of
sums, never a mean of ratios.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.parts import Parts, Source, chosen_rows
from latdiag.diagnosis.result import Breakdown, Share
from latdiag.stats.blocks import resampled_sums
from latdiag.stats.dependence import inner, sum_variance
from latdiag.stats.distributions import t_quantile

#: Fewer rows than this bear no interval of a share.
TAIL_ROWS = 30
#: Rows that follow each other more closely than this say little of a tail, unless they come in
#: so many independent segments.
_AUTOCORRELATION, _SEGMENTS = 0.7, 4
_TWO_SIDED = 1.96
#: With more of the time unattributed, nothing else is as sure as its evidence.
UNEXPLAINED = 0.1
_GRADES = "ABCDE"
#: Of the draws that say who leads.
_REPETITIONS = 2000


def breakdown(parts: Parts, interval: str, population: str) -> Breakdown | None:
    """Where the time of a population went; None where there is no row.

    ``interval``: client_e2e, client_ttft or decode. ``population``: mean (all rows) or p95_tail
    (rows at or above the 95th percentile of the interval).
    """
    columns = parts.inside(interval)
    total = np.sum(list(columns.values()), axis=0)
    rows = chosen_rows(total, population)
    if not len(rows):
        return None
    whole = int(total[rows].sum())
    sums = settled({name: int(column[rows].sum()) for name, column in columns.items()}, parts)
    insufficient = _insufficient(parts, total, len(rows), population)
    half = {} if insufficient else _half_widths(parts, columns, rows, total)
    most = {} if insufficient else _most(parts, rows, total)
    shares = {}
    for name, value in sums.items():
        source = parts.sources[name]
        shares[name] = _share(
            value,
            whole,
            _interval(
                name, value, whole, half.get(name), _slack(parts, name, rows), most.get(name, 1.0)
            ),
            Source(
                _grade(name, source, parts.delayed[rows]),
                _evidence(name, source, parts.delayed[rows]),
                source.members,
            ),
        )
    return Breakdown(
        interval=parts.interval if interval == "client_e2e" else interval,
        total_ns=whole,
        n=len(rows),
        segments=parts.segments,
        left_out=parts.left_out,
        insufficient=insufficient,
        shares=_lowered(shares),
    )


def unattributed(shares: Mapping[str, Share]) -> float:
    """How much of the time no evidence covers, or too much of it does: a share of 1."""
    rest = shares.get("unattributed")
    return abs(rest.share or 0.0) if rest is not None else 0.0


def _lowered(shares: Mapping[str, Share]) -> Mapping[str, Share]:
    """With grades one rung down where much of the time is unexplained: what is missing there may
    belong to any of the others."""
    unknown = unattributed(shares)
    if unknown <= UNEXPLAINED:
        return shares
    return {
        name: share
        if name in ("client", "unattributed")
        else replace(
            share,
            grade=_GRADES[min(_GRADES.index(share.grade) + 1, 4)],
            evidence=f"{share.evidence}; one grade lower, with {unknown:.0%} unattributed",
        )
        for name, share in shares.items()
    }


def leaves(parts: Parts, population: str) -> dict[str, Share]:
    """The leaves of the parts that have some, as shares of end to end; {} without rows."""
    rows = chosen_rows(parts.total, population)
    whole = int(parts.total[rows].sum())
    found: dict[str, Share] = {}
    for component in dict.fromkeys(name.partition(".")[0] for name in parts.leaves):
        names = [name for name in parts.leaves if name.partition(".")[0] == component]
        sums = {name: int(parts.leaves[name][rows].sum()) for name in names}
        # Leaves are differences of estimates: what one lacks, the one before it had too much.
        for one, before in reversed(list(zip(names[1:], names[:-1], strict=True))):
            if sums[one] < 0:
                sums[before] += sums[one]
                sums[one] = 0
        for name, value in sums.items():
            source = parts.leaf_sources[name]
            found[name] = _share(value, whole, (None, None), source)
    return found if np.size(rows) else {}


def settled(sums: Mapping[str, int], parts: Parts) -> dict[str, int]:
    """No sum but ``unattributed`` is negative: what is lacking comes from where it was put."""
    found = dict(sums)
    for _ in found:
        for name in sums:
            other = parts.sources[name].settles
            if found[name] < 0 and other in found:
                found[other] += found[name]
                found[name] = 0
    for name, value in found.items():
        if value < 0 and name != "unattributed" and parts.sources[name].settles is None:
            raise ValueError(f"{name} is negative and has nothing to settle with")
    return found


def leads(parts: Parts, first: str, population: str) -> float | None:
    """How often ``first`` would be ahead of all others, had other requests come: 0 to 1.

    Rows are drawn anew in blocks, each time with laws drawn anew, and what the evidence leaves
    open counts against ``first``. None where nothing can be said: too few rows, or no time.
    """
    rows = chosen_rows(parts.total, population)
    if len(rows) < TAIL_ROWS or int(parts.total[rows].sum()) <= 0:
        return None
    random = np.random.default_rng(len(parts.total))
    segment = parts.segment[rows] if parts.segment is not None else np.zeros(len(rows), int)
    if parts.stretch is not None:
        # A change that was seen is no chance: as many requests come before it, and after.
        segment = segment * (int(parts.stretch.max()) + 1) + parts.stretch[rows]
    others = [name for name in parts.parts if name != first]
    apart = np.array([(parts.parts[first] - parts.parts[name])[rows] for name in others])
    sums = resampled_sums(apart, segment, _REPETITIONS, random)
    drawn = random.integers(0, 1 << 30, _REPETITIONS)
    down, _ = _slack(parts, first, rows)
    for place, name in enumerate(others):
        laws = _law_sums(parts, rows, {first: 1.0, name: -1.0})
        if laws is not None:
            sums[:, place] += (laws - laws.mean())[drawn % len(laws)]
        _, up = _slack(parts, name, rows)
        # What moves from one to the other takes from the lead twice.
        sums[:, place] -= down + up
    return float((sums > 0).all(axis=1).mean())


# ---------------------------------------------------------------------- what is left open
def _insufficient(
    parts: Parts, total: NDArray[np.int64], rows: int, population: str
) -> str | None:
    """Why no interval of this population would be worth its name; None where one is."""
    if rows < TAIL_ROWS:
        return f"{rows} requests; {TAIL_ROWS} are needed for an interval"
    if population == "mean":
        return None
    if parts.no_tail is not None:
        return parts.no_tail
    spells = _spells(chosen_rows(total, population), parts.segment)
    if spells < TAIL_ROWS // 2:
        return (
            f"{rows} requests, in {spells} separate periods; {TAIL_ROWS // 2} are needed for an"
            " interval"
        )
    if parts.segments < _SEGMENTS and autocorrelation(total) > _AUTOCORRELATION:
        return (
            f"the requests depend on each other and come in {parts.segments} independent"
            f" segments; {_SEGMENTS} are needed"
        )
    return None


def _spells(rows: NDArray[np.int64], segment: NDArray[np.int64] | None) -> int:
    """Groups of rows that do not follow each other: a busy spell counts once."""
    if not len(rows):
        return 0
    apart = np.diff(rows) > 2
    if segment is not None:
        apart |= np.diff(segment[rows]) != 0
    return 1 + int(apart.sum())


def autocorrelation(values: NDArray[np.int64]) -> float:
    """Of each value with the next, in the order given; 0 where they do not differ."""
    centred = values - values.mean()
    power = inner(centred, centred)
    return inner(centred[1:], centred[:-1]) / power if power > 0 else 0.0


def _half_widths(
    parts: Parts,
    columns: Mapping[str, NDArray[np.int64]],
    rows: NDArray[np.int64],
    total: NDArray[np.int64],
) -> dict[str, float]:
    """Half of each 95 % interval: what other requests, and what other designs would have shown.

    The ratio is linearised (Cochran, Sampling Techniques, 3rd ed., section 6.4): its variance is
    that of the sum of ``part - ratio * total`` over the rows, which depend on each other in time
    (``stats.dependence``). Measured coverage is in the tests. Where a change was seen, stretches
    are strata (ibid., section 6.10): what differs between them is no chance.
    """
    whole = float(total[rows].sum())
    if whole <= 0:
        return {}
    found = {}
    for name, values in columns.items():
        ratio = float(values[rows].sum()) / whole
        spread = sum_variance(_about(values[rows] - ratio * total[rows], parts, rows))
        sampled = t_quantile(spread.freedom, 0.975) * math.sqrt(spread.variance)
        laws = _TWO_SIDED * _law_deviation(parts, rows, {name: 1.0})
        found[name] = math.hypot(sampled, laws) / whole
    return found


def _about(
    terms: NDArray[np.float64], parts: Parts, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Each term less the mean of its stretch."""
    if parts.stretch is None:
        return terms
    stretch = parts.stretch[rows]
    count = np.maximum(np.bincount(stretch), 1)
    left: NDArray[np.float64] = terms - (np.bincount(stretch, terms) / count)[stretch]
    return left


def _law_deviation(parts: Parts, rows: NDArray[np.int64], signs: Mapping[str, float]) -> float:
    """Standard deviation, ns, of a signed sum of parts over the laws that were drawn again."""
    sums = _law_sums(parts, rows, signs)
    return float(sums.std(ddof=1)) if sums is not None else 0.0


def _law_sums(
    parts: Parts, rows: NDArray[np.int64], signs: Mapping[str, float]
) -> NDArray[np.float64] | None:
    """A signed sum of parts, ns, once for each time that the laws were drawn again."""
    found = [
        sign * parts.draws[n][:, rows].sum(axis=1) for n, sign in signs.items() if n in parts.draws
    ]
    return sum(found[1:], found[0]) if found else None


def _slack(parts: Parts, name: str, rows: NDArray[np.int64]) -> tuple[int, int]:
    """(how much less, how much more) the evidence allows for a part over these rows, ns."""
    if name not in parts.slack:
        return 0, 0
    less, more = parts.slack[name]
    return round(float(less[rows].sum())), round(float(more[rows].sum()))


def _most(parts: Parts, rows: NDArray[np.int64], total: NDArray[np.int64]) -> dict[str, float]:
    """The largest share that a part may have, as it lies within a sum that is stated."""
    limits: dict[str, float] = {}
    for name, column in parts.most.items():
        held = {"of": column}
        half = _half_widths(parts, held, rows, total)
        limits[name] = float(column[rows].sum()) / float(total[rows].sum()) + half.get("of", 0.0)
    return limits


def _interval(
    name: str,
    value: int,
    whole: int,
    half: float | None,
    slack: tuple[int, int],
    most: float = 1.0,
) -> tuple[float | None, float | None]:
    """The ends of a share's interval; None where it has none. ``most``: the largest share that it
    may have."""
    if whole <= 0 or half is None:
        return None, None
    share = value / whole
    least = -1.0 if name == "unattributed" else 0.0
    lo = min(share, max(least, share - half - slack[0] / whole))
    return lo, max(share, min(1.0, most, share + half + slack[1] / whole))


def _share(
    value: int, whole: int, bounds: tuple[float | None, float | None], source: Source
) -> Share:
    share = value / whole if whole > 0 else None
    return Share(share, *bounds, value, source.grade, source.evidence, source.members)


def _grade(name: str, source: Source, delayed: NDArray[np.bool_]) -> str:
    bounded = name == "network" and source.grade == "A" and bool(delayed.any())
    return "D" if bounded else source.grade


def _evidence(name: str, source: Source, delayed: NDArray[np.bool_]) -> str:
    late = int(delayed.sum())
    if name == "network" and late:
        return f"{source.evidence}; ACK delayed in {late} of {len(delayed)}: bounded"
    return source.evidence
