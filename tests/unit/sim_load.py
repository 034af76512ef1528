"""Servers with round numbers, and the load that a probe puts on a server, in virtual time."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

from latdiag.sim.engine import Emission, Engine
from latdiag.sim.params import Params
from latdiag.sim.truth import Truth
from latdiag.sim.virtual import play

US, MS = 1_000, 1_000_000
#: Every step takes 1 ms, whatever is in it.
TICK = Params(
    overhead_ms=1.0, weights_ms=0.0, compute_us=0.0, kv_ns=0.0, seq_us=0.0, attention_ns=0.0,
    noise=0.0, frontend_ms=0.0, frontend_us=0.0,
)  # fmt: skip
#: 1 ms of overhead, 3 ms of weights or 100 us a token, 1 us a context token, 10 us a sequence.
LAW = replace(TICK, weights_ms=3.0, compute_us=100.0, kv_ns=1000.0, seq_us=10.0)
#: A prefill and a decode side; a transfer of 4 tokens takes 2 + 4.4 ms.
APART = replace(TICK, disaggregated=True, kv_setup_ms=2.0, kv_us=1100.0)


def leaves(truth: Truth) -> dict[str, int]:
    """Those that are not 0."""
    return {name: spent for name, spent in truth.leaves.items() if spent}


def ms(instants: list[int]) -> list[float]:
    return [at_ns / MS for at_ns in instants]


def drain(engine: Engine) -> list[Emission]:
    found = []
    while (now_ns := engine.next_ns()) is not None:
        found += engine.advance(now_ns)
    return found


#: The component that a fault is about.
NAMED = {
    "queue": "queue",
    "prefill": "prefill",
    "decode": "decode",
    "interference": "decode",
    "kv-transfer": "interconnect",
    "network": "network",
}
_APART_NS = 100_000_000_000  # between requests that shall not meet


@dataclass(frozen=True)
class Play:
    """``shapes``: (isl, osl). Sums in ns over all requests; the relay's delay is a component."""

    shapes: list[tuple[int, int]]
    truths: list[Truth]
    leaves: Counter[str]
    components: Counter[str]


def shapes(rng: random.Random, count: int) -> list[tuple[int, int]]:
    """Prompts: log-normal, median 256, 32 to 1024; replies: median 32, 8 to 128."""

    def length(median: float, sigma: float, low: int, high: int) -> int:
        return round(min(high, max(low, rng.lognormvariate(math.log(median), sigma))))

    return [(length(256, 0.6, 32, 1024), length(32, 0.5, 8, 128)) for _ in range(count)]


def residence_ns(truth: Truth) -> int:
    return truth.finished_ns - truth.arrived_ns


def alone(params: Params, wanted: list[tuple[int, int]]) -> list[Truth]:
    """The truths of requests that never meet."""
    arrivals = [(str(i), i * _APART_NS, *shape) for i, shape in enumerate(wanted)]
    played = play(params, 1, arrivals)
    return [played[key][1] for key, *_ in arrivals]


def rate_per_s(params: Params, rng: random.Random) -> float:
    """At most 6/s, three in flight, and prefill for 0.3 of the time: from what an idle server
    shows."""
    trial = shapes(rng, 40)
    mean_isl = sum(isl for isl, _ in trial) // len(trial)
    *idle, prompt = alone(params, [*trial, (mean_isl, 1)])
    seconds = sum(map(residence_ns, idle)) / len(idle) / 1e9 + 2e-3 * params.network_ms
    return min(6.0, 3 / seconds, 0.3 / (prompt.leaves["prefill.own"] / 1e9))


@cache
def probed(params: Params, seed: int, count: int = 70) -> Play:
    """Poisson arrivals at the probe's rate. Several tests look at the same play."""
    rng = random.Random(seed)
    rate = rate_per_s(params, rng)
    wanted, at_ns, arrivals = shapes(rng, count), 0, []
    for index, shape in enumerate(wanted):
        at_ns += round(rng.expovariate(rate) * 1e9)
        arrivals.append((str(index), at_ns, *shape))
    played = play(params, seed, arrivals)
    truths = [played[key][1] for key, *_ in arrivals]
    leaves: Counter[str] = Counter()
    components: Counter[str] = Counter()
    for truth in truths:
        leaves.update(truth.leaves)
    for name, spent in leaves.items():
        components[name.partition(".")[0]] += spent
    components["network"] = round(2e6 * params.network_ms) * count
    return Play(wanted, truths, leaves, components)


def margin(components: Counter[str], name: str) -> float:
    """How many times as large as the next one."""
    return components[name] / max(spent for key, spent in components.items() if key != name)
