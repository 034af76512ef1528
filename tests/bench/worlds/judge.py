"""What an answer is worth, set against the truth of the same requests.

Nothing here knows how an answer was come by. The rules:

- The truth's dominant is the largest component of the sum over the population of which the verdict
  speaks, of all requests unless it says that it speaks of the slowest. Where the next is within 5
  points either is right, and so is not to choose.
- **wrong** (confidently): a dominant that is not it, a merged class without it, or healthy where
  the rule of ``explain healthy``, applied to the truth, says no by more than a hair.
- **alarm**: a dominant where that rule says healthy by more than a hair.
- **no answer**: ambiguous, insufficient, or a run that the client calls invalid.
- Of classes: the share of a merged class is to be the sum of its members'. A component that no
  class has is stated as nothing, or as much as is unattributed. The client's own part and what is
  unattributed are no classes: the one has no other book, the other states nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latdiag.model.metrics import SLO_PRESETS
from latdiag.model.units import parse_duration

from .client import Row
from .truth import Truth, by_component, partable

#: Components closer than this in truth are both right, and so is not to choose.
CLOSE = 0.05
#: Of ``latdiag explain healthy``: the objective, the parts that a server can be without and the
#: share from which one is worth a name, and what a load may cost.
PRESET = "mlperf:llama3.1-8b-interactive"
AVOIDABLE = ("client", "network", "gateway", "queue", "interconnect")
NAMED, OVER_ALONE, LONG, FAILED = 0.2, 1.3, 5, 0.01
#: A component that an answer leaves out altogether may hold so much.
LEFT_OUT = 0.005
_NO_CLASS = ("client", "unattributed")
#: The slowest of which a verdict may speak.
_TAIL = 0.95


@dataclass(frozen=True, slots=True)
class Book:
    """The truth of a probe. ``shares`` and ``tail``: of the components, of all requests and of the
    slowest 5 %. ``healthy``: by the rule; None within a hair of it. ``partable``: components that
    the probe can tell from all others. ``n``: requests of the workload that were served."""

    shares: Mapping[str, float]
    tail: Mapping[str, float]
    healthy: bool | None
    partable: frozenset[str]
    n: int
    total: int

    def ranked(self, population: str) -> list[str]:
        shares = self.tail if population == "p95_tail" else self.shares
        return sorted(shares, key=lambda name: (-shares[name], name))

    def meant(self, population: str) -> frozenset[str]:
        """The components that are right as a dominant."""
        shares = self.tail if population == "p95_tail" else self.shares
        first, *others = self.ranked(population)
        near = [name for name in others[:1] if shares[first] - shares[name] < CLOSE]
        return frozenset((first, *near))


@dataclass(frozen=True, slots=True)
class Stated:
    """A class of an answer: shares of 1; no interval where ``lo`` is None."""

    members: frozenset[str]
    share: float
    lo: float | None
    hi: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """``kind``: as a verdict's. ``dominant``: members of the class that leads; empty for none.
    ``rest``: the most that may be unattributed."""

    kind: str
    dominant: frozenset[str] = frozenset()
    population: str = "mean"
    classes: tuple[Stated, ...] = ()
    rest: float = 0.0


@dataclass(frozen=True, slots=True)
class Error:
    """``covers``: None where there was no interval."""

    members: frozenset[str]
    said: float
    true: float
    covers: bool | None

    @property
    def size(self) -> float:
        return abs(self.said - self.true)


@dataclass(frozen=True, slots=True)
class Judged:
    """``mark``: right, wrong, alarm or none. ``alone``: whether the dominant stood alone; None
    where it need not, since nothing can part it, or nothing had to be named."""

    mark: str
    why: str
    alone: bool | None
    members: int | None
    errors: tuple[Error, ...]

    @property
    def worst(self) -> float:
        return max((error.size for error in self.errors), default=0.0)


# ---------------------------------------------------------------------- the truth
def book_of(rows: Sequence[Row]) -> Book:
    """Of the workload's rows."""
    served = [row for row in rows if row.ok]
    truths = [row.truth() for row in served]
    if not truths:
        return Book({}, {}, None, frozenset(), 0, 0)
    shares = _shares(truths)
    totals = np.array([truth.total for truth in truths])
    limit = np.quantile(totals, _TAIL)
    tail = _shares([truth for truth in truths if truth.total >= limit])
    return Book(
        shares,
        tail,
        healthy(served, truths, shares, 1 - len(served) / len(rows)),
        frozenset(name for name in shares if partable(name, truths)),
        len(truths),
        int(totals.sum()),
    )


def _shares(truths: Sequence[Truth]) -> dict[str, float]:
    sums = by_component(truths)
    total = sum(sums.values())
    return {name: value / total for name, value in sums.items()}


def healthy(
    rows: Sequence[Row], truths: Sequence[Truth], shares: Mapping[str, float], failed: float
) -> bool | None:
    """The rule of ``explain healthy`` on what really was; None where it hangs on a hair."""
    others = (share for name, share in shares.items() if name != "decode")
    margins = [shares.get("decode", 0.0) - max(others, default=0.0)]
    margins += [NAMED - shares.get(name, 0.0) for name in AVOIDABLE]
    margins += [1 - _over_alone(truths) / OVER_ALONE]
    ttft, tpot = _limits()
    paced = [pace for row in rows if (pace := _tpot(row)) is not None]
    margins += [1 - float(np.quantile([_ttft(row) for row in rows], _TAIL)) / ttft]
    margins += [1 - float(np.quantile(paced, _TAIL)) / tpot] if paced else []
    long_enough = _span(rows) > LONG * float(np.median([truth.alone for truth in truths]))
    if failed > FAILED or not long_enough or min(margins) < -CLOSE:
        return False
    return True if min(margins) > CLOSE else None


def _over_alone(truths: Sequence[Truth]) -> float:
    total = np.array([truth.total for truth in truths])
    alone = np.array([max(truth.alone, 1) for truth in truths])
    at95 = float(np.quantile(total, _TAIL) / np.quantile(alone, _TAIL))
    return max(at95, float(total.sum() / alone.sum()))


def _ttft(row: Row) -> int:
    """Until the first text; until the end of a reply without any."""
    first = (at for at, event in row.events if event.tokens)
    return next(first, row.done or row.begin) - row.begin


def _tpot(row: Row) -> float | None:
    arrivals = [(at, event.tokens) for at, event in row.events if event.tokens]
    later = sum(tokens for _, tokens in arrivals[1:])
    return (arrivals[-1][0] - arrivals[0][0]) / later if later else None


def _span(rows: Sequence[Row]) -> float:
    """ns over which the shortest segment sent."""
    begins: dict[str, list[int]] = {}
    for row in rows:
        begins.setdefault(row.scenario, []).append(row.begin)
    return min(float(max(each) - min(each)) for each in begins.values())


def _limits() -> tuple[float, float]:
    """(TTFT, TPOT) of the preset, ns."""
    found = {slo.partition(".")[0]: slo.partition("<")[2] for slo in SLO_PRESETS[PRESET]}
    return float(parse_duration(found["ttft"])), float(parse_duration(found["tpot"]))


# ---------------------------------------------------------------------- an answer
def answer_of(result: Mapping[str, Any]) -> Answer:
    """From the JSON of a result."""
    said, mean = result["verdict"], (result.get("breakdown") or {}).get("mean") or {}
    shares = {n: e for n, e in mean.items() if isinstance(e, Mapping) and "share" in e}
    rest = shares.get("unattributed")
    spoken = (result.get("breakdown") or {}).get(said["population"]) or {}
    dominant: frozenset[str] = frozenset()
    if said["dominant"]:
        entry = spoken.get(said["dominant"]) or {}
        dominant = frozenset(entry.get("members") or [said["dominant"]])
    return Answer(
        said["kind"],
        dominant,
        said["population"],
        tuple(
            Stated(frozenset(e.get("members") or [n]), e["share"] or 0.0, e["lo"], e["hi"])
            for n, e in shares.items()
            if n not in _NO_CLASS
        ),
        0.0 if rest is None else max(rest["share"] or 0.0, rest["hi"] or 0.0),
    )


def judge(answer: Answer, book: Book) -> Judged:
    mark, why = _mark(answer, book)
    named = bool(answer.dominant)
    return Judged(
        mark,
        why,
        _alone(answer, book),
        len(answer.dominant) if named else None,
        errors_of(answer, book),
    )


def _mark(answer: Answer, book: Book) -> tuple[str, str]:
    if answer.kind == "healthy":
        if book.n and book.healthy is not False:
            return "right", ""
        return "wrong", "called healthy"
    if answer.kind == "overloaded" and not answer.dominant:
        return "right", ""  # whether it is, is judged by itself: it names nobody
    if not answer.dominant:
        close = book.n > 0 and len(book.meant(answer.population)) > 1
        if answer.kind == "ambiguous" and close:
            return "right", ""
        return "none", answer.kind
    if not book.n:
        return "wrong", "nothing was served"
    if not answer.dominant & book.meant(answer.population):
        return "wrong", f"{'+'.join(sorted(answer.dominant))} is named"
    if book.healthy:
        return "alarm", "it is healthy"
    return "right", ""


def _alone(answer: Answer, book: Book) -> bool | None:
    if not book.n or book.healthy or answer.kind == "healthy":
        return None
    meant = book.meant(answer.population)
    if not meant <= book.partable or (not answer.dominant and len(meant) > 1):
        return None
    return len(answer.dominant) == 1 and answer.dominant <= meant


def errors_of(answer: Answer, book: Book) -> tuple[Error, ...]:
    """Of each class that is stated, and of each component that is passed over."""
    if not book.n or not answer.classes:
        return ()
    found = []
    for each in answer.classes:
        true = sum(book.shares.get(name, 0.0) for name in each.members)
        covers = None
        if each.lo is not None and each.hi is not None:
            covers = each.lo <= true <= each.hi
        found.append(Error(each.members, each.share, true, covers))
    stated = frozenset[str]().union(*(each.members for each in answer.classes))
    for name, true in book.shares.items():
        if name not in stated and name not in _NO_CLASS and true > LEFT_OUT:
            found.append(Error(frozenset({name}), 0.0, true, true <= answer.rest))
    return tuple(found)
