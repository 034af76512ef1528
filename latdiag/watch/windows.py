"""The last 1, 5 and 60 minutes: where the time goes, and the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latdiag.attribution.accounts import Rank
from latdiag.attribution.ledger import united
from latdiag.attribution.parts import Parts, Source
from latdiag.diagnosis.breakdown import breakdown
from latdiag.diagnosis.case import Case
from latdiag.diagnosis.result import Breakdown, Verdict
from latdiag.diagnosis.verdict import verdict
from latdiag.model.components import COMPONENTS
from latdiag.model.units import NS_PER_S
from latdiag.watch.bins import ALL, BIN_NS, Bin, Bins, Cell, Key, Sample, quantile

LENGTHS = {"1m": 2, "5m": 10, "60m": 120}
#: Rows of a window that intervals are drawn from.
_MOST_ROWS = 4000
#: Fewer slow requests than this say nothing of the tail.
LEAST_TAIL = 30


@dataclass(frozen=True, slots=True)
class Window:
    """``n`` requests of ``seen`` in ``seconds``. ``shares``: exact, by class of components
    (several that are told together joined with ``+``); ``ttft_shares`` until the first token;
    ``tail``: of the slowest 5 % of a sample. Times in ns."""

    name: str
    seconds: float
    seen: int
    n: int
    mean_ns: float
    shares: dict[str, float]
    ttft_shares: dict[str, float]
    tail: dict[str, float]
    ttft_p50: float | None
    ttft_p95: float | None
    tpot_p50: float | None
    e2e_p95: float | None
    verdict: Verdict | None

    @property
    def coverage(self) -> float | None:
        return self.n / self.seen if self.seen else None


def closed(bins: Bins, until: int, length: int) -> list[Bin]:
    """The bins of a window that ends before bin ``until``."""
    return [each for each in bins.bins if until - length <= each.number < until]


def classes(several: Sequence[Bin]) -> dict[str, tuple[str, ...]]:
    """Of each component the class that it is told in, in all of these bins."""
    merged = united(members for each in several for members in each.merged)
    return {name: merged.get(name, (name,)) for name in COMPONENTS}


def summed(several: Sequence[Bin], key: Key) -> Cell:
    cell = Cell()
    for each in several:
        if key in each.cells:
            cell.add(each.cells[key])
    return cell


def shares_of(sums: Sequence[int], told: dict[str, tuple[str, ...]]) -> dict[str, float]:
    """Ratios of sums, by class, in time order; {} where there is no time."""
    whole = int(sum(sums))
    found: dict[str, int] = {}
    for name, value in zip(COMPONENTS, sums, strict=True):
        found["+".join(told[name])] = found.get("+".join(told[name]), 0) + int(value)
    return {name: value / whole for name, value in found.items() if value} if whole > 0 else {}


def window(bins: Bins, name: str, until: int, key: Key = ALL, judged: bool = True) -> Window:
    """The window of this name that ends before bin ``until``. ``judged``: with verdict and tail,
    which are of all requests alone."""
    several = closed(bins, until, LENGTHS[name])
    cell, told = summed(several, key), classes(several)
    seen = sum(each.seen for each in several)
    found = _judged(several, told, bins) if judged and cell.n else (None, {})
    return Window(
        name=name,
        seconds=max(1, len(several)) * BIN_NS / NS_PER_S,
        seen=seen if key == ALL else cell.n,
        n=cell.n,
        mean_ns=float(cell.whole.sum()) / cell.n if cell.n else 0.0,
        shares=shares_of(cell.whole.tolist(), told),
        ttft_shares=shares_of(cell.early.tolist(), told),
        tail=found[1],
        ttft_p50=quantile(cell.ttft, 0.5),
        ttft_p95=quantile(cell.ttft, 0.95),
        tpot_p50=quantile(cell.tpot, 0.5),
        e2e_p95=quantile(cell.e2e, 0.95),
        verdict=found[0],
    )


def _judged(
    several: Sequence[Bin], told: dict[str, tuple[str, ...]], bins: Bins
) -> tuple[Verdict | None, dict[str, float]]:
    """The verdict of a window, by the rules of every verb, and the shares of its tail."""
    samples = [each.sample for each in several if each.sample is not None]
    if not samples:
        return None, {}
    # Of a bin of many requests fewer were kept: each request of the window is as likely.
    counts = [each.cells[ALL].n for each in several if each.sample is not None]
    kept = min(len(one.draw) / n for one, n in zip(samples, counts, strict=True))
    kept = min(kept, _MOST_ROWS / sum(counts))
    sample = Sample.joined(
        [
            Sample.joined([one], max(1, round(n * kept)))
            for one, n in zip(samples, counts, strict=True)
        ],
        2 * _MOST_ROWS,
    )
    parts = _parts(sample, told, bins.sources)
    shares = {
        population: found
        for population in ("mean", "p95_tail")
        if (found := breakdown(parts, "client_e2e", population)) is not None
    }
    case = Case(
        shares,
        parts,
        True,
        {},
        given=frozenset({Rank.SPANS}),
        requests=len(sample.total),
        listened=frozenset({"spans"}),
    )
    return verdict(case), _tail(shares.get("p95_tail"), told)


def _tail(found: Breakdown | None, told: dict[str, tuple[str, ...]]) -> dict[str, float]:
    if found is None or found.n < LEAST_TAIL:
        return {}
    return {
        "+".join(told[name]): share.share
        for name, share in found.shares.items()
        if share.share is not None
    }


def _parts(sample: Sample, told: dict[str, tuple[str, ...]], sources: dict[str, Source]) -> Parts:
    order = np.argsort(sample.at_ns, kind="stable")
    columns, known = {}, {}
    for name in dict.fromkeys(told[each][0] for each in COMPONENTS):
        places = [COMPONENTS.index(member) for member in told[name]]
        column = sample.whole[order][:, places].sum(axis=1)
        if not column.any() and name != "unattributed":
            continue
        columns[name] = column
        first = next((sources[m] for m in told[name] if m in sources), Source("A", "spans"))
        members = told[name] if len(told[name]) > 1 else ()
        known[name] = Source(
            "E" if members else first.grade, first.evidence, members, settles="unattributed"
        )
    known["unattributed"] = Source(known["unattributed"].grade, known["unattributed"].evidence)
    return Parts(
        total=sample.total[order],
        ttft=sample.ttft[order],
        parts=columns,
        delayed=np.zeros(len(order), dtype=bool),
        left_out=0,
        sources=known,
        interval="server",
    )
