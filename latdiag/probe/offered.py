"""S10: the workload that is offered, the user's or the probe's own, in independent segments."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from latdiag.measurement.stages import BEHIND, WORKLOAD, Limits, Shot, Stage
from latdiag.model.units import NS_PER_S
from latdiag.probe.budget import Budget, Purse

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations
    from latdiag.probe.pace import Pace

#: The probe's own workload, log-normal: (median, sigma, least, most) tokens.
_ISL, _OSL = (256, 0.6, 32, 1024), (24, 0.5, 8, 96)
#: A load that any serving stack should bear: requests/s at most, streams in flight on average,
#: share of the time in which a prefill runs.
_RATE, _IN_FLIGHT, _PREFILL_BUSY = 6.0, 3.0, 0.3
#: Of what S6 has seen the server finish: with too few places a line shows, and it ends with the
#: segment, for the next is slower where this one was not finished.
_OF_CAPACITY = 1.35
#: Requests of each place of a closed loop: fewer are a burst, not a loop; more are not needed.
TURNS, _ENOUGH_TURNS = 3, 5
#: With fewer places an open loop finds none for more than this share of its requests.
_FEW = 0.005
#: Below a limit of requests/s: how much slower random arrivals have to be; where fewer than so
#: many are taken at once, how far apart each is from the next, as shares of its pace.
_SLOWER, _STEADY, _APART = 0.7, 10, 1.05
#: Fewer requests of the workload bear no verdict.
LEAST = 34
#: So many state the p95 of a metric, and so many where the time of the slowest 5 % goes.
P95_ROWS, TAIL_ROWS = 130, 600
#: So many more requests at least, or none; and only of a workload that mostly succeeded.
_LEAST_MORE, _MOSTLY = 10, 0.8
#: Between two stages: what was seen is judged, and the readers are started anew.
_BETWEEN_S = 2.0
#: A rate or a concurrency of the user's own may need so many times the budget's requests.
_OWN_LOAD = 10


def clamp(value: float, least: int, most: int) -> int:
    """A whole number within bounds."""
    return round(min(max(value, least), most))


class Offered:
    """Lengths of the workload: the user's, or the probe's own."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._draw = random.Random(limits.seed + 1)

    def lengths(self, context: int) -> Iterator[tuple[int, int]]:
        """(ISL, OSL) without end; no longer together than the server's context."""
        limits, place = self._limits, 0
        while True:
            isl = limits.isl[place % len(limits.isl)] if limits.isl else self._own(_ISL)
            osl = limits.osl[place % len(limits.osl)] if limits.osl else self._own(_OSL)
            isl = max(1, min(isl, context - osl - 16))
            yield isl, osl
            place += 1

    def _own(self, law: tuple[int, float, int, int]) -> int:
        median, sigma, least, most = law
        return clamp(median * self._draw.lognormvariate(0.0, sigma), least, most)

    def tokens(self, number: int) -> int:
        """Of the first ``number`` requests."""
        own = Offered(self._limits).lengths(1 << 20)
        return sum(isl + osl for (isl, osl), _ in zip(own, range(number), strict=False))

    def means(self) -> tuple[float, float]:
        own = Offered(self._limits).lengths(1 << 20)
        pairs = [pair for pair, _ in zip(own, range(200), strict=False)]
        return sum(i for i, _ in pairs) / 200, sum(o for _, o in pairs) / 200


def workload(
    limits: Limits,
    budget: Budget,
    seen: Observations,
    purse: Purse,
    draw: random.Random,
    refused: Sequence[int],
    undecided: Callable[[], bool],
) -> Generator[Stage, Observations, None]:
    """S10 in independent segments: the queue of one is gone before the next begins. ``refused``:
    input lengths of POSTs that go out beside it (S7) and are refused, as many as GETs. A rate of
    the probe's own that the server does not finish is lowered for the segments that follow. One
    more segment makes up for one in which the server refused most as too many; others follow while
    there is time and they decide something (``undecided``: whether the verdict is open)."""
    from latdiag.probe.pace import pace  # numpy: in the planning process alone

    if limits.like:
        yield from _once_more(limits, budget, purse, draw, refused)
        return
    work = Offered(limits)
    means = work.means()
    number, segment, segments, borne = 0, 0, budget.segments, math.inf
    lengths = work.lengths(purse.context)
    moments = random.Random(limits.seed + 2)
    while segment < segments:
        segment += 1
        offer = _offer(limits, pace(seen), means, borne)
        if not number:
            least = max(LEAST, TURNS * offer.slots)
            load_s = min(budget.load_s, _left_s(limits, budget, seen))
            number = clamp(offer.rate * load_s, least, most_requests(limits, budget))
            number = min(number, int(purse.left / sum(means) / (2 if limits.behind else 1)))
            if offer.slots:
                segments = clamp(number // (TURNS * offer.slots), 1, segments)
            size, last = number // segments, segments
        pairs = [next(lengths) for _ in range(size)]
        shots = tuple(_due(pairs, offer, draw))
        stage = Stage(
            WORKLOAD,
            shots,
            offer.slots,
            f"the workload, part {segment} of {segments}",
            segment,
            beside=() if offer.slots else tuple(_beside(shots, budget, refused, moments)),
        )
        for each in _in_turn(stage) if limits.behind else [stage]:
            if (paid := purse.pays(each, share=False)) is not None:
                seen = yield paid
                if not (limits.rate or offer.slots):
                    borne = _borne(seen, offer.rate)
        served = int((seen.ok & (seen.stage == WORKLOAD)).sum())
        shed = bool((seen.shed & (seen.stage == WORKLOAD)).any())
        if segment < segments:
            continue
        if shed and segment == last and served < number / 2:
            segments += 1
        elif not (shed or limits.behind) and segment < last + budget.segments:
            more = _more(limits, budget, seen, purse, offer, number, undecided)
            size = min(more, max(size, math.ceil(more / (last + budget.segments - segment))))
            segments, number = segments + (more > 0), number + size


def _more(
    limits: Limits,
    budget: Budget,
    seen: Observations,
    purse: Purse,
    offer: Offer,
    sent: int,
    undecided: Callable[[], bool],
) -> int:
    """How many requests more decide something, of those that there are time and tokens for."""
    served, lasted_s = int((seen.ok & (seen.stage == WORKLOAD)).sum()), _spent_s(seen)
    if served <= _MOSTLY * sent or not lasted_s or _borne(seen, offer.rate) < offer.rate:
        return 0
    rate = offer.rate if not offer.slots else served / lasted_s
    within = min(
        rate * _left_s(limits, budget, seen),
        purse.left / sum(Offered(limits).means()),
        at_most(limits, budget) - sent,
    )
    if within < _LEAST_MORE:
        return 0
    if undecided():
        return int(within)
    # Some more: not every request can be taken apart.
    goals = [math.ceil(1.03 * goal) - served for goal in (P95_ROWS, TAIL_ROWS)]
    return max((each for each in goals if 0 < each <= within), default=0)


def _spent_s(seen: Observations, stage: str | None = WORKLOAD) -> float:
    """From the first request of a stage to the end of the last, 0 without one; of all stages for
    None."""
    (rows,) = (seen.stage == (seen.stage if stage is None else stage)).nonzero()
    if not len(rows):
        return 0.0
    ends = max(int(each[rows].max()) for each in (seen.begin, seen.last, seen.done))
    return float(ends - seen.begin[rows].min()) / NS_PER_S


def _left_s(limits: Limits, budget: Budget, seen: Observations) -> float:
    """Of the time for all."""
    total = budget.total_s + (budget.load_s if limits.behind else 0.0)
    return max(0.0, total - _spent_s(seen, None) - _BETWEEN_S)


def _once_more(
    limits: Limits, budget: Budget, purse: Purse, draw: random.Random, refused: Sequence[int]
) -> Generator[Stage, Observations, None]:
    """The workload of an earlier run as it was sent, whatever the server makes of it."""
    for place, earlier in enumerate(limits.like, 1):
        beside = () if earlier.slots else tuple(_beside(earlier.shots, budget, refused, draw))
        why = f"the workload of the earlier run, part {place} of {len(limits.like)}"
        stage = replace(earlier, why=why, segment=place, beside=beside)
        for each in _in_turn(stage) if limits.behind else [stage]:
            if (paid := purse.pays(each, share=False)) is not None:
                yield paid


def _borne(seen: Observations, rate: float) -> float:
    """Requests/s that the server finishes, as far as the workload shows."""
    # Whoever forks asks this file what a probe costs: numpy is for the planner alone.
    from latdiag.measurement.backlog import Rows, backlog_of

    found = backlog_of(Rows.of_observations(seen, WORKLOAD)[-1:], rate)
    return rate if found is None else min(rate, found.bearable_rate)


class Offer(NamedTuple):
    """How the workload goes out. ``slots``: of a closed loop, 0 for an open one.
    ``rate``: requests/s that come of it. ``least_ns``: between two requests."""

    slots: int
    rate: float
    least_ns: float


def _offer(limits: Limits, at: Pace, means: tuple[float, float], borne: float) -> Offer:
    """As the user wishes, or modestly and no faster than is ``borne``, and in any case within the
    limits that the server has shown: with too few places for an open loop that is a closed one.
    ``means``: of ISL and OSL."""
    alone = at.ttft_ns(means[0]) + means[1] * at.gap_ns
    rate = limits.rate or min(borne, _modest_rate(at, means[0], alone))
    slots, least_ns = 0, 0.0
    if limits.concurrency:
        slots, rate = limits.concurrency, limits.concurrency * NS_PER_S / alone
    if at.places is not None:
        in_flight = rate * alone / NS_PER_S
        if slots or _turned_away(in_flight, at.places) > _FEW:
            slots = min(at.places, max(1, slots or math.ceil(in_flight)))
            rate = min(rate, slots * NS_PER_S / alone)
    if at.most_rate is not None and at.refused is not None:
        steady = at.refused.burst < _STEADY or at.refused.window_s is not None
        rate = min(rate, (_SLOWER if not steady else 1.0) * at.most_rate)
        least_ns = _APART * NS_PER_S / at.most_rate if steady else 0.0
    return Offer(slots, rate, least_ns)


def _turned_away(in_flight: float, places: int) -> float:
    """Share of the requests that find no place (Erlang's loss formula), with so many under way on
    average."""
    lost = 1.0
    for n in range(1, places + 1):
        lost = in_flight * lost / (n + in_flight * lost)
    return lost


def _in_turn(stage: Stage) -> list[Stage]:
    """A segment through the target and one behind it, alike in lengths and moments. Which comes
    first changes from one to the next, so that drift of the server is nobody's time."""
    through = replace(stage, why=f"{stage.why}, through the target", beside=())
    behind = replace(stage, name=BEHIND, why=f"{stage.why}, behind it")
    return [through, behind] if stage.segment % 2 else [behind, through]


def _beside(
    shots: Sequence[Shot], budget: Budget, refused: Sequence[int], draw: random.Random
) -> Iterator[Shot]:
    """Requests about the path at moments of the workload's own requests: where these crowd, so do
    they, and a wait before the engine shows."""
    moments = [shot.at_ns for shot in shots[1:]] or [0]
    for k in range(budget.beside):
        yield Shot(0, 0, draw.choice(moments))
        if refused:
            yield Shot(refused[k % len(refused)], 0, draw.choice(moments))


def least_requests(limits: Limits) -> int:
    """Of the workload: fewer bear no verdict, or are no closed loop."""
    if limits.like:
        return sum(len(stage.shots) for stage in limits.like)
    return max(LEAST, TURNS * (limits.concurrency or 0))


def most_requests(limits: Limits, budget: Budget) -> int:
    """Of the workload: the budget's, or as many as a load of the user's own needs to last."""
    if limits.like:
        return least_requests(limits)
    wanted = limits.rate * budget.load_s if limits.rate else 0.0
    wanted = max(wanted, _ENOUGH_TURNS * (limits.concurrency or 0))
    return clamp(wanted, budget.requests, _OWN_LOAD * budget.requests)


def at_most(limits: Limits, budget: Budget) -> int:
    """Of the workload, where as many as there is time for decide something."""
    if limits.like:
        return least_requests(limits)
    if limits.behind:
        return most_requests(limits, budget)
    in_time = (limits.rate or _RATE) * budget.total_s
    if limits.concurrency:  # how fast that is, the server decides
        in_time = 1.03 * TAIL_ROWS
    return max(most_requests(limits, budget), clamp(in_time, 0, _OWN_LOAD * budget.requests))


def _modest_rate(at: Pace, mean_isl: float, alone: float) -> float:
    """Requests/s that a healthy server bears with ease."""
    rate = min(_RATE, _IN_FLIGHT * NS_PER_S / alone)
    prefill = at.ttft_ns(mean_isl) - at.floor_ns
    if prefill > 0:
        rate = min(rate, _PREFILL_BUSY * NS_PER_S / prefill)
    if at.at_once is not None:
        rate = min(rate, _OF_CAPACITY * at.at_once * NS_PER_S / alone)
    return rate


def _due(pairs: Sequence[tuple[int, int]], offer: Offer, draw: random.Random) -> Iterator[Shot]:
    """Poisson arrivals at a rate; or a closed loop."""
    now = 0.0
    for isl, osl in pairs:
        if offer.slots:
            yield Shot(isl, osl, -1)
        else:
            now += max(draw.expovariate(offer.rate) * NS_PER_S, offer.least_ns)
            yield Shot(isl, osl, round(now))
