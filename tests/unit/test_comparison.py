"""Two sides compared: intervals that cover, and are refused where they would not."""

from __future__ import annotations

import numpy as np
import pytest

from latdiag.stats.bootstrap import block_length
from tests.profiles import repetitions

from .comparison_sides import (
    Draw,
    compared,
    components,
    load,
    partition,
    series,
    side,
)

#: Bounds of a coverage of 95 % over so many repetitions: three deviations below and above.
ALL = 200
RUNS = repetitions(ALL)
LEAST, MOST = (0.90, 0.99) if RUNS >= ALL else (0.95 - 3 * (0.95 * 0.05 / RUNS) ** 0.5, 1.0)


# ---------------------------------------------------------------------- coverage
def covered(a: Draw, b: Draw, name: str, population: str, truth: float) -> tuple[float, float]:
    """Share of the intervals that hold the true difference, and share of runs that have one."""
    rng, hits = np.random.default_rng(41), []
    for number in range(RUNS):
        sides = side(*a(rng, 0.0)), side(*b(rng, truth))
        found = components(*sides, population, seed=number)[name]["difference"]
        if found["lo"] is not None:
            hits.append(found["lo"] <= truth <= found["hi"])
    return float(np.mean(hits)), len(hits) / RUNS


@pytest.mark.repeated
@pytest.mark.parametrize(
    ("n", "phi"), [(200, 0.0), (400, 0.5), (1000, 0.8), (1500, 0.9)], ids=lambda v: str(v)
)
def test_the_interval_of_a_difference_of_means_covers(n: int, phi: float) -> None:
    """Measured 0.95 to 0.96. Sides of unlike size."""
    hit, stated = covered(load(n, phi), load(n * 3 // 2, phi), "queue", "mean", 4.0)
    assert LEAST <= hit <= MOST and stated > 0.95


@pytest.mark.repeated
def test_white_noise_against_dependent_rows() -> None:
    hit, stated = covered(load(300, 0.0), load(800, 0.8), "total", "mean", 2.0)
    assert LEAST <= hit <= MOST and stated > 0.95


@pytest.mark.repeated
def test_rows_taken_as_independent_would_not_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the blocks are for: each row a block of its own, and no look at the dependence."""
    from latdiag.stats import bootstrap
    from latdiag.stats.dependence import Spread, inner

    monkeypatch.setattr(bootstrap, "block_length", lambda terms: 1)
    monkeypatch.setattr(
        bootstrap, "sum_variance", lambda t: Spread(inner(t, t), int(t.size) - 1, False)
    )
    hit, _ = covered(load(1000, 0.9), load(1000, 0.9), "queue", "mean", 4.0)
    assert hit < 0.65


@pytest.mark.repeated
@pytest.mark.parametrize(("n", "phi"), [(800, 0.0), (2000, 0.5)])
def test_the_interval_of_a_difference_of_tails_covers(n: int, phi: float) -> None:
    """All of the tail moves with the shift. Measured 0.94 and 0.96."""
    hit, stated = covered(load(n, phi), load(n, phi), "total", "p95_tail", 5.0)
    assert LEAST - 0.01 <= hit <= MOST and stated > 0.9


@pytest.mark.repeated
def test_a_component_of_the_tail_covers_too() -> None:
    """Who is in the tail is drawn anew too. Measured 0.94."""
    hit, stated = covered(load(1200, 0.3), load(1200, 0.3), "queue", "p95_tail", 0.0)
    assert LEAST - 0.01 <= hit <= MOST and stated > 0.9


@pytest.mark.repeated
def test_several_runs_a_side_hold_what_changes_from_run_to_run() -> None:
    """6 runs a side that drift by 1 ms, measured 0.96; one run a side does not know, 0.16."""
    many = load(150, 0.3, runs=6, drift=1.0)
    hit, stated = covered(many, many, "decode", "mean", 0.0)
    assert LEAST <= hit <= MOST and stated == 1.0
    one = load(900, 0.3, drift=1.0)
    hit, _ = covered(one, one, "decode", "mean", 0.0)
    assert hit < 0.5


def test_two_runs_that_lie_apart_are_no_thousand_rows() -> None:
    """Two runs on a side: their rows are in blocks, but a step between them counts as
    dependence."""
    rng = np.random.default_rng(5)
    steady = [partition(rng.normal(20, 1, 300), rng.normal(50, 1, 300)) for _ in range(2)]
    apart = [partition(rng.normal(20 + 4 * k, 1, 300), rng.normal(50, 1, 300)) for k in (0, 1)]
    one = side(partition(rng.normal(20, 1, 301), rng.normal(50, 1, 301)))
    near, far = (components(one, side(*runs))["queue"] for runs in (steady, apart))
    assert near["b"]["n_effective"] > 300 and near["difference"]["lo"] is not None
    assert far["b"]["n_effective"] < 11 and far["difference"]["lo"] is None
    assert "independent; 11 are needed" in far["difference"]["method"]


# ---------------------------------------------------------------------- refusals
def test_a_tail_of_few_rows_is_refused() -> None:
    rng = np.random.default_rng(1)
    a, b = (side(*load(500, 0.0)(rng, 0.0)) for _ in "ab")
    for entry in (v for v in components(a, b, "p95_tail").values() if isinstance(v, dict)):
        found = entry["difference"]
        assert found["value"] is None and found["contains_zero"] is None
        assert "25 requests; 30 are needed" in found["refused"]
    assert components(a, b)["queue"]["difference"]["lo"] is not None


def test_few_or_dependent_rows_have_a_difference_but_no_interval() -> None:
    rng = np.random.default_rng(2)
    few = side(*load(20, 0.0)(rng, 0.0)), side(*load(400, 0.0)(rng, 0.0))
    found = components(*few)["queue"]["difference"]
    assert found["value"] is not None and found["lo"] is None
    assert "A: 20 requests; 30 are needed" in found["method"] and "B:" not in found["method"]
    walk = side(*load(200, 0.995)(rng, 0.0)), side(*load(200, 0.995)(rng, 0.0))
    found = components(*walk)["queue"]["difference"]
    assert found["lo"] is None and "independent; 11 are needed" in found["method"]


def test_the_same_run_on_both_sides_has_no_interval() -> None:
    rng = np.random.default_rng(3)
    one, other = (load(400, 0.0)(rng, 0.0)[0] for _ in "ab")
    for sides in ((side(one), side(one)), (side(one), side(one, other))):
        found = compared(*sides, (), 0)["components"]["mean"]["total"]["difference"]
        assert found["lo"] is None and "both sides are the same run" in found["method"]
    assert components(side(one), side(one))["total"]["difference"]["value"] == 0.0


def test_no_rows_give_no_components() -> None:
    empty = partition(np.zeros(0), np.zeros(0))
    full = partition(np.ones(50), np.ones(50))
    assert compared(side(empty), side(full), (), 0)["components"] == {}


# ---------------------------------------------------------------------- block length
def test_blocks_are_as_long_as_the_dependence() -> None:
    """The best length grows with phi as (phi / (1 - phi^2))^(2/3), and with n^(1/3)."""
    rng = np.random.default_rng(31)

    def usual(n: int, phi: float) -> float:
        return float(np.median([block_length(series(rng, n, phi)) for _ in range(40)]))

    assert usual(2000, 0.0) <= 3
    short, long = usual(2000, 0.5), usual(2000, 0.9)
    best = (2 * 2000) ** (1 / 3) * (1.5 / 1.0) ** (1 / 3)
    assert short == pytest.approx(best * (0.5 / 0.75) ** (2 / 3), rel=0.4)
    assert long == pytest.approx(best * (0.9 / 0.19) ** (2 / 3), rel=0.4)
    assert block_length(np.zeros(50)) == 1 and block_length(np.ones(2)) == 1
