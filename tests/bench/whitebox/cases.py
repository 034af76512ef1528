"""Which server belongs to which seed, drawn as for the bench of the probe: every fault in turn,
two at once in a quarter, slow prompts beside decode or apart from it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from latdiag.sim.params import OF_SERVER, Params, can_be_both, draw, draw_two

_PAIRS = [pair for pair in combinations(OF_SERVER, 2) if can_be_both(*pair)]


def case(seed: int) -> tuple[tuple[str, ...], Params]:
    """(the faults, the server)."""
    if seed % 4 == 3:
        pair = _PAIRS[seed // 4 % len(_PAIRS)]
        return pair, draw_two(*pair, seed)
    names = OF_SERVER
    fault = names[(seed - seed // 4) % len(names)]
    params = draw(fault, seed)
    if fault == "prefill" and seed % 2:
        params = replace(params, disaggregated=False, kv_setup_ms=0.0, kv_us=0.0)
    return (fault,), params
