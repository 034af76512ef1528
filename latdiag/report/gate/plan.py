"""What a budget buys on a server that was measured against itself for some pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latdiag.model.document import document
from latdiag.model.units import show_duration
from latdiag.report.gate.words import STATISTICS

if TYPE_CHECKING:
    from latdiag.gate.document import Measured


@dataclass(frozen=True, slots=True)
class Planned:
    """``requests_per_s``: within a block. ``wall_ns``: of all pairs, without the warm-up.
    ``visible``: by check, the effect that 95 of 100 runs find (0.1 is 10 %)."""

    schema: int
    kind: str
    budget_ns: int
    pairs: int
    block: int
    requests_per_s: float | None
    wall_ns: int
    pilot_pairs: int
    min_effect: float
    visible: Mapping[str, float]


def planned(pilot: Measured, rate: float | None) -> Planned:
    """What ``pilot`` says of the whole plan. ``rate``: requests/s within a block."""
    from latdiag.gate.sizing import visible

    plan, blocks = pilot.plan, pilot.blocks
    return Planned(
        schema=1,
        kind="gate-plan",
        budget_ns=plan.settings.budget_ns,
        pairs=plan.pairs,
        block=plan.block,
        requests_per_s=rate,
        wall_ns=round(pilot.arms.wall_ns / blocks.pairs * plan.pairs),
        pilot_pairs=blocks.pairs,
        min_effect=plan.settings.min_effect,
        visible={name: round(value, 6) for name, value in visible(blocks, plan).items()},
    )


def planned_json(found: Planned) -> str:
    """For programs."""
    return json.dumps(document(found), allow_nan=False)


def planned_lines(found: Planned) -> Iterator[str]:
    """For people."""
    rate = f" ({found.requests_per_s:.3g}/s within a block)" if found.requests_per_s else ""
    yield (
        f"A budget of {show_duration(found.budget_ns)} pays for {found.pairs} pairs of"
        f" {found.block} requests an arm{rate}."
    )
    yield f"They take {show_duration(found.wall_ns)} and the warm-up, if no look decides sooner."
    yield ""
    yield f"By {found.pilot_pairs} pairs of this server with itself, 95 of 100 runs find"
    for name, value in found.visible.items():
        metric, _, statistic = name.partition(".")
        words = f"{metric.upper()} {STATISTICS.get(statistic, statistic)}"
        unit = "points more" if statistic == "exceed2x" else "% slower"
        yield f"  {words:<16} {100 * value:5.1f} {unit}"
    yield (
        f"and nothing below {100 * found.min_effect:g} % is called slower. A prediction from few"
        " pairs, no bound."
    )
