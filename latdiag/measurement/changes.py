"""What of a server's work changed while it was measured: when, from what to what.

Two things are looked at, each beside what it depends on anyway: the pace of a stream beside how
many others streamed or waited meanwhile, and TTFT beside the prompt and how many were in flight
before it. In a probe the requests that met no other are looked at as well, those of its designed
stages too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latdiag.model.units import NS_PER_S, ms
from latdiag.stats.shapes import FEWEST, Shape, shape_of

if TYPE_CHECKING:
    from latdiag.measurement.frame import Frame

#: A change by less than this factor is none to act on; what its interval must exceed.
_FACTOR, _AT_LEAST = 1.2, 1.12
#: The same of TTFT, which depends on more than is known, and of requests that met no other: they
#: are few, and of unlike stages.
_FACTOR_ROUGH = 1.35
#: Of the time, what a spell lasts at least.
_LASTS = 0.05
#: Arrivals after the first that show a pace.
_PACED = 3
#: Bounds of how many others there were, as far as they matter alike.
_CROWDS = (1, 2, 3, 5, 9, 17, 33)
#: Designed stages differ from each other: what is a step there may be of their own making.
_SLOW = ("line", "decay")
_KINDS = {"step": "step", "spell": "spell", "line": "drift", "decay": "cold_start"}


@dataclass(frozen=True, slots=True)
class Change:
    """``kind``: step, spell (there and back), drift or cold_start. ``what``: tpot or ttft.
    ``alone``: of requests that met no other. ``from_s``, in [``from_lo_s``, ``from_hi_s``], and
    ``until_s``: seconds from the run's first request; of a spell its end, else of a cold start, or
    of the run. ``before_ms``, ``after_ms``: geometric means beside the same company: before a
    step and after it, outside a spell and in it, at both ends of a drift, at the beginning of a
    cold start and when it is over. ``factor``: of the second to the first; 95 % interval.
    ``fade_s``: in how long a cold start falls to 1/e of itself; 0 where it goes on at one rate."""

    kind: str
    what: str
    alone: bool
    from_s: float
    from_lo_s: float
    from_hi_s: float
    until_s: float
    before_ms: float
    after_ms: float
    factor: float
    factor_lo: float
    factor_hi: float
    requests: int
    fade_s: float = 0.0

    def log_factor(self, at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """The logarithm of how many times as long requests take at these instants (s of the run)
        as they do before the change, or outside the spell. A drift is taken to have been under
        way before its first request was seen."""
        if self.kind == "step":
            done = (at_s >= self.from_s).astype(float)
        elif self.kind == "spell":
            done = ((at_s >= self.from_s) & (at_s < self.until_s)).astype(float)
        elif self.fade_s > 0:
            done = 1.0 - np.exp(-np.maximum(at_s - self.from_s, 0.0) / self.fade_s)
        else:
            done = (at_s - self.from_s) / max(self.until_s - self.from_s, 1e-9)
        return math.log(self.factor) * done


class Requests(NamedTuple):
    """Requests that succeeded, in the order of ``begin``; ns. ``outputs``: arrivals. ``isl``:
    tokens, 0 where they are not known."""

    begin: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    done: NDArray[np.int64]
    outputs: NDArray[np.int64]
    isl: NDArray[np.int64]


def requests_of(frame: Frame, rows: NDArray[np.int64]) -> Requests:
    """Of these rows those that succeeded with a first token."""
    rows = rows[frame.ok[rows] & frame.sound[rows] & (frame.outputs[rows] > 0)]
    rows = rows[np.argsort(frame.begin[rows], kind="stable")]
    columns = (frame.begin, frame.first, frame.last, frame.done, frame.outputs, frame.isl)
    return Requests(*(column[rows] for column in columns))


def changes_of(workload: Requests, alone: Requests | None, origin: int) -> tuple[Change, ...]:
    """Of a workload and, in a probe, of all requests that met no other. ``origin``: instant of the
    run's first request. What several show at one time is one change."""
    found: list[tuple[float, Change]] = []
    for requests, is_alone in ((alone, True), (workload, False)):
        if requests is None:
            continue
        for what, rows, values, known in _series(requests, is_alone):
            at = requests.begin[rows].astype(float)
            shape = shape_of(at, np.log(values), known)
            if shape is None or (is_alone and shape.kind not in _SLOW):
                continue
            if _matters(
                shape,
                float(at[-1] - at[0]),
                _FACTOR_ROUGH if is_alone or what == "ttft" else _FACTOR,
            ):
                weight = abs(shape.size) / max(shape.hi - shape.lo, 1e-9)
                found.append((weight, _stated(shape, what, is_alone, origin, len(rows))))
    return _distinct(found)


def _matters(shape: Shape, span: float, factor: float) -> bool:
    """``span``: of all values; a spell of hardly any time is a queue's own."""
    if shape.kind == "spell" and shape.until - shape.at < _LASTS * span:
        return False
    low = min(abs(shape.lo), abs(shape.hi)) if shape.lo * shape.hi > 0 else 0.0
    return abs(shape.size) >= math.log(factor) and low >= math.log(_AT_LEAST)


def _series(
    requests: Requests, alone: bool
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """(What, which rows, its values in ns, what it depends on)."""
    isl, osl = requests.isl, requests.outputs
    # What comes once a reply is a smaller part of the pace of a longer one.
    once = 1.0 / np.maximum(osl - 1.0, 1.0)
    length = np.column_stack((isl / 1000.0, np.log1p(isl), np.log1p(osl), once))
    paced = np.flatnonzero((requests.outputs > _PACED) & (requests.last > requests.first))
    if len(paced) >= FEWEST:
        pace = (requests.last - requests.first)[paced] / (requests.outputs[paced] - 1.0)
        beside = [] if alone else [_crowd(each[paced]) for each in _company(requests)]
        yield "tpot", paced, pace, _known(length[paced], *beside)
    told = np.flatnonzero(requests.first > requests.begin)
    if len(told) >= FEWEST:
        ttft = (requests.first - requests.begin)[told].astype(float)
        beside = [] if alone else [_crowd(_ahead(requests)[told])]
        yield "ttft", told, ttft, _known(length[told], *beside)


def _known(*columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those that vary."""
    whole = np.column_stack(columns)
    return whole[:, whole.std(axis=0) > 1e-9]


def _company(requests: Requests) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean numbers of others that streamed, and that waited for their first token, while each
    streamed."""
    streaming = _mean_of(requests.first, requests.last, requests)
    return np.maximum(streaming - 1.0, 0.0), _mean_of(requests.begin, requests.first, requests)


def _mean_of(
    begin: NDArray[np.int64], end: NDArray[np.int64], over: Requests
) -> NDArray[np.float64]:
    """Mean number of the spans [begin, end] under way while each request streamed."""
    edges = np.unique(np.concatenate((begin, end, over.first, over.last)))
    running = np.searchsorted(np.sort(begin), edges, "right") - np.searchsorted(
        np.sort(end), edges, "right"
    )
    area = np.concatenate(([0.0], np.cumsum(running[:-1] * np.diff(edges).astype(float))))
    since, until = (np.searchsorted(edges, each) for each in (over.first, over.last))
    mean: NDArray[np.float64] = (area[until] - area[since]) / np.maximum(over.last - over.first, 1)
    return mean


def _ahead(requests: Requests) -> NDArray[np.float64]:
    """Requests in flight when each came."""
    ended = np.searchsorted(np.sort(requests.done), requests.begin, "right")
    found: NDArray[np.float64] = np.arange(len(requests.begin)) - ended.astype(float)
    return found


def _crowd(number: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns that are linear between ``_CROWDS``: whatever grows with a crowd, they follow."""
    bounds = np.array((0.0, *_CROWDS))
    bounds = bounds[bounds <= max(float(number.max(initial=0.0)), 1.0)]
    return np.column_stack([np.maximum(number - bound, 0.0) for bound in bounds])


def _stated(shape: Shape, what: str, alone: bool, origin: int, n: int) -> Change:
    """Who becomes faster all the time is still warming up."""
    base, other = math.exp(shape.level), math.exp(shape.level + shape.size)
    size, lo, hi, kind = shape.size, shape.lo, shape.hi, _KINDS[shape.kind]
    if shape.kind == "decay":
        base, other, size, lo, hi = other, base, -size, -hi, -lo
    elif shape.kind == "line" and size < 0:
        kind = "cold_start"

    def instant(at: float) -> float:
        return (at - origin) / NS_PER_S

    return Change(
        kind=kind,
        what=what,
        alone=alone,
        from_s=instant(shape.at),
        from_lo_s=instant(shape.at_lo),
        from_hi_s=instant(shape.at_hi),
        until_s=instant(shape.until),
        before_ms=ms(base),
        after_ms=ms(other),
        factor=math.exp(size),
        factor_lo=math.exp(lo),
        factor_hi=math.exp(hi),
        requests=n,
        fade_s=shape.fade / NS_PER_S,
    )


def _distinct(found: Sequence[tuple[float, Change]]) -> tuple[Change, ...]:
    """The surest of those that are about one time."""
    kept: list[Change] = []
    for _, each in sorted(found, key=lambda pair: -pair[0]):
        if not any(_overlap(each, other) for other in kept):
            kept.append(each)
    return tuple(sorted(kept, key=lambda each: each.from_s))


def _overlap(one: Change, other: Change) -> bool:
    """A drift or a cold start is about the whole run."""
    whole = {"drift", "cold_start"}
    if one.kind in whole or other.kind in whole:
        return True
    near = 0.1 * max(one.until_s, other.until_s)
    pairs = ((a, b) for a in (one.from_s, one.until_s) for b in (other.from_s, other.until_s))
    return any(abs(a - b) <= near for a, b in pairs)
