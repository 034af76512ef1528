"""Whether an open loop asks for more than the server finishes, and how much it finishes.

While requests pile up the server is busy all the time, so what it delivers then is its capacity.
What a request has received counts by its output: of one that is half streamed, half is served, so
a short window says as much as it can. A closed loop cannot ask for more than is finished.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.model.units import NS_PER_S, ms, seconds
from latdiag.stats.distributions import t_quantile

if TYPE_CHECKING:
    from latdiag.measurement.frame import Frame
    from latdiag.measurement.observations import Observations

#: Requests of a window, and of all windows, that say anything of growth.
_FEWEST = 16
#: Blocks of time that a window's service is counted in, and the least that is served in them all.
_BLOCKS, _LEAST_SERVED = 8, 8.0
#: The first part of a window: the batch fills, and nobody waits yet.
_FILLING = 0.2
#: From this first token on (of all) the server runs empty again.
_NEARLY_ALL = 0.95
#: Served at most this share of what is offered, in both halves of the time; a line explains so
#: much of how the backlog grows, or at least so much where arrivals at random bend it.
_CLEARLY, _STRAIGHT, _BENT = 0.9, 0.8, 0.2
#: The last requests take so many times as long as the first.
_LONGER = 1.5
#: Of a server whose replicas do not all have a backlog, less is served once arrivals have ended.
_THINNER = 0.85
#: First tokens come for at least so much of the time that nearly all requests take.
_HALF = 0.5
#: What may be asked of a capacity: beyond that, waits grow long by chance alone.
_BEARABLE = 0.9


@dataclass(frozen=True, slots=True)
class Backlog:
    """More is offered than is finished; rates in requests/s. ``served_lo``, ``served_hi``: the
    95 % interval of ``served_rate``. ``grew``: ttft, or e2e where that grows and TTFT does not;
    ``first_ms`` and ``last_ms``: its means over the first and the last fifth of the ``requests``,
    which were sent for ``sent_s``. ``bearable_rate``: what may be asked of such a server, and
    ``more_replicas``: how many like it the offered rate needs besides it."""

    offered_rate: float
    served_rate: float
    served_lo: float
    served_hi: float
    bearable_rate: float
    more_replicas: int
    grew: str
    first_ms: float
    last_ms: float
    requests: int
    sent_s: float


@dataclass(frozen=True, slots=True)
class Rows:
    """The requests of one window, which were sent without a pause between them, in the order in
    which they were due. Instants in ns, as of a frame. ``outputs``: arrivals, 0 of a request that
    failed."""

    begin: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    done: NDArray[np.int64]
    outputs: NDArray[np.int64]

    @classmethod
    def of_frame(cls, frame: Frame) -> list[Rows]:
        """Of the workload: a window for each scenario of it."""
        rows = np.flatnonzero(frame.workload & frame.begun)
        outputs = np.where(frame.ok, frame.outputs, 0)
        found = (frame.begin, frame.first, frame.last, frame.done, outputs)
        return cls._windows(frame.scenario[rows].astype(str), *(each[rows] for each in found))

    @classmethod
    def of_observations(cls, seen: Observations, stage: str) -> list[Rows]:
        """Of a stage of a probe: a window for each segment."""
        rows = np.flatnonzero(seen.stage == stage)
        outputs = np.where(seen.ok, np.diff(seen.offsets), 0)
        found = (seen.begin, seen.first, seen.last, seen.done, outputs)
        return cls._windows(seen.scenario[rows].astype(str), *(each[rows] for each in found))

    @classmethod
    def _windows(cls, names: NDArray[np.str_], *columns: NDArray[np.int64]) -> list[Rows]:
        windows = []
        for name in sorted(set(names.tolist())):
            here = np.flatnonzero(names == name)
            here = here[np.argsort(columns[0][here], kind="stable")]
            windows.append(cls(*(column[here] for column in columns)))
        return windows


@dataclass(frozen=True, slots=True)
class _Window:
    """``served``: by block, in mean requests; ``took``: ns of each block; ``straight``: how much
    of the backlog a rising line explains."""

    span_ns: int
    served: NDArray[np.float64]
    took: NDArray[np.float64]
    straight: float
    #: variance of the mean length of the replies, over its square: others of the same lengths
    #: would be a little longer or shorter
    lengths: float


def backlog_of(windows: Sequence[Rows], planned: float | None = None) -> Backlog | None:
    """Of an open loop; None where what is asked is finished, or nothing shows otherwise.
    ``planned``: the rate that was asked for, requests/s; without it, what came is as uncertain as
    a Poisson process."""
    pairs = [(rows, one) for rows in windows if (one := _window(rows)) is not None]
    n = sum(len(rows.begin) for rows, _ in pairs)
    if n < _FEWEST:
        return None
    found = [one for _, one in pairs]
    served, lo, hi = _rate(found)
    offered = (n - len(found)) * NS_PER_S / sum(window.span_ns for window in found)
    least = planned or offered * (1 - 1.96 / math.sqrt(n))
    if not (
        hi < least and served < _CLEARLY * offered and _is_steady(found, min(offered, least), hi)
    ):
        return None
    for name in ("ttft", "e2e"):
        first, last = _ends([rows for rows, _ in pairs], name)
        if last > _LONGER * first:
            bearable = _rounded_down(_BEARABLE * served)
            more = max(1, math.ceil(offered / bearable) - 1)
            span = seconds(sum(window.span_ns for window in found))
            figures = offered, served, lo, hi, bearable, more
            return Backlog(*figures, name, ms(first), ms(last), n, span)
    return None


def _window(rows: Rows) -> _Window | None:
    """None where too little is served while it is asked for to say anything."""
    good = rows.outputs > 0
    if int(good.sum()) < _FEWEST // 2:
        return None
    begin, first, last, outputs = rows.begin, rows.first[good], rows.last[good], rows.outputs[good]
    opened, closed = int(begin[0]), int(begin[-1])
    if closed <= opened:
        return None  # one burst has no rate at which it asks
    took = (rows.done - begin)[good]
    filled = float(np.median(took[: max(3, len(took) // 10)]))
    start = opened + max(_FILLING * (closed - opened), filled)
    drained = float(np.quantile(first, _NEARLY_ALL, method="lower"))
    weight = outputs / float(outputs.mean())
    # Both as floats: instants since 1970 are rounded, up or down.
    stop = max(drained, float(closed))
    if float(closed) <= start:
        return _backed_up(rows.begin, first, last)
    while_asked = _flow(first, last, weight, start, closed)
    if stop > float(closed) and _flow(first, last, weight, closed, stop) < _THINNER * while_asked:
        stop = float(closed)
    edges = np.linspace(start, stop, _BLOCKS + 1)
    done = np.array([_served(first, last, weight, edge) for edge in edges])
    if done[-1] - done[0] < _LEAST_SERVED:
        return None
    asked = np.linspace(start, closed, _BLOCKS + 1)
    waiting = np.searchsorted(begin, asked, side="right") - np.array(
        [_served(first, last, weight, edge) for edge in asked]
    )
    return _Window(
        closed - opened,
        np.diff(done),
        np.diff(edges),
        _rising(asked, waiting),
        float(weight.var()) / len(weight),
    )


def _backed_up(
    begin: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> _Window | None:
    """Where requests take longer than all of them are sent for: where first tokens come for most
    of the time, streams wait for the prompts of others, and the server works on all of them until
    nearly all have ended. None where all have begun soon: more might stream as well."""
    opened, closed = int(begin[0]), int(begin[-1])
    begun, ended = (
        float(np.quantile(at, _NEARLY_ALL, method="lower")) - opened for at in (first, last)
    )
    if opened + begun <= closed or begun < _HALF * ended:
        return None
    edges = opened + begun * np.linspace(0, 1, _BLOCKS + 1)
    done = np.searchsorted(np.sort(first), edges, side="right").astype(float)
    asked = np.linspace(opened, closed, _BLOCKS + 1)
    waiting = np.searchsorted(begin, asked, side="right") - np.searchsorted(
        np.sort(first), asked, side="right"
    )
    return _Window(
        closed - opened,
        np.diff(done),
        np.diff(edges) * ended / begun,
        _rising(asked, waiting.astype(float)),
        0.0,
    )


def _is_steady(windows: Sequence[_Window], asked: float, hi: float) -> bool:
    """Whether less is served than is ``asked`` for (requests/s) all the time, and not in a spell.
    ``hi``: the most that may be served."""
    straight = [window.straight for window in windows]
    if min(straight) >= _STRAIGHT:
        return True
    rates = [
        sum(float(window.served[half].sum()) for window in windows)
        / sum(float(window.took[half].sum()) for window in windows)
        for half in np.split(np.arange(_BLOCKS), 2)
    ]
    bent = min(straight) >= _BENT and max(rates) * NS_PER_S < _CLEARLY * asked
    return bent and hi < asked


def _served(
    first: NDArray[np.int64], last: NDArray[np.int64], weight: NDArray[np.float64], at: float
) -> float:
    """What has been delivered by then, in mean requests."""
    part = (at - first + 1.0) / (last - first + 1.0)
    return float((weight * np.clip(part, 0.0, 1.0)).sum())


def _flow(
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    weight: NDArray[np.float64],
    since: float,
    until: float,
) -> float:
    """Mean requests per ns."""
    more = _served(first, last, weight, until) - _served(first, last, weight, since)
    return more / (until - since)


def _rising(at: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Share of the variance that a rising line explains; 0 for one that falls."""
    if float(values.std()) == 0.0:
        return 0.0
    r = float(np.corrcoef(at, values)[0, 1])
    return r * r if r > 0 else 0.0


def _rate(windows: Sequence[_Window]) -> tuple[float, float, float]:
    """Requests/s while they piled up, with a 95 % interval from how blocks of time differ."""
    served = np.concatenate([window.served for window in windows])
    took = np.concatenate([window.took for window in windows])
    rate = float(served.sum() / took.sum())
    apart = served - rate * took
    blocks = len(took)
    error = math.sqrt(float((apart**2).sum()) * blocks / (blocks - 1)) / float(took.sum())
    error = math.hypot(error, rate * math.sqrt(sum(w.lengths for w in windows)) / len(windows))
    half = t_quantile(blocks - 1, 0.975) * error
    return NS_PER_S * rate, NS_PER_S * max(0.0, rate - half), NS_PER_S * (rate + half)


def _ends(windows: Sequence[Rows], name: str) -> tuple[float, float]:
    """Mean TTFT or E2E over the first and over the last fifth of each window."""
    first, last = [], []
    for rows in windows:
        took = (rows.first if name == "ttft" else rows.done) - rows.begin
        took = took[rows.outputs > 0]
        fifth = max(1, len(took) // 5)
        first.append(took[:fifth])
        last.append(took[-fifth:])
    return float(np.concatenate(first).mean()), float(np.concatenate(last).mean())


def _rounded_down(value: float) -> float:
    """To two digits, never up."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / unit + 1e-9) * unit:.2g}")
