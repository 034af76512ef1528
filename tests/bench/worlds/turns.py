"""Kinds of world that change on the way, and those of which too much is asked.

A change lies where the workload is: at a share of one of its segments, however long the designed
stages take.
"""

from __future__ import annotations

import random
from dataclasses import replace

from latdiag.measurement.stages import Shot, Stage
from latdiag.probe.offered import Offered

from . import costs
from .client import Client, limits_of
from .clock import Clock
from .costs import MS, US, S, log_uniform
from .course import Happening, Turn
from .draft import EPOCH, Draft
from .gateways import Admission
from .pools import SharingEngine
from .world import Tenants

#: Requests that are always there while a capacity is measured, and how many in all.
_AT_ONCE, _REQUESTS = 24, 240


def changes(draft: Draft) -> None:
    """Capacity doubles or halves, the server warms up, or slows down, whenever it may be."""
    draw = draft.draw
    way = draw.choice(("places", "places", "speed", "cold", "drift"))
    at = EPOCH + round(draw.uniform(8, 40) * S)
    factor = draw.choice((0.5, 2.0)) * draw.uniform(0.8, 1.25)
    draft.say(f"{way} change at {(at - EPOCH) / S:.0f} s by {factor:.2f}")
    turn = Turn(0, 0.0, at=at)
    if way == "places":
        few = draw.choice((1, 2, 3))
        before, after = (few, 4 * few) if factor > 1 else (4 * few, few)
        draft.reshape(most=lambda now: before if now < at else after)
        if draw.random() < 0.5:
            draft.workload.pop("rate", None)
            draft.workload["concurrency"] = few * draw.randint(1, 4) + draw.randint(0, 2)
            draft.say(f"{draft.workload['concurrency']} at once")
        draft.course.happenings.append(Happening("step", turn, of="places"))
    elif way == "speed":
        _paced(draft, Happening("step", turn, speed=lambda now: 1.0 if now < at else factor))
    elif way == "cold":
        _cold(draft, draw.uniform(1.5, 6.0), draw.uniform(3, 15) * S)
    else:
        _drifts(draft, draw.uniform(0.005, 0.03))


def _paced(draft: Draft, found: Happening) -> None:
    draft.reshape(speed=found.speed)
    draft.course.happenings.append(found)


def _cold(draft: Draft, slow: float, fades: float) -> None:
    def speed(now: int) -> float:
        return float(1 + (slow - 1) * 0.5 ** ((now - EPOCH) / fades))

    _paced(draft, Happening("cold_start", speed=speed))


def _drifts(draft: Draft, per_s: float) -> None:
    _paced(draft, Happening("drift", speed=lambda now: 1 + per_s * (now - EPOCH) / S))


def cold_start(draft: Draft) -> None:
    """Kernels are compiled, caches are filled: the first requests are slow."""
    draw = draft.draw
    slow, fades = draw.uniform(3.0, 8.0), draw.uniform(6, 20) * S
    draft.say(f"cold: {slow:.1f} times as slow, halved every {fades / S:.0f} s")
    _cold(draft, slow, fades)


def drift(draft: Draft) -> None:
    """It throttles, or its memory fills."""
    per_s = draft.draw.uniform(0.012, 0.04)
    draft.say(f"drifts by {per_s:.1%} a second")
    _drifts(draft, per_s)


def step(draft: Draft) -> None:
    """Up or down at once, in the middle of the workload: another replica, a lost one, a neighbour
    on the same machine."""
    draw = draft.draw
    turn = Turn(draw.choice((1, 2)), draw.uniform(0.25, 0.75))
    factor = log_uniform(draw, 1.5, 4.0) ** draw.choice((1, -1))
    draft.workload.pop("concurrency", None)
    if draw.random() < 0.6:
        draft.say(f"durations times {factor:.2f} in segment {turn.segment}")
        _paced(draft, Happening("step", turn, speed=lambda now: factor if now >= turn.at else 1.0))
        return
    few, many = draw.choice((1, 2, 3)), draw.choice((12, 24))
    before, after = (few, many) if factor < 1 else (many, few)
    draft.say(f"{before} places, then {after} in segment {turn.segment}")
    draft.reshape(most=lambda now: before if now < turn.at else after)
    # Places matter where as many want in.
    _ask(draft, 1.3 * few)
    draft.course.happenings.append(Happening("step", turn, of="places"))


def _ask(draft: Draft, in_flight: float) -> None:
    """At a rate that keeps so many busy."""
    draft.workload.setdefault("isl", (256, 400))
    draft.workload.setdefault("osl", (48, 64))
    osl = draft.workload["osl"]
    assert isinstance(osl, tuple)
    alone_s = (sum(osl) / len(osl) * draft.token + 400 * draft.prompt_token) / S
    draft.workload["rate"] = in_flight / alone_s
    draft.say(f"asked at {in_flight / alone_s:.2f}/s")


def others(draft: Draft) -> None:
    """Somebody else's batch job runs for a while in the middle of the workload."""
    draw = draft.draw
    turn = Turn(draw.choice((1, 2)), draw.uniform(0.15, 0.4), draw.uniform(0.3, 0.5))
    draft.workload.pop("concurrency", None)
    most = draw.choice((4, 6, 8))
    isl, osl = draw.choice((200, 500, 1000)), draw.choice((60, 120))
    draft.reshape(most=lambda now: most)
    holds_s = (osl * draft.token * 1.3 + isl * draft.prompt_token * 2) / S
    draft.tenants = Tenants(draw, 1.2 * most / holds_s, isl, osl, turn=turn)
    draft.say(f"others fill {most} places in segment {turn.segment}")
    draft.course.happenings.append(Happening("spell", turn, of="others"))


def overload(draft: Draft) -> None:
    """More is asked than is served, by a rate of the user's own."""
    draw = draft.draw
    way = draw.choice(("places", "places", "prompt", "sharing", "admission", "step"))
    draft.workload.pop("concurrency", None)
    most = draw.choice((1, 2, 3, 4, 6))
    if way == "places":
        draft.reshape(most=lambda now: most)
    elif way == "prompt":
        token = log_uniform(draw, 200, 2000) * US
        draft.reshape(prompt=costs.drawn(draw, costs.PROMPTS, token))
    elif way == "sharing":
        power = draw.uniform(1.0, 3.0)
        draft.engine = lambda given, clock, emit, causes: SharingEngine(
            clock, draw, given.token, given.shape.prompt, power, given.habit, emit, causes
        )
    elif way == "admission":
        draft.gateways.append(lambda clock: Admission(clock, most, all_posts=False))
        draft.refused_at = "gateway"
    else:
        draft.token = log_uniform(draw, 40, 120) * MS
        draft.reshape(step=costs.drawn(draw, costs.STEPS, draft.token), most=lambda now: most)
    able = capacity(draft)
    times = log_uniform(draw, 1.4, 4.0)
    draft.workload["rate"] = times * able
    draft.say(f"{way}, {most} places: finishes {able:.3g}/s, asked for {times:.1f} times that")
    draft.course.happenings.append(Happening("overload", capacity=able))


def capacity(draft: Draft) -> float:
    """Requests/s of the workload's lengths that the server finishes when it always has more to do:
    of a twin that nothing else happens to."""
    twin = replace(draft, course=type(draft.course)(), tenants=None)
    world = twin.built(Clock(EPOCH))
    lengths = Offered(limits_of("quick", 1, draft.workload)).lengths(32_768)
    shots = tuple(Shot(*next(lengths), -1) for _ in range(_REQUESTS))
    rows = Client(world, random.Random(1)).execute(Stage("saturated", shots, _AT_ONCE, "", 1))
    done = sorted(row.done for row in rows if row.done is not None and row.ok)
    begin, end = _AT_ONCE, len(done) - _AT_ONCE
    return (end - begin) * S / (done[end] - done[begin])
