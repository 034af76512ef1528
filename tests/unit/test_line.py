"""Who stands in the line in which requests wait: read off POSTs that are refused beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latdiag.attribution.laws import explain as blackbox
from latdiag.attribution.laws.line import Line, line_of
from latdiag.attribution.laws.path import refusals_of
from latdiag.measurement.observations import Observations

from .probe_rows import MS, Reply, gets, refusals, reply, seen
from .test_blackbox import compute, explained, parse, probe

#: What requests wait, and at which of them a POST goes out.
WAITED = np.minimum(np.random.default_rng(21).exponential(300.0, 60), 900.0)
BESIDE = (3, 9, 14, 22, 27, 33, 38, 45, 51, 56)


def beside(share: float, noise: float = 1.0) -> Observations:
    """A workload, and refused POSTs that wait ``share`` as long as it at the same moments."""
    random = np.random.default_rng(22)
    rows: list[Reply] = list(gets([0.3] * 8))
    rows += refusals((isl, 2.0 + random.normal(0, 0.05)) for isl in (32, 1024, 4096) * 3)
    rows += [
        reply("S10", 64, 1000.0 * k, 20.0 + wait, [10.0] * 8) for k, wait in enumerate(WAITED)
    ]
    posts = refusals(
        (64, 2.0 + max(0.0, share * WAITED[k] * random.normal(1, 0.02))) for k in BESIDE
    )
    rows += [
        replace(post, stage="S7", begin=round(1000.0 * k * MS))
        for k, post in zip(BESIDE, posts, strict=True)
    ]
    return seen(rows)


def line(observed: Observations, waits: float = 1.0, noise: float = 1.0) -> Line | None:
    rows = observed.of("S10")
    took = ((observed.server[rows] - 20 * MS) * waits).astype(np.int64)
    return line_of(observed, refusals_of(observed, 0.0, 0.05 * MS), 0.0, rows, took, noise * MS)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_refused_post_shows_the_share_of_the_waits_that_lies_before_it(share: float) -> None:
    found = line(beside(share))
    assert found is not None and found.n == len(BESIDE)
    assert found.share == pytest.approx(share, abs=0.05) and found.lo <= found.share <= found.hi
    assert found.one == (share == 1.0)
    assert found.before == pytest.approx(share, abs=0.05)


def test_posts_beside_bursts_exclude_and_book_nothing() -> None:
    """A limit that bursts reach may be far above the workload."""
    observed = beside(1.0)
    stage = observed.stage.copy()
    stage[np.flatnonzero(stage == "S10")[-1]] = "S6"  # after all POSTs
    found = line(replace(observed, stage=stage))
    assert found is not None and found.share > 0.9 and not found.of_workload
    assert found.before == 0.0


def test_what_lies_before_is_as_sure_as_the_posts_say() -> None:
    assert Line(0.95, 0.7, 1.1, 12).doubt == pytest.approx(0.3)
    assert Line(0.6, 0.5, 0.7, 12).doubt == pytest.approx(0.1)
    assert Line(0.1, 0.0, 0.3, 12).doubt == 0.0


def test_where_nobody_waits_or_few_posts_went_out_nothing_is_said() -> None:
    assert line(beside(1.0), waits=0.001) is None
    assert line(beside(1.0), noise=300.0) is None, "requests alone differ by as much"
    observed = beside(1.0)
    few = np.flatnonzero(observed.stage == "S7")[3:]
    assert line(observed.select(np.setdiff1d(np.arange(observed.n), few))) is None


def test_waits_before_whatever_refuses_are_no_queue_of_the_engine() -> None:
    """The same workload twice: POSTs that pass, and POSTs that wait in the same line."""
    waits = WAITED.tolist()
    passing = probe(waits)
    work = [row for row in passing if row.stage == "S10"]
    waiting = [row for row in passing if not (row.stage == "S7" and row.scenario == "refused")]
    posts = refusals((512, 0.3 + parse(512) + waits[k]) for k in BESIDE)
    waiting += [
        replace(post, stage="S7", begin=work[k].begin)
        for k, post in zip(BESIDE, posts, strict=True)
    ]
    parts, _ = explained(passing)
    assert parts.sources["queue"].members == ()
    assert float(parts.parts["queue"].sum()) == pytest.approx(sum(waits) * MS, rel=0.03)
    found = blackbox.explain(seen(waiting))
    assert found is not None
    before, _ = found
    own = sum(compute(row.isl) for row in work) * MS
    queue = before.parts.get("queue")
    assert queue is None or float(queue.sum()) < 0.05 * sum(waits) * MS
    assert float(before.parts["prefill"].sum()) == pytest.approx(own, rel=0.05)
    held = before.parts["gateway"]
    assert float(held.sum()) == pytest.approx(sum(waits) * MS, rel=0.05)
