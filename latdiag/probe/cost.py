"""What a probe may cost, and the least that it needs, said before its first request."""

from __future__ import annotations

from latdiag.measurement.stages import Cost, Limits
from latdiag.model.units import NS_PER_S
from latdiag.probe.budget import (
    BUDGETS,
    BURST_POSTS,
    REACH,
    REFUSAL_POSTS,
    REFUSAL_ROUNDS,
    RESENT,
    SHORT,
)
from latdiag.probe.offered import LEAST, Offered, at_most, least_requests

#: Between two stages, of which there are so many; and before the first request and after the last:
#: the target is asked what it is, and the rows are taken apart.
_BETWEEN_S, _STAGES, _AROUND_S = 0.8, 12, 8.0


def cost(limits: Limits) -> Cost:
    """What ``probe`` may spend at most, before anything is known of the server.

    The seconds are for a server of ordinary speed: a slow one takes longer over each request.
    """
    budget, offered = BUDGETS[limits.budget], Offered(limits)
    long, burst = budget.longest + 128, sum(budget.batches)
    ladder = 13 * budget.ladder + 1 + 2 * max(1, budget.ladder // 2)
    designed = 2 + ladder + 2 * budget.outputs + burst + 8 + budget.injections
    tokens = 600 + burst * 64 + 4 * (SHORT + 1024) + budget.injections * long
    tokens += 4 * (long // 2)
    tokens += budget.outputs * (long + 160) + 2 * max(1, budget.ladder // 2) * long
    tokens += 13 * budget.ladder * max(REACH, *(limits.isl or (0,)))
    most = at_most(limits, budget) * (2 if limits.behind else 1)
    tokens = min(tokens, limits.max_tokens // 2) + offered.tokens(most)
    seconds = budget.stream_s + budget.ladder_s + budget.outputs_s + budget.batches_s
    seconds += budget.interference_s + _BETWEEN_S * _STAGES
    load_s = LEAST / limits.rate if limits.rate else 0.0
    load_s = max(load_s, budget.total_s - seconds)
    if limits.like and not limits.like[0].slots:
        load_s = sum(stage.shots[-1].at_ns for stage in limits.like) / NS_PER_S
    load_s += (max(load_s, budget.load_s) if limits.like else budget.load_s) * limits.behind
    path = budget.gets + 3 * budget.refusals + 4 * budget.beside * budget.segments
    path += BURST_POSTS * len(budget.batches)
    # Where the server refuses some as too many.
    limited = REFUSAL_ROUNDS * REFUSAL_POSTS + RESENT + most // budget.segments
    requests = path + designed + most + limited
    return Cost(
        requests,
        min(tokens, limits.max_tokens),
        seconds + load_s + _AROUND_S,
    )


def least_tokens(limits: Limits) -> int:
    """Tokens without which the workload has too few requests for a verdict."""
    return Offered(limits).tokens(least_requests(limits)) * (2 if limits.behind else 1)
