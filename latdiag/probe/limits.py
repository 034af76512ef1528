"""What a user lets a probe spend, and the workload that is to be explained."""

from __future__ import annotations

import secrets
from dataclasses import replace

from latdiag.load.work.lengths import in_turn
from latdiag.load.work.schedule import OpenLoop
from latdiag.measurement.stages import Limits
from latdiag.model.errors import UsageFault
from latdiag.probe.budget import BUDGETS, MAX_TOKENS
from latdiag.probe.cost import least_tokens
from latdiag.probe.earlier import Earlier
from latdiag.probe.offered import TURNS, least_requests, most_requests

#: The budget of a probe that no option and no earlier run gives one.
DEFAULT = "quick"


def limits_of(
    budget: str | None,
    max_tokens: int | None,
    rate: str | None,
    concurrency: int | None,
    isl: str | None,
    osl: str | None,
    seed: int | None,
    behind: bool = False,
) -> Limits:
    """The limits as the words of the options state them; UsageFault for what cannot be."""
    budget, parsed_rate = budget or DEFAULT, None
    if rate is not None:
        if concurrency is not None:
            raise UsageFault(
                "--rate and --concurrency exclude each other: one is an open loop, the other a"
                " closed loop",
                "give only one of them",
            )
        parsed = OpenLoop.parse(rate)
        if parsed.kind != "poisson":
            raise UsageFault(
                "a probe sends at random times (Poisson arrivals)", f"give --rate {parsed.rate:g}"
            )
        parsed_rate = parsed.rate
    seed = secrets.randbits(32) if seed is None else seed
    limits = Limits(
        budget=budget,
        max_tokens=max_tokens or MAX_TOKENS[budget],
        max_model_len=None,
        seed=seed,
        isl=in_turn(isl, seed, "isl"),
        osl=in_turn(osl, seed, "osl"),
        rate=parsed_rate,
        concurrency=concurrency,
        behind=behind,
    )
    _check_turns(limits)
    _check_tokens(limits)
    return limits


def limits_like(
    earlier: Earlier,
    budget: str | None,
    max_tokens: int | None,
    seed: int | None,
    behind: bool = False,
) -> Limits:
    """What an earlier probe could spend, and its workload; UsageFault for what cannot be."""
    if seed == earlier.seed:
        raise UsageFault(
            f"--seed {seed} makes the prompts of the run that --like names, which the server may"
            " have cached",
            "leave out --seed, or give another",
        )
    shots = [shot for stage in earlier.segments for shot in stage.shots]
    limits = Limits(
        budget=budget or earlier.budget,
        max_tokens=max_tokens or max(earlier.max_tokens, MAX_TOKENS[budget or earlier.budget]),
        max_model_len=None,
        seed=secrets.randbits(32) if seed is None else seed,
        isl=tuple(shot.isl for shot in shots),
        osl=tuple(shot.osl for shot in shots),
        rate=earlier.rate,
        concurrency=earlier.concurrency,
        behind=behind,
        like=earlier.segments,
    )
    _check_tokens(limits)
    return limits


def _check_tokens(limits: Limits) -> None:
    """UsageFault where the workload alone takes more tokens than may be spent."""
    least = least_tokens(limits)
    if least > limits.max_tokens:
        raise UsageFault(
            f"{least_requests(limits):,} requests of this workload are {least:,} tokens, more than"
            f" may be spent ({limits.max_tokens:,})",
            f"allow for the designed stages too: --max-tokens-total {2 * least}",
        )


def _check_turns(limits: Limits) -> None:
    """UsageFault where the budget is too small for a closed loop of so many."""
    least, most = least_requests(limits), most_requests(limits, BUDGETS[limits.budget])
    if least <= most:
        return
    larger = [
        f"--budget {name}"
        for name, budget in BUDGETS.items()
        if most_requests(replace(limits, budget=name), budget) >= least
    ]
    fits = f"--concurrency {most // TURNS}"
    raise UsageFault(
        f"a closed loop of {limits.concurrency:,} takes {least:,} requests for {TURNS} turns, and"
        f" --budget {limits.budget} sends at most {most:,}",
        f"give {' or '.join([*larger[:1], fits])}",
    )
