"""A comparison's sums are exact, its sides can be swapped, its classes are those of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.parts import Parts, Source
from latdiag.diagnosis.breakdown import breakdown
from latdiag.diagnosis.common_classes import pooled, unified
from latdiag.diagnosis.comparison import apportioned
from latdiag.diagnosis.difference import RunRows, SideRows
from tests.profiles import examples

from .comparison_sides import (
    MERGED,
    NO_ROWS,
    PLAIN,
    any_parts,
    assert_swapped,
    compared,
    components,
    load,
    of,
    side,
)
from .split_rows import MS


# ---------------------------------------------------------------------- exactness
@examples(60)
@given(
    st.lists(any_parts(), min_size=1, max_size=2), st.lists(any_parts(), min_size=1, max_size=2)
)
def test_differences_of_components_add_up_to_that_of_the_whole(
    a: Sequence[Parts], b: Sequence[Parts]
) -> None:
    sides = side(*a), side(*b)
    for found in compared(*sides, (), 0)["components"].values():
        classes = {k: v for k, v in found.items() if k not in ("interval", "total")}
        exact = {
            name: Fraction(e["b"]["sum_ns"], e["b"]["n"]) - Fraction(e["a"]["sum_ns"], e["a"]["n"])
            for name, e in (classes | {"total": found["total"]}).items()
        }
        total = exact.pop("total")
        assert sum(exact.values()) == total
        whole = found["total"]["difference"]["rounded_ns"]
        rounded = {name: e["difference"]["rounded_ns"] for name, e in classes.items()}
        assert sum(rounded.values()) == whole == round(total)
        assert all(abs(rounded[name] - value) < 1 for name, value in exact.items())
        members = [m for k, e in classes.items() for m in e.get("members") or [k]]
        assert len(members) == len(set(members))
        for s in "ab":
            assert sum(e[s]["sum_ns"] for e in classes.values()) == found["total"][s]["sum_ns"]
            shares = [e[s]["share"] for e in classes.values() if e[s]["share"] is not None]
            assert not shares or sum(shares) == pytest.approx(1.0)


@examples(40)
@given(
    st.lists(any_parts(), min_size=1, max_size=2), st.lists(any_parts(), min_size=1, max_size=2)
)
def test_swapping_the_sides_negates_every_number(a: Sequence[Parts], b: Sequence[Parts]) -> None:
    assert_swapped(side(*a), side(*b))


def test_swapping_holds_for_intervals_of_every_kind() -> None:
    rng = np.random.default_rng(9)
    one, many = load(900, 0.4), load(200, 0.2, runs=5)
    a, b = side(*one(rng, 0.0)), side(*one(rng, 3.0))
    assert assert_swapped(a, b) == 6
    assert assert_swapped(a, side(*many(rng, 1.0))) == 6


@given(st.lists(st.fractions(-(10**9), 10**9, max_denominator=999), min_size=1, max_size=9))
def test_apportioned_numbers_add_up(exact: list[Fraction]) -> None:
    found = apportioned(exact)
    assert sum(found) == round(sum(exact))
    assert all(abs(whole - value) < 1 for whole, value in zip(found, exact, strict=True))
    assert apportioned([-value for value in exact]) == [-whole for whole in found]


def test_runs_of_a_side_in_any_order_give_the_same() -> None:
    rng = np.random.default_rng(4)
    runs, other = load(100, 0.3, runs=5)(rng, 0.0), side(*load(300, 0.3)(rng, 0.0))
    rows = [
        RunRows(parts, replace(NO_ROWS, sending=(("c", "", k, 0, 1),)))
        for k, parts in enumerate(runs)
    ]
    assert compared(SideRows(rows), other, (), 0) == compared(SideRows(rows[::-1]), other, (), 0)


def test_the_seed_moves_intervals_and_nothing_else() -> None:
    rng = np.random.default_rng(6)
    a, b = (side(*load(400, 0.3)(rng, s)) for s in (0.0, 1.0))
    one, again, other = (components(a, b, seed=s)["total"]["difference"] for s in (1, 1, 2))
    assert one == again
    assert one["value"] == other["value"] and one["lo"] != other["lo"]
    assert one["lo"] == pytest.approx(other["lo"], abs=0.1 * (one["hi"] - one["lo"]))


# ---------------------------------------------------------------------- classes
def classes_of(*named: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The unified classes of partitions that state these."""
    ones = np.ones(3, dtype=np.int64)
    return unified(
        [
            of(
                {members[0]: ones for members in each},
                {m[0]: Source("A", "x", m if len(m) > 1 else ()) for m in each},
            )
            for each in named
        ]
    )


def test_what_one_side_merges_is_merged_on_both() -> None:
    merged = [("client",), ("network",), ("queue", "prefill", "frontend", "gateway"), ("decode",)]
    apart = [("client",), ("network",), ("frontend",), ("queue",), ("prefill",), ("decode",)]
    assert classes_of(merged, apart) == classes_of(apart, merged)
    assert classes_of(merged, apart)[2] == ("gateway", "frontend", "queue", "prefill")
    assert classes_of(apart, apart) == apart
    # A gateway that is merged with the network drags in all that the other merges with it.
    way = [("client",), ("network", "gateway"), ("queue",), ("prefill", "frontend"), ("decode",)]
    assert classes_of(merged, way)[1] == ("network", "gateway", "frontend", "queue", "prefill")


def test_a_component_that_a_side_does_not_name_is_not_taken_for_nothing() -> None:
    plain = [("queue",), ("prefill",), ("decode",), ("unattributed",)]
    link = [("queue",), ("prefill",), ("interconnect",), ("decode",)]
    assert classes_of(plain, link) == [
        ("queue",), ("prefill",), ("interconnect", "decode"), ("unattributed",),
    ]  # fmt: skip
    # Where the other side says what it cannot be parted from, that is who holds it.
    merged = [("queue",), ("prefill", "interconnect"), ("decode",)]
    assert classes_of(plain, merged) == classes_of(merged, plain) == [
        ("queue",), ("prefill", "interconnect"), ("decode",), ("unattributed",),
    ]  # fmt: skip
    gateway = [("gateway", "prefill"), ("queue",), ("decode",)]
    assert classes_of(plain, gateway)[:2] == [("gateway", "prefill"), ("queue",)]


@examples(60)
@given(st.lists(any_parts(), min_size=1, max_size=4))
def test_every_partition_refines_the_classes_and_keeps_its_rows(runs: list[Parts]) -> None:
    classes = unified(runs)
    flat = [name for members in classes for name in members]
    assert len(flat) == len(set(flat))
    for parts in runs:
        for name in parts.parts:
            own = parts.sources[name].members or (name,)
            assert any(set(own) <= set(members) for members in classes)
        alone = pooled([parts], classes)
        order = np.argsort(parts.segment, kind="stable")
        assert (sum(alone.parts.values()) == parts.total[order]).all()
    together = pooled(runs, classes)
    assert int(together.total.sum()) == sum(int(parts.total.sum()) for parts in runs)
    assert together.segments == sum(parts.segments for parts in runs)
    assert breakdown(together, "client_e2e", "mean") is not None


def test_a_merged_class_is_the_sum_of_its_members_on_either_side() -> None:
    rng = np.random.default_rng(8)
    waits, works = (rng.integers(1, 10**8, (2, 200)) for _ in "ab")
    fine = of({"queue": waits[0], "prefill": works[0]}, {"queue": PLAIN, "prefill": PLAIN})
    coarse = of({"queue": waits[1] + works[1]}, {"queue": MERGED})
    found = components(side(fine), side(coarse))
    (entry,) = (v for k, v in found.items() if k not in ("interval", "total"))
    assert entry["members"] == ["gateway", "frontend", "queue", "prefill"]
    assert entry["a"]["sum_ns"] == int(waits[0].sum() + works[0].sum())
    assert (entry["a"]["grade"], entry["b"]["grade"]) == ("A", "E")


def test_a_negative_sum_settles_as_it_does_in_a_diagnosis() -> None:
    ones = np.full(100, 10 * MS)
    sources = {"queue": Source("C", "x", settles="prefill"), "prefill": PLAIN, "decode": PLAIN}
    parts = of({"queue": -ones // 10, "prefill": ones, "decode": ones}, sources)
    found = components(side(parts), side(of({k: v + 1 for k, v in parts.parts.items()}, sources)))
    diagnosed = breakdown(parts, "client_e2e", "mean")
    assert diagnosed is not None
    for name in ("queue", "prefill", "decode"):
        assert found[name]["a"]["sum_ns"] == diagnosed.shares[name].sum_ns


def test_what_evidence_leaves_open_and_laws_drawn_again_widen() -> None:
    rng = np.random.default_rng(12)
    a, b = (load(400, 0.0)(rng, s)[0] for s in (0.0, 0.0))
    n = len(a.total)
    plain = components(side(a), side(b))["queue"]["difference"]
    open_ = replace(a, slack={"queue": (np.full(n, 3.0 * MS), np.full(n, 5.0 * MS))})
    slack = components(side(open_), side(b))["queue"]["difference"]
    assert slack["lo"] == pytest.approx(plain["lo"] - 5.0, abs=1e-9)
    assert slack["hi"] == pytest.approx(plain["hi"] + 3.0, abs=1e-9)
    laws = rng.normal(0, 10 * MS, (50, 1)) + np.zeros((50, n))
    drawn = components(side(replace(a, draws={"queue": laws})), side(b))["queue"]["difference"]
    assert drawn["hi"] - drawn["lo"] > 30.0 > plain["hi"] - plain["lo"]
    assert drawn["value"] == slack["value"] == plain["value"]
