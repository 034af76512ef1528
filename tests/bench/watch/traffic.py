"""Simulated production traffic for the change detection of ``watch``: a world of its own.

Each replica has so many slots; a request that finds none waits, first come, first served
(simulated event by event, so the queue follows the load as queues do). Prefill takes a constant
and a part for each prompt token, decode a constant for each token and a part for each request
that runs beside it; both are drawn lognormally. Prompts and outputs have lognormal lengths. The
load has a daily wave. Nothing here is taken from the package's own simulator.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

S = 1_000_000_000
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Law:
    """Of one model. Times in s; ``noise``: sigma of the lognormal factor of each time."""

    slots: int
    frontend: float
    prefill: float
    per_prompt: float
    step: float
    beside: float
    prompt: float
    output: float
    noise: float = 0.2
    spread: float = 0.8


@dataclass(frozen=True, slots=True)
class Fault:
    """From ``at_s`` on a component takes ``factor`` times as long, on one replica or on all."""

    at_s: float
    component: str
    factor: float
    model: int
    replica: int | None = None


@dataclass(slots=True)
class World:
    laws: list[Law]
    replicas: int = 4
    rate: float = 20.0
    wave: float = 0.4
    seed: int = 1
    faults: list[Fault] = field(default_factory=list)

    def load(self, at_s: float) -> float:
        return self.rate * (1 + self.wave * math.sin(2 * math.pi * at_s / DAY_S))

    def requests(self, seconds: float) -> dict[str, np.ndarray]:
        """Columns of all requests, in the order of their ends: ns, and who served them."""
        random = np.random.default_rng(self.seed)
        free = [[[] for _ in range(self.replicas)] for _ in self.laws]
        running = [[[] for _ in range(self.replicas)] for _ in self.laws]
        most, at, rows = self.rate * (1 + self.wave), 0.0, []
        while True:
            at += random.exponential(1 / most)
            if at > seconds:
                break
            if random.random() > self.load(at) / most:
                continue
            model = int(random.integers(len(self.laws)))
            replica = int(random.integers(self.replicas))
            rows.append(self._one(at, model, replica, free, running, random))
        rows.sort()
        table = np.array(rows)
        names = (
            *("end", "model", "replica", "frontend", "queue", "prefill", "decode"),
            *("prompt", "output"),
        )
        return {name: table[:, place] for place, name in enumerate(names)}

    def _one(self, at, model, replica, free, running, random):  # type: ignore[no-untyped-def]
        law = self.laws[model]

        def drawn(mean: float, sigma: float) -> float:
            return mean * math.exp(random.normal(-sigma * sigma / 2, sigma))

        prompt = max(1.0, drawn(law.prompt, law.spread))
        output = max(2.0, drawn(law.output, law.spread))
        times = {
            "frontend": drawn(law.frontend, law.noise),
            "prefill": drawn(law.prefill + law.per_prompt * prompt, law.noise),
        }
        slots, busy = free[model][replica], running[model][replica]
        while busy and busy[0] <= at:
            heapq.heappop(busy)
        step = law.step + law.beside * min(len(busy), law.slots)
        times["decode"] = drawn(step * (output - 1), law.noise)
        wait_from = at + times["frontend"]
        for fault in self.faults:
            mine = fault.model == model and fault.replica in (None, replica)
            if at >= fault.at_s and mine and fault.component in times:
                times[fault.component] *= fault.factor
        begin = wait_from
        if len(slots) >= law.slots:
            begin = max(begin, heapq.heappop(slots))
        end = begin + times["prefill"] + times["decode"]
        heapq.heappush(slots, end)
        heapq.heappush(busy, end)
        return (
            *(end, model, replica, times["frontend"], begin - wait_from),
            *(times["prefill"], times["decode"], prompt, output),
        )


#: Three models: queue, prefill and decode weigh differently in them; all are busy at the peak.
LAWS = [
    Law(8, 0.004, 0.05, 0.00025, 0.012, 0.0006, 500, 150),
    Law(6, 0.003, 0.02, 0.0004, 0.009, 0.0004, 900, 120),
    Law(10, 0.006, 0.08, 0.0001, 0.02, 0.0008, 300, 100),
]
