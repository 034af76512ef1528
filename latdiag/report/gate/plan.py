"""What a budget buys on a server that was measured against itself for some pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from latdiag.model.units import show_duration
from latdiag.report.gate.words import STATISTICS

if TYPE_CHECKING:
    from latdiag.gate.document import Measured


def planned(pilot: Measured, rate: float | None) -> dict[str, Any]:
    """As an object for programs. ``rate``: requests/s within a block."""
    from latdiag.gate.sizing import visible

    plan, blocks = pilot.plan, pilot.blocks
    each_ns = pilot.arms.wall_ns / blocks.pairs
    return {
        "schema": 1,
        "kind": "gate-plan",
        "budget_ns": plan.settings.budget_ns,
        "pairs": plan.pairs,
        "block": plan.block,
        "requests_per_s": rate,
        "wall_ns": round(each_ns * plan.pairs),
        "pilot_pairs": blocks.pairs,
        "min_effect": plan.settings.min_effect,
        "visible": {name: round(value, 6) for name, value in visible(blocks, plan).items()},
    }


def planned_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The same for people."""
    budget = show_duration(found["budget_ns"])
    yield (
        f"A budget of {budget} pays for {found['pairs']} pairs of {found['block']} requests an arm"
        f" ({found['requests_per_s']:.3g}/s"
    )
    yield (
        f"within a block), which take {show_duration(found['wall_ns'])} besides the warm-up, if no"
        " look decides sooner."
    )
    yield ""
    yield f"By {found['pilot_pairs']} pairs of this server with itself, 95 of 100 runs find"
    for name, value in found["visible"].items():
        metric, _, statistic = name.partition(".")
        words = STATISTICS.get(statistic, statistic)
        unit = "points more" if statistic == "exceed2x" else "% slower"
        yield f"  {metric.upper()} {words:<10}  {100 * value:5.1f} {unit}"
    yield (
        f"and nothing below {100 * found['min_effect']:g} % is called slower. A prediction from"
        " few pairs, no bound."
    )
