"""The tables of the bench, as lines of text: false alarms by regime, and what is detected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from latdiag.gate.plan import Plan

from .baselines import BASELINES
from .score import Tally, settings, tally
from .world import REGIMES, Fault

#: Pairs and block of the A/A runs: 2,000 requests an arm.
PAIRS, BLOCK = 80, 25


@dataclass(frozen=True)
class Goal:
    """A row of power: what is wrong, at how many requests an arm, which check is to be red (""
    is any), and in how many of the runs at least."""

    name: str
    fault: Fault
    pairs: int
    block: int
    check: str
    least: float


GOALS = (
    Goal("TTFT p95 +10 % at 6,000", Fault(prefill=1.10), 120, 50, "ttft.p95", 0.95),
    Goal("TPOT shift +10 % at 2,000", Fault(decode=1.10), 80, 25, "tpot.shift", 0.95),
    Goal("TTFT shift +20 % at 1,000", Fault(prefill=1.20), 40, 25, "ttft.shift", 0.95),
    Goal("TPOT shift +20 % at 1,000", Fault(decode=1.20), 40, 25, "tpot.shift", 0.95),
    Goal("stalls .7 -> 2.5 % at 4,000", Fault(stalls=0.025), 80, 50, "", 0.80),
)


def false_alarms(runs: int, margin: float, alpha: float, seed: int) -> tuple[list[str], Tally]:
    """A/A runs of each regime: the gate and every rival; and the tally of all that are equal.

    At margin 0 an arm that is slower by its restart is slower: that is what the margin is for, so
    that regime has a line of its own there and is not counted as equal.
    """
    plan = Plan(PAIRS, BLOCK, True, settings(alpha, margin))
    each = -(-runs // len(REGIMES))
    whole = Tally()
    lines = [f"A/A, margin {margin:.0%}, alpha {alpha}: red in % (INVALID, INCONCLUSIVE in %)"]
    for number, regime in enumerate(REGIMES):
        start = seed + number * 1_000_000
        found = tally(regime, Fault(), plan, range(start, start + each), rivals=True)
        if margin or not regime.restart:
            whole.runs += found.runs
            whole.verdicts += found.verdicts
            whole.red += found.red
            whole.rules += found.rules
        lines.append(_line(regime.name, found))
    lines.append(_line("all equal arms", whole))
    for rule in BASELINES:
        share, low, high = whole.share(rule)
        lines.append(f"  {rule:<26} {_percent(share)} [{_percent(low)}, {_percent(high)}]")
    lines.append(f"  void by rule: {dict(whole.rules)}")
    return lines, whole


def power(runs: int, margin: float, alpha: float, seed: int) -> Iterator[str]:
    """A row for each goal: how often any check is red as shipped, and where runs then stop; how
    often the goal's own check is, with one look at the end (a run that stops sooner stops for
    whichever check is red first)."""
    yield f"power, rho .05, margin {margin:.0%}, alpha {alpha}, {runs} runs a row"
    for number, goal in enumerate(GOALS):
        found = power_of(goal, runs, margin, alpha, seed + 7_000_000 + number * 10_000)
        red = found.verdicts["REGRESSED"] / found.runs
        whole = power_of(goal, runs, margin, alpha, seed + 7_000_000 + number * 10_000, True)
        check = goal.check or "ttft.exceed2x"
        own = whole.red_checks[check] / runs
        mean = found.requests / found.runs
        named = dict(found.causes.most_common(3))
        yield (
            f"  {goal.name:<28} any red {_percent(red)}; {check} {_percent(own)};"
            f" mean stop {mean:,.0f} of {goal.pairs * goal.block:,}; causes {named}"
        )


def wrongly_safe(runs: int, seed: int) -> Tally:
    """G7: a TPOT that is slower by exactly the tolerance, 10 %: how often it is called OK."""
    plan = Plan(PAIRS, BLOCK, True, settings(0.005, 0.09))
    return tally(REGIMES[0], Fault(decode=1.10), plan, range(seed, seed + runs), rivals=False)


def power_of(
    goal: Goal, runs: int, margin: float, alpha: float, seed: int, fixed: bool = False
) -> Tally:
    """Runs of one goal in the first regime, which is the unloaded one. ``fixed``: one look."""
    plan = Plan(goal.pairs, goal.block, True, settings(alpha, margin, fixed=fixed))
    return tally(REGIMES[0], goal.fault, plan, range(seed, seed + runs), rivals=False)


def _line(name: str, found: Tally) -> str:
    share, low, high = found.share("latdiag")
    void, open_ = (found.verdicts[w] / found.runs for w in ("INVALID", "INCONCLUSIVE"))
    return (
        f"  latdiag, {name:<17} {_percent(share)} [{_percent(low)}, {_percent(high)}]"
        f" of {found.runs} ({_percent(void)}, {_percent(open_)})"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
