"""The limits of a world, exact, and what an answer's limits are worth beside them.

A limit has to be named where the probe's own requests ran into it; it may be named where they did
not. Whatever is stated within 10 % of a limit of its kind that the world has is right; all else is
falsely named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from latdiag.load.plan import BUSY

from .client import Row
from .engines import StepEngine
from .gateways import Admission, Bucket, InFlight, PerEvent, PerSecond, PerWindow
from .path import LoopFrontend
from .pools import Replicas, SharingEngine, StaticBatches, TwoPools
from .world import World

WITHIN = 0.10
#: Requests beyond the places from which on these must show.
_BEYOND = 2
#: Share of a burst's time that a bucket must take to have been met.
_MET = 0.3
_CACHE = 1 << 39


@dataclass(frozen=True, slots=True)
class Bound:
    """``kind``, ``value``: as a result states a limit. ``met``: it has to be named."""

    kind: str
    value: float
    met: bool


@dataclass(frozen=True, slots=True)
class Named:
    """How many limits had to be named and were, and how many were stated that are none."""

    met: int = 0
    right: int = 0
    false: int = 0
    why: str = ""


def bounds_of(world: World, rows: Sequence[Row]) -> list[Bound]:
    """All limits that a probe of the world could find. ``rows``: the probe's."""
    return [*_of_hops(world, rows), *_of_engine(world, rows)]


def _of_hops(world: World, rows: Sequence[Row]) -> Iterator[Bound]:
    refused = any(row.status in BUSY for row in rows)
    for hop in world.hops:
        if isinstance(hop, InFlight):
            yield Bound("in_flight", hop.most, refused)
        elif isinstance(hop, PerSecond):
            yield Bound("rate", hop.rate, refused)
        elif isinstance(hop, PerWindow):
            yield Bound("rate", hop.number * 1e9 / hop.window, refused)
        elif isinstance(hop, Bucket):
            yield Bound("output_rate", hop.rate, _paced(rows))
        elif isinstance(hop, Admission):
            yield Bound("streams", hop.places, _crowded(rows, hop.places))
        elif isinstance(hop, PerEvent) and hop.shared:
            yield from _per_event(world, hop.ns)
        elif isinstance(hop, LoopFrontend):
            yield from _per_event(world, hop.event)


def _per_event(world: World, ns: float) -> Iterator[Bound]:
    """Events come one after the other; each may bring several tokens."""
    habit = getattr(world.engine, "habit", None)
    yield Bound("output_rate", 1e9 / ns * (habit.chunk if habit is not None else 1), False)


def _of_engine(world: World, rows: Sequence[Row]) -> Iterator[Bound]:
    engine, now = world.engine, world.clock.now
    if isinstance(engine, SharingEngine):
        yield Bound("output_rate", max(1.0, engine.power) * 1e9 / engine.token, engine.power <= 1)
        return
    if isinstance(engine, StaticBatches):
        yield Bound("streams", engine.most, False)
        return
    if isinstance(engine, TwoPools):
        engine = engine.decoder
    for one in engine.engines if isinstance(engine, Replicas) else [engine]:
        if not isinstance(one, StepEngine):
            continue
        shape = one.shape
        # What a batch makes in all, whichever it is.
        for streams in range(1, 65):
            step = shape.step(streams, 40 * streams) * shape.speed(now)
            yield Bound("output_rate", streams * 1e9 / step, False)
        places = {shape.most(at) for at in (world.began, now)}
        single = one is engine and len(places) == 1 and not shape.window
        met = single and shape.cache > _CACHE and _crowded(rows, min(places))
        for number in places:
            yield Bound("streams", number, met)
        if shape.cache <= _CACHE:
            # As many as their lengths leave room for.
            yield from (Bound("streams", n, False) for n in range(1, 65))
    if isinstance(engine, Replicas):
        most = [one.shape.most(now) for one in engine.engines if isinstance(one, StepEngine)]
        yield Bound("streams", sum(most), False)


def _paced(rows: Sequence[Row]) -> bool:
    """Whether a bucket held back the two largest bursts."""
    bursts: dict[int, list[Row]] = {}
    for row in rows:
        if row.stage == "S6" and row.ok and row.due is not None:
            bursts.setdefault(row.due, []).append(row)
    largest = sorted(bursts.values(), key=len)[-2:]
    shares = []
    for burst in largest:
        spent = [row.request.ledger.spent for row in burst]
        held = sum(ns for each in spent for cause, ns in each.items() if "bucket" in cause.piece)
        shares.append(held / sum(sum(each.values()) for each in spent))
    return len(shares) == 2 and min(shares) > _MET


def _crowded(rows: Sequence[Row], places: int) -> bool:
    """Whether clearly more requests than places were in flight, in a burst or for some time of
    the workload."""
    waits = max(_BEYOND, places // 4)
    served = [row for row in rows if row.ok and row.osl]
    for stage in ("S6", "S10"):
        mine = [row for row in served if row.stage == stage]
        begin = np.sort([row.begin for row in mine])
        done = np.sort([row.done or 0 for row in mine])
        under_way = np.arange(1, len(mine) + 1) - np.searchsorted(done, begin)
        least = 1 if stage == "S6" else max(10, len(mine) // 5)
        if int((under_way >= places + waits).sum()) >= least:
            return True
    return False


def limits_named(result: Mapping[str, Any], bounds: Sequence[Bound]) -> Named:
    """``result``: its JSON."""
    stated = [(each["kind"], each["value"]) for each in result.get("limits", ())]
    stated = [(kind, value) for kind, value in stated if value is not None]

    def fits(kind: str, value: float, bound: Bound) -> bool:
        return kind == bound.kind and abs(value / bound.value - 1) <= WITHIN

    met = [bound for bound in bounds if bound.met]
    missed = [b for b in met if not any(fits(*each, b) for each in stated)]
    false = [each for each in stated if not any(fits(*each, b) for b in bounds)]
    words = [f"{b.kind} {b.value:.3g} not named" for b in missed]
    words += [f"{kind} {value:.3g} falsely named" for kind, value in false]
    return Named(len(met), len(met) - len(missed), len(false), ", ".join(words))
