"""What the workload itself shows: who waits before the engine, and how many run at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latdiag.attribution.laws.admission import at_limit
from latdiag.measurement.observations import Observations

from .probe_rows import MS, Reply, gets, refusals, reply, seen
from .test_laws import base, ladder, streams, taught


# ---------------------------------------------------------------------- beside the workload
def beside(get_ms: float, post_ms: float, n: int = 12) -> list[Reply]:
    random = np.random.default_rng(14)
    quiet = gets(random.normal(1.0, 0.05, 10)) + refusals(
        (isl, 2.0 + 0.004 * isl + random.normal(0, 0.05)) for isl in (32, 512, 1024) * 3
    )
    busy = gets(random.normal(1.0 + get_ms, 0.05, n)) + refusals(
        (isl, 2.0 + 0.004 * isl + post_ms + random.normal(0, 0.05)) for isl in (32, 512, 1024) * 4
    )
    # After the bursts, beside which POSTs are sent too.
    return quiet + [replace(row, stage="S7", begin=row.begin + 10**12) for row in busy]


@pytest.mark.parametrize(("get", "post"), [(0.0, 0.0), (0.0, 40.0), (30.0, 30.0)])
def test_what_waits_before_the_engine_waits_without_a_token_too(get: float, post: float) -> None:
    random = np.random.default_rng(15)
    loaded = taught(ladder(base, random) + streams(random, 10.0) + beside(get, post)).loaded
    assert loaded is not None
    assert (loaded.get_ns or 0.0) / MS == pytest.approx(get, abs=0.5)
    assert (loaded.post_ns or 0.0) / MS == pytest.approx(post, abs=0.5)
    assert taught(ladder(base, random) + streams(random, 10.0)).loaded is None


# ---------------------------------------------------------------------- how many run at once
def admitted_by(places: int, n: int = 60) -> Observations:
    """A workload of which so many run at once; each takes 300 ms, and one comes each 40 ms."""
    free, rows = [0.0] * places, []
    for k in range(n):
        came = 40.0 * k
        free.sort()
        start = max(came, free[0])
        free[0] = start + 300.0
        rows.append(reply("S10", 64, came, start - came + 20.0, [28.0] * 10))
    return seen(rows)


@pytest.mark.parametrize("places", [1, 2, 4])
def test_who_comes_while_as_many_run_as_ever_do_waits_for_a_place(places: int) -> None:
    observed = admitted_by(places)
    full = at_limit(observed, observed.of("S10"))
    waited = observed.server > 25 * MS
    assert waited.mean() > 0.8 and (full[waited]).mean() > 0.9


def test_a_workload_that_never_crowds_shows_no_limit() -> None:
    observed = admitted_by(20)
    assert not at_limit(observed, observed.of("S10")).any()
