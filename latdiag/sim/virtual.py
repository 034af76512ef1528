"""The engine in virtual time: arrivals in, instants and truth out, as fast as it computes.

And what its servers would have said of them, with the instants at which a collector gets it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from latdiag.sim.engine import Engine
from latdiag.sim.params import Params
from latdiag.sim.spans import Asked, Context, Record, record
from latdiag.sim.telemetry import Clock, Deliveries, Telemetry
from latdiag.sim.truth import Truth


def play(
    params: Params, seed: int, arrivals: Iterable[tuple[str, int, int, int]]
) -> dict[str, tuple[list[int], Truth]]:
    """Per key the instants of its tokens (ns) and its truth.

    ``arrivals``: (key, at_ns, isl, osl) in any order. Raises what ``Engine.submit`` raises.
    """
    engine = Engine(params, seed)
    tokens: dict[str, list[int]] = {}
    for key, at_ns, isl, osl in sorted(arrivals, key=lambda one: one[1]):
        engine.submit(key, at_ns, isl, osl)
        tokens[key] = []
    while (now_ns := engine.next_ns()) is not None:
        for emission in engine.advance(now_ns):
            tokens[emission.key].append(emission.at_ns)
    return {key: (instants, engine.pop_truth(key)) for key, instants in tokens.items()}


@dataclass(frozen=True, slots=True)
class Told:
    """A span that a collector gets at ``at_ns`` (the engine's clock) from the server with this
    ``part``. ``record``: as ``spans.export_request`` takes it."""

    at_ns: int
    part: str
    record: Record


def told(
    finished: Iterable[tuple[Context, Asked, Truth]],
    faults: Telemetry,
    seed: int,
    real_ns: int,
) -> list[Told]:
    """What arrives of these requests, in the order in which it does. ``real_ns``: REALTIME minus
    the engine's clock on a machine whose clock is right."""
    requests = list(finished)
    origin_ns = min((truth.arrived_ns for _, _, truth in requests), default=0)
    visits = [
        (visit, context, asked)
        for context, asked, truth in requests
        if context.sampled
        for visit in truth.visits
    ]
    parts = {visit.part for visit, *_ in visits}
    clocks = {part: Clock(faults, part, origin_ns) for part in parts}
    deliveries = {part: Deliveries(faults, part, seed) for part in parts}
    found = []
    for visit, context, asked in sorted(visits, key=lambda one: one[0].finished_ns):
        said = record(context, visit, clocks[visit.part], real_ns, asked)
        instants = deliveries[visit.part].of(visit.finished_ns)
        found += [Told(at_ns, visit.part, said) for at_ns in instants]
    return sorted(found, key=lambda one: one.at_ns)
