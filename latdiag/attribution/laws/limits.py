"""What a server refuses as too many, and by which rule: so many at once, or so many in a time.

Each rule sets a number against a threshold: the requests under way, the level of a bucket that
empties evenly, the requests of a window. A rule holds where its number was below the threshold
for every request that was taken, and at it for every one that was refused. Nothing is named that
does not keep to this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latdiag.load.plan import LOADED_PATH, PATH
from latdiag.model.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from latdiag.measurement.frame import Frame
    from latdiag.measurement.observations import Observations

IN_FLIGHT, RATE = "in_flight", "rate"
#: A request reaches the server so much later than it was sent, or its place is free so much
#: before the client knows, at most: ns.
_JITTER_NS = 20 * NS_PER_MS
#: How much later than others some reach a bucket: the least that explains all is taken.
_SLACK_NS = tuple(ms * NS_PER_MS for ms in (6, 40))
#: Shares of the requests that may be at odds with a rule: others use the server too.
_ODD = 0.03
#: Seconds that windows of requests last, as providers write them.
_WINDOWS_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300)
#: Seconds from request to request that are tried as the pace of a bucket: the shortest, the
#: longest, and how much more from one to the next.
_SHORTEST_S, _LONGEST_S, _MORE = 0.005, 120.0, 1.01
#: Instants at which windows may begin that are tried: so many evenly, and between the last that
#: was refused and the first that was taken then, where these lie closest, so many times.
_PHASES, _BORDERS = 100, 20
#: How often requests have to be taken again after some were refused, for a pace to show.
_AGAIN = 3
#: A pace is known where its bounds are no further apart than this factor.
KNOWN_WITHIN = 1.2
#: Requests that are looked at: around the first that was refused.
_MOST_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Refused:
    """The rule by which requests are refused. ``rule``: IN_FLIGHT, RATE, or empty where none
    holds. ``value``, between ``lo`` and ``hi``: requests at once, or per second in the long run
    (``hi`` is infinite where none was taken since). ``burst``: requests that a rate takes at once
    after a pause. ``window_s``: where they are counted in windows, the shortest that explains
    them. ``sure``: no other rule does, and enough shows it. ``posts``: requests that are refused
    for what they say count as well.
    ``requests``, ``refused``: how many were sent, and refused so. ``statuses``: of these; 200:
    an event of a stream. ``wait_s``: what Retry-After asks for at most; None: nothing.
    ``most``: requests under way at once."""

    rule: str
    value: float
    lo: float
    hi: float
    burst: int
    window_s: int | None
    sure: bool
    posts: bool
    requests: int
    refused: int
    statuses: tuple[int, ...]
    wait_s: float | None
    most: int

    @property
    def known(self) -> bool:
        """Whether the number can be named."""
        close = bool(self.rule) and self.hi <= KNOWN_WITHIN * self.lo
        return close and (self.sure or self.rule == IN_FLIGHT)


class _Rule(NamedTuple):
    """The first fields of ``Refused``."""

    rule: str
    value: float
    lo: float
    hi: float
    burst: int
    window_s: int | None
    sure: bool
    posts: bool


@dataclass(frozen=True, slots=True)
class _Rows:
    """Requests for tokens (and what is refused for what it says, where that counts), in the order
    of sending. ``at``: when it was sent, ``done``: when it ended, ns; ``taken``: not refused."""

    at: NDArray[np.int64]
    done: NDArray[np.int64]
    taken: NDArray[np.bool_]


def refused_of(seen: Observations | Frame) -> Refused | None:
    """The rule; None where no request was refused as too many."""
    about_path = np.isin(seen.stage, (PATH, LOADED_PATH))
    shed = seen.shed & ~(seen.scenario == "get")
    if not shed.any():
        return None
    tokens, posts = _rows(seen, ~about_path), _rows(seen, ~(seen.scenario == "get"))
    waits = seen.wait[shed]
    counts = {
        "requests": len(posts.at),
        "refused": int(shed.sum()),
        "statuses": tuple(sorted({int(status) for status in seen.status[shed]})),
        "wait_s": float(waits.max()) / NS_PER_S if (waits > 0).any() else None,
        "most": _most(tokens),
    }
    places = None if shed[about_path].any() else _in_flight(tokens)
    rate = _rate(tokens, posts, bool(shed[about_path].any()))
    if places is not None:
        rule = _Rule(IN_FLIGHT, places, places, places, 0, None, rate is None, False)
    else:
        rule = rate or _Rule("", 0.0, 0.0, 0.0, 0, None, False, False)
    return Refused(*rule, **counts)  # type: ignore[arg-type]


def free_after(seen: Observations, law: Refused, needed: int) -> float:
    """ns from the end of all that was seen until a rate lets ``needed`` requests pass at once."""
    counts = ~(seen.scenario == "get") if law.posts else ~np.isin(seen.stage, (PATH, LOADED_PATH))
    rows = _rows(seen, counts)
    now, good = int(seen.done.max(initial=0)), rows.at[rows.taken]
    if law.window_s is not None and law.known:
        length, room = law.window_s * NS_PER_S, max(law.burst - needed, 0)
        if len(good) <= room:
            return 0.0
        # So many of the last ones may still count.
        return max(0.0, float(good[-room - 1] + length - now)) if room else float(length)
    pace, empty = NS_PER_S / law.lo, -np.inf
    for at in good.tolist():
        empty = max(empty, at) + pace
    return max(0.0, float(empty + (needed - law.burst) * pace - now))


def _rows(seen: Observations | Frame, which: NDArray[np.bool_]) -> _Rows:
    rows = np.flatnonzero(which & (seen.sent > 0))
    rows = rows[np.argsort(seen.sent[rows], kind="stable")]
    if len(rows) > _MOST_ROWS:
        first = int(np.argmax(seen.shed[rows]))
        start = max(0, min(first - _MOST_ROWS // 2, len(rows) - _MOST_ROWS))
        rows = rows[start : start + _MOST_ROWS]
    return _Rows(seen.sent[rows], np.maximum(seen.done, seen.sent)[rows], ~seen.shed[rows])


def _under_way(rows: _Rows, at: NDArray[np.int64], since: NDArray[np.int64]) -> NDArray[np.int64]:
    """Requests that were taken, sent by ``at`` and ended after ``since``."""
    begun = np.searchsorted(rows.at[rows.taken], at, side="right")
    ended = np.searchsorted(np.sort(rows.done[rows.taken]), since, side="right")
    found: NDArray[np.int64] = begun - ended
    return found


def _most(rows: _Rows) -> int:
    return int(_under_way(rows, rows.at, rows.at).max(initial=0))


def _in_flight(rows: _Rows) -> float | None:
    """So many at once are taken and no more; None: that is not the rule."""
    refused = rows.at[~rows.taken]
    if not len(refused):
        return None
    # Whoever was taken met at least these, and whoever was refused at most those.
    met = _under_way(rows, rows.at, rows.at + _JITTER_NS)[rows.taken]
    at_most = _under_way(rows, refused + _JITTER_NS, refused)
    few = max(1, int(np.quantile(at_most, _ODD, method="lower")))
    most = int(met.max(initial=0))
    odd = int((at_most < few).sum())
    if most > few or odd > _ODD * len(refused) or at_most.max(initial=0) < 1:
        return None
    # Where fewer were never taken beside each other than refusals met, the rule is not shown.
    return float(few) if most == few else None


# ---------------------------------------------------------------------- so many in a time
def _rate(tokens: _Rows, posts: _Rows, posts_count: bool) -> _Rule | None:
    """The rate that all that was taken and refused keeps to, the likeliest where several do."""
    tokens, posts = _late(tokens), _late(posts)
    kinds = ((posts, True),) if posts_count else ((tokens, False), (posts, True))
    buckets = [(fit, counts) for rows, counts in kinds if (fit := _bucket(rows)) is not None]
    if buckets:
        # Which requests count may be open: then the rate is no surer than both allow.
        lo, hi = min(fit[0] for fit, _ in buckets), max(fit[1] for fit, _ in buckets)
        value = (lo * hi) ** 0.5 if hi < float("inf") else lo
        again = int((~posts.taken[:-1] & posts.taken[1:]).sum()) >= _AGAIN
        return _Rule(RATE, value, lo, hi, buckets[0][0][2], None, again, buckets[0][1])
    for rows, counts in kinds:
        fitting = [each for seconds in _WINDOWS_S for each in _window(rows, seconds)]
        if fitting:
            rates = [number / seconds for number, seconds in fitting]
            number, seconds = fitting[0]
            one = len({length for _, length in fitting}) == 1
            value = (min(rates) * max(rates)) ** 0.5
            return _Rule(RATE, value, min(rates), max(rates), number, seconds, one, counts)
    return None


def _late(rows: _Rows) -> _Rows:
    """The rows in an order in which who is refused among requests of one moment came after those
    that are taken, in whatever order they were sent."""
    order = np.argsort(rows.at + np.where(rows.taken, 0, _JITTER_NS), kind="stable")
    return _Rows(rows.at[order], rows.done[order], rows.taken[order])


def _bucket(rows: _Rows) -> tuple[float, float, int] | None:
    """(least, most requests/s, how many at once) of a bucket of requests; None: it is none.

    The generic cell rate algorithm (ITU-T I.371): each request that is taken puts off by one pace
    the instant at which the bucket is empty, and none is taken when that is too far ahead. All
    paces are tried.
    """
    steps = round(np.log(_LONGEST_S / _SHORTEST_S) / np.log(_MORE))
    pace = _SHORTEST_S * NS_PER_S * _MORE ** np.arange(steps)
    empty = np.full(steps, -np.inf)
    taken, refused = np.zeros(steps), np.full(steps, np.inf)
    in_vain = np.zeros(steps)
    for at, good in zip((rows.at - rows.at[0]).tolist(), rows.taken.tolist(), strict=True):
        ahead = np.maximum(empty - at, 0.0)
        if good:
            np.maximum(taken, ahead, out=taken)
            empty = np.maximum(empty, at) + pace
        else:
            in_vain += ahead == 0
            np.minimum(refused, np.where(ahead > 0, ahead, np.inf), out=refused)
    few = int(_ODD * (~rows.taken).sum())
    slack, fits = np.zeros(steps), np.zeros(0, dtype=np.int64)
    for jitter in _SLACK_NS:
        if len(fits):
            break
        slack = np.minimum(jitter, 0.2 * pace)
        fits = np.flatnonzero((in_vain <= few) & (taken <= refused + slack))
    if not len(fits):
        return None
    slow, fast = pace[fits[-1]], pace[fits[0]]
    hi = float(NS_PER_S / fast)
    lo = 0.0 if fits[-1] == steps - 1 else float(NS_PER_S / slow)
    middle = fits[len(fits) // 2]
    burst = 1 + int((taken[middle] + slack[middle]) / pace[middle])
    return max(lo, 1 / _LONGEST_S / 2), hi, burst


def _borders(rows: _Rows) -> NDArray[np.int64]:
    """Instants between a request that was refused and the next, which was taken: by then a window
    had ended. The closest ones."""
    again = np.flatnonzero(~rows.taken[:-1] & rows.taken[1:])
    last, first = rows.at[again], rows.at[again + 1]
    closest = np.argsort(first - last, kind="stable")[:_BORDERS]
    apart = (first - last)[closest]
    return np.concatenate([last[closest] + apart * part // 10 for part in (1, 5, 9)])


def _window(rows: _Rows, seconds: int) -> Iterator[tuple[int, int]]:
    """(requests, seconds) where so many are taken in each window of so long, which slides or
    begins at even times."""
    good, length = rows.at[rows.taken], seconds * NS_PER_S
    at = rows.at + np.where(rows.taken, 0, _JITTER_NS)
    before = np.searchsorted(good, at)
    phases = np.concatenate((np.arange(0, length, length // _PHASES), _borders(rows) - at[0]))
    begins = [at - length, *(at - (at - at[0] - phase) % length for phase in phases)]
    found = set()
    for begin in begins:
        count = before - np.searchsorted(good, begin)
        below = int(count[rows.taken].max(initial=-1)) + 1
        at_least = int(count[~rows.taken].min())
        if below == at_least and at_least >= 1:
            found.add(at_least)
    yield from ((number, seconds) for number in sorted({min(found), max(found)} if found else ()))
