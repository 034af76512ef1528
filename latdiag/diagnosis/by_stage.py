"""The stages of a workload beside each other: each run of several, each scenario of a capture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from latdiag.attribution.accounts import Rank
from latdiag.attribution.rows import selected
from latdiag.diagnosis.attribution import Attribution, populations
from latdiag.diagnosis.breakdown import leaves
from latdiag.diagnosis.header import known, number, section
from latdiag.diagnosis.result import StageResult
from latdiag.diagnosis.shares import POPULATIONS
from latdiag.diagnosis.verdict import verdict

if TYPE_CHECKING:
    from latdiag.measurement.by_stage import StageRows
    from latdiag.measurement.digest import Digest
    from latdiag.store.run import Run

#: What is stated of a stage.
METRICS = ("ttft", "tpot", "e2e")
#: Evidence that speaks of each request by itself. What speaks of all requests together says
#: nothing of those of one stage.
_OF_EACH = {Rank.SPANS, Rank.REPLIES, Rank.MERGED_REPLIES}


def by_stage(
    run: Run, found: Digest, refused: Mapping[str, str], attributed: Attribution | None
) -> tuple[StageResult, ...]:
    """The stages in reading order; none where there is one, or more than ``by_stage.MOST``.

    ``refused``: metrics that are not stated of the whole, and why. ``attributed``: where the time
    of the whole went, None where that was not asked.
    """
    names = _names(run.paths)
    stages = []
    for rows in found.stages:
        counts, plan = rows.measurement.counts, section(run.headers[rows.run], "plan")
        metrics = rows.measurement.without(refused).metrics()
        scenario = rows.scenario or None
        stages.append(
            StageResult(
                name=" ".join(_name(names, rows)),
                run=run.paths[rows.run],
                scenario=scenario,
                requests=counts.requests,
                ok=counts.ok,
                failed=dict(counts.failed),
                concurrency=known(plan, "concurrency", int),
                offered_rate=number(plan, "rate"),
                metrics={name: metrics[name] for name in METRICS},
            )
        )
    if attributed is None or not set(attributed.ranks) <= _OF_EACH:
        return tuple(stages)
    return tuple(
        _attributed(stage, rows, attributed)
        for stage, rows in zip(stages, found.stages, strict=True)
    )


def _attributed(stage: StageResult, rows: StageRows, whole: Attribution) -> StageResult:
    """With where the time of its own requests went, as the whole account divides it."""
    assert whole.parts.row is not None
    parts = selected(whole.parts, np.flatnonzero(np.isin(whole.parts.row, rows.rows)))
    parts = replace(parts, left_out=stage.ok - len(parts.total))
    shares = populations(parts, "client_e2e")
    case = replace(
        whole.case,
        breakdowns=shares,
        parts=parts,
        leaves={p: fine for p in POPULATIONS if p in shares and (fine := leaves(parts, p))},
        failed=sum(stage.failed.values()) / stage.requests if stage.requests else 0.0,
        requests=stage.ok,
        in_flight=frozenset((stage.concurrency,)),
    )
    return replace(stage, verdict=verdict(case), breakdowns=shares)


def _names(paths: Sequence[str]) -> list[str]:
    """What each run is called: the end of its path, or all of it where that is of several."""
    short = [PurePosixPath(path).name.removesuffix(".run") or path for path in paths]
    return [
        name if short.count(name) == 1 else path for name, path in zip(short, paths, strict=True)
    ]


def _name(runs: Sequence[str], rows: StageRows) -> Iterator[str]:
    """Of several runs the run, of a capture the scenario."""
    if len(runs) > 1:
        yield runs[rows.run]
    if rows.scenario or len(runs) == 1:
        yield rows.scenario or "(no scenario)"
