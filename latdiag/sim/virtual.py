"""The engine in virtual time: arrivals in, instants and truth out, as fast as it computes."""

from __future__ import annotations

from collections.abc import Iterable

from latdiag.sim.engine import Engine
from latdiag.sim.params import Params
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
