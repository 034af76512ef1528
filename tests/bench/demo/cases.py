"""Which server belongs to which seed: every fault in turn, two at once in a quarter."""

from __future__ import annotations

import random
from dataclasses import replace

from latdiag.sim.params import Params, can_be_both, draw, draw_two

from .judge import FAULT_IN


def case(seed: int) -> tuple[tuple[str, ...], Params]:
    """(the faults, the server)."""
    names = tuple(FAULT_IN)
    if seed % 4 == 3:
        sick = [name for name in names if name != "healthy"]
        drawn = random.Random(seed)
        while True:
            first, second = drawn.sample(sick, 2)
            if can_be_both(first, second):
                return (first, second), draw_two(first, second, seed)
    fault = names[(seed - seed // 4) % len(names)]
    params = draw(fault, seed)
    if fault == "prefill" and seed % 2:
        # On the server that decodes, as most do: then prompts stretch each other's decode too,
        # and what leads is for the books to say.
        params = replace(params, disaggregated=False, kv_setup_ms=0.0, kv_us=0.0)
    return (fault,), params
