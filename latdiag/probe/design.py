"""The design of a probe: which requests to make next, from what has been seen so far.

A pure generator: observations in, the next stage out; it sends nothing and knows no clock. Every
stage isolates one cause of latency, with all others held still:

    S0, S1   a cheap GET on fresh and kept connections, a POST that is refused after parsing:
             the path to the server and its frontend
    warmup   one request: cold start, kept out of everything
    S2       one long stream: how tokens are delivered
    S3       input lengths, one request at a time: the prefill law
    S5       output with a short and with a long context: the decode step alone
    S6       simultaneous requests, twice as many each time: what a batch costs, who is let in
    S8       long prompts thrown at running streams: whether prefill stops decode, and when the
             engine takes a prompt up
    S4       two long prompts at once: computed in turn, or side by side
    S7       cheap GETs and refused POSTs beside the workload, refused POSTs beside S6 too: who
             waits before the engine
    S12      small requests, where some were refused as too many: by which rule
    S10      the workload, open loop: what is to be explained

Lengths come in random order, so that drift of the server does not look like a law.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from latdiag.load.plan import PATH
from latdiag.measurement.stages import (
    Limits,
    PathStage,
    Shot,
    Stage,
)
from latdiag.model.units import NS_PER_MS, NS_PER_S
from latdiag.probe.budget import BUDGETS, BURST_POSTS, REACH, SHORT, Budget, Purse
from latdiag.probe.cost import least_tokens
from latdiag.probe.heeding import Heed
from latdiag.probe.offered import clamp, workload
from latdiag.probe.pace import Pace, pace

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations


#: A prompt of the ladder may take so long at most.
_LONGEST_PREFILL_NS = 1_000 * NS_PER_MS
#: When refused POSTs go out beside a burst, as shares of what one of it would take alone.
_BESIDE_BURST = (0.05, 0.8)


def probe(
    limits: Limits, undecided: Callable[[], bool] = lambda: False
) -> Generator[Stage | PathStage, Observations, str | None]:
    """The stages one after the other; ``send`` it all that was observed up to then. ``undecided``:
    whether more requests of the workload would decide what the rows so far leave open.

    It ends early where nothing usable comes back, and leaves out what the tokens and the limits of
    the server do not allow; returns why, where these leave too little.
    """
    purse = Purse(limits, least_tokens(limits))
    heed = Heed(BUDGETS[limits.budget].patience_s, purse)
    stages = _stages(limits, purse, undecided)
    try:
        stage = next(stages)
        while True:
            seen = yield from heed.through(stage)
            if seen is None or heed.why is not None:
                return heed.why
            stage = stages.send(seen)
    except StopIteration:
        return None


def _stages(
    limits: Limits, purse: Purse, undecided: Callable[[], bool]
) -> Generator[Stage | PathStage, Observations, None]:
    """As they are wished for."""
    budget, draw = BUDGETS[limits.budget], random.Random(limits.seed)
    refused = [n for n in (SHORT, REACH, 4 * REACH) for _ in range(budget.refusals)]
    draw.shuffle(refused)
    yield PathStage(budget.gets, tuple(purse.fitting(refused)), budget.fresh)
    first = Stage("warmup", (Shot(64, 12, -1),), 1, "a first request, not counted")
    if (paid := purse.pays(first, share=False)) is None:
        return
    seen = yield paid
    if not seen.ok[seen.stage == "warmup"].any():
        return
    for stage in _stream(budget, pace(seen), purse):
        seen = yield stage
    if not len(seen.of("warmup", "S2")):
        return  # stamps that cannot be taken apart would teach nothing, however many
    for stage in _ladder(limits, budget, pace(seen), purse, draw):
        seen = yield stage
    for designed in (_long_ladder, _outputs):
        for stage in designed(budget, pace(seen), purse, draw):
            seen = yield stage
    lengths = _refusing(seen, refused)
    seen = yield from _batches(budget, purse, seen, random.Random(limits.seed + 3), lengths)
    for together in (_interference, _pairs):
        for stage in together(budget, pace(seen), purse, draw):
            seen = yield stage
    yield from workload(limits, budget, seen, purse, draw, lengths, undecided)


def _refusing(seen: Observations, lengths: Sequence[int]) -> list[int]:
    """The input lengths of POSTs that the server refuses; none where it took one."""
    posts = (seen.stage == PATH) & (seen.scenario == "refused")
    refused = posts & ((seen.status == 400) | (seen.status == 422))
    return sorted(set(lengths)) if refused.any() and refused.sum() == posts.sum() else []


# ---------------------------------------------------------------------- one at a time
def _stream(budget: Budget, at: Pace, purse: Purse) -> Iterator[Stage]:
    osl = clamp(budget.stream_s * NS_PER_S / at.gap_ns, 32, 400)
    stage = Stage("S2", (Shot(SHORT, osl, -1),), 1, "token delivery")
    if (paid := purse.pays(stage)) is not None:
        yield paid


def _ladder(
    limits: Limits, budget: Budget, at: Pace, purse: Purse, draw: random.Random
) -> Iterator[Stage]:
    """Lengths that cover the workload's, evenly in their logarithm."""
    wanted = sorted(limits.isl or (SHORT, REACH))
    reach = max(purse.fitting((SHORT, 128, 256, 512, max(REACH, wanted[-1]))), default=SHORT)
    ratio = reach / SHORT
    lengths = {round(SHORT * ratio ** (step / 7)) for step in range(8)} | {reach * 3 // 4}
    if limits.isl:
        quarters = [wanted[len(wanted) * k // 4] for k in (1, 2, 3)]
        lengths |= set(purse.fitting(quarters))
    order = [n for _ in range(budget.ladder) for n in sorted(lengths)] + [reach]
    yield from _alone("S3", order, at, budget.ladder_s, purse, draw, "what a prompt costs")


def _long_ladder(budget: Budget, at: Pace, purse: Purse, draw: random.Random) -> Iterator[Stage]:
    """One length far beyond the workload's: the law's curve, and what S8 throws."""
    longest = _longest(budget, at, purse)
    if longest > REACH:
        lengths = [longest, longest // 2] * max(1, budget.ladder // 2)
        yield from _alone(
            "S3", lengths, at, budget.ladder_s, purse, draw, "what a long prompt costs"
        )


def _longest(budget: Budget, at: Pace, purse: Purse) -> int:
    """The longest prompt, in halves of the budget's, that takes a bearable time."""
    length = budget.longest
    while length > REACH and (
        length + 64 > purse.context or at.ttft_ns(length) > _LONGEST_PREFILL_NS
    ):
        length //= 2
    return length if length > REACH else min(REACH, purse.context - 64)


def _alone(
    name: str,
    lengths: Sequence[int],
    at: Pace,
    seconds: float,
    purse: Purse,
    draw: random.Random,
    why: str,
) -> Iterator[Stage]:
    """One request after the other, as many as the time allows, at least one of each length."""
    left, shots = seconds * NS_PER_S, []
    least = len(set(lengths))
    # Three arrivals at least: the second may come late, the third shows the pace. Where tokens
    # are held back, more than one burst: the first of several shows how long its first one waited.
    osl = max(4, math.ceil(3 * at.chunk), _in_a_burst(at))
    for place, length in enumerate(sorted(set(lengths)) + _repeats(lengths)):
        left -= at.ttft_ns(length) + osl * at.gap_ns
        if left < 0 and place >= least:
            break
        shots.append(Shot(length, osl, -1))
    draw.shuffle(shots)
    stage = Stage(name, tuple(shots), 1, why, dither_ns=_dither(at))
    if (paid := purse.pays(stage)) is not None:
        yield paid


def _in_a_burst(at: Pace) -> int:
    """Tokens that the longest silence and its neighbours hold; 0 where tokens come one by one."""
    held = at.longest_gap_ns / at.gap_ns
    return clamp(2.5 * held, 4, 160) if held > 6 * at.chunk else 0


def _dither(at: Pace) -> int:
    """As long as tokens were ever held back, within bounds."""
    return clamp(at.longest_gap_ns, 20 * NS_PER_MS, 300 * NS_PER_MS)


def _repeats(lengths: Sequence[int]) -> list[int]:
    """What is left of ``lengths`` after the first of each."""
    seen: set[int] = set()
    return [n for n in lengths if n in seen or seen.add(n)]  # type: ignore[func-returns-value]


def _outputs(budget: Budget, at: Pace, purse: Purse, draw: random.Random) -> Iterator[Stage]:
    """Decode alone, with a short and with a long context."""
    osl = clamp(budget.outputs_s / 2 * NS_PER_S / at.gap_ns, 16, 128)
    shots = [Shot(n, osl, -1) for n in (SHORT, _longest(budget, at, purse))] * budget.outputs
    draw.shuffle(shots)
    stage = Stage("S5", tuple(shots), 1, "what a token costs alone", dither_ns=_dither(at))
    if (paid := purse.pays(stage)) is not None:
        yield paid


# ---------------------------------------------------------------------- together
def _batches(
    budget: Budget,
    purse: Purse,
    seen: Observations,
    draw: random.Random,
    refused: Sequence[int],
) -> Generator[Stage, Observations, Observations]:
    """Bursts, each twice the last, until the time is up or not all are let in at once; beside each
    a few POSTs that are ``refused``, which wait if they stand in the same line."""
    left = budget.batches_s * NS_PER_S
    for size in budget.batches:
        at = pace(seen)
        osl = clamp(NS_PER_S / at.gap_ns, 12, 32)
        left -= size * (at.ttft_ns(SHORT) - at.floor_ns) + osl * at.gap_ns
        capped = at.admitted is not None and at.admitted < size // 2
        capped = capped or (at.places is not None and at.places < size)
        if (left < 0 and size > 4) or capped:
            break
        lasts = at.ttft_ns(SHORT) + osl * at.gap_ns
        beside = tuple(
            Shot(length, 0, round(lasts * draw.uniform(*_BESIDE_BURST)))
            for length in (draw.choices(refused, k=BURST_POSTS) if refused else ())
        )
        shots = (Shot(SHORT, osl, 0),) * size
        stage = Stage("S6", shots, 0, f"{size} at once", beside=beside)
        if (paid := purse.pays(stage)) is None:
            break
        seen = yield paid
    return seen


def _interference(budget: Budget, at: Pace, purse: Purse, draw: random.Random) -> Iterator[Stage]:
    """Streams that decode, and long prompts that arrive while they do."""
    decoders = min(4, (at.admitted or 5) - 1, (at.places or 5) - 1)
    if decoders < 2:
        return
    longest = _longest(budget, at, purse)
    moment = running = decoders * at.ttft_ns(SHORT) + 8 * at.gap_ns
    thrown = []
    for k in range(budget.injections):
        # Of two lengths, so that a constant shows apart from what grows with the prompt.
        length = longest if k % 2 == 0 else max(SHORT, longest // 4)
        thrown.append(Shot(length, 2, round(moment + draw.random() * 2 * at.gap_ns)))
        # Each gets twice its time, so that the next meets streams at rest again.
        moment += 2 * at.ttft_ns(length) + 12 * at.gap_ns
        if k and moment - running > budget.interference_s * NS_PER_S:
            break
    osl = clamp(1.5 * moment / at.gap_ns, 16, 1024)
    shots = [Shot(SHORT, osl, 0)] * decoders + thrown
    stage = Stage("S8", tuple(shots), 0, "whether long prompts stop running streams")
    if (paid := purse.pays(stage)) is not None:
        yield paid


def _pairs(budget: Budget, at: Pace, purse: Purse, draw: random.Random) -> Iterator[Stage]:
    """Two long prompts at the same moment, twice."""
    length = max(SHORT, _longest(budget, at, purse) // 2)
    after = round(3 * at.ttft_ns(length) + 4 * at.gap_ns)
    shots = [Shot(length, 2, at_ns) for at_ns in (0, 0, after, after)]
    stage = Stage("S4", tuple(shots), 0, "whether two prompts are computed in turn")
    if (paid := purse.pays(stage)) is not None:
        yield paid
