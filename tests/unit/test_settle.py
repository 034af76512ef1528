"""Whatever claims say, parts add up to the nanosecond, and nothing is divided up twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.leaves import BIT, MASK
from latdiag.attribution.ledger import Claim, Ledger, Move, Origin, key_of, mask_of
from latdiag.attribution.settle import Whole, settle, unclaimed
from latdiag.model.components import COMPONENTS
from tests.profiles import examples

N = 3
ns = st.lists(st.integers(-(10**12), 10**12), min_size=N, max_size=N).map(
    lambda values: np.array(values, dtype=np.int64)
)
PARTED = COMPONENTS[:-1]
masks = st.sets(st.sampled_from(PARTED), min_size=1, max_size=3).map(
    lambda names: mask_of([name for name in PARTED if name in names])
) | st.sampled_from([bit for leaf, bit in BIT.items() if not leaf.startswith("unattributed")])
MERGED = ("queue", "prefill", "frontend")
A, D = Origin("A", "spans of ", "one"), Origin("D", "spans of ", "two")


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    amount, before = draw(ns), draw(st.none() | ns)
    late = draw(st.booleans())
    mask = draw(masks)
    return Claim(mask, amount, (draw(st.sampled_from([A, D])),), before, late)


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    merges = dict.fromkeys(MERGED, MERGED) if draw(st.booleans()) else {}
    return Ledger(draw(st.lists(claims(), max_size=6)), A, A, merges)


wholes = st.builds(Whole, ns, ns, ns, st.just(np.zeros(N, dtype=bool)))


@given(wholes, ledgers())
@examples(200)
def test_parts_add_up_exactly_in_every_interval(whole: Whole, ledger: Ledger) -> None:
    parts = settle(whole, ledger, 0)
    assert np.array_equal(sum(parts.parts.values()), whole.total)
    assert np.array_equal(sum(parts.inside("client_ttft").values()), whole.ttft)
    assert np.array_equal(sum(parts.inside("decode").values()), whole.stream)
    order = [name for name in COMPONENTS if name in parts.parts]
    assert list(parts.parts) == order
    for name, column in parts.parts.items():
        assert column.dtype == np.int64 and name in parts.sources


@given(wholes, ledgers())
@examples(200)
def test_every_claim_is_in_one_part_or_unattributed(whole: Whole, ledger: Ledger) -> None:
    parts = settle(whole, ledger, 0)
    left, _ = unclaimed(whole, ledger.claims, ledger.merges)
    assert np.array_equal(parts.parts["unattributed"], left)
    for name in set(parts.parts) - {"unattributed"}:
        mine = [c for c in ledger.claims if key_of(c.leaves, ledger.merges) == name]
        assert parts.sources[name].grade == max(c.origins[0].grade for c in mine)
        merged = set(ledger.merges.get(name, (name,)))
        inside = [c.ns for c in mine if not c.leaves & ~mask_of(sorted(merged))]
        assert np.array_equal(parts.parts[name], sum(inside))


def test_a_claim_on_leaves_of_two_components_is_nobodys_unless_they_are_merged() -> None:
    column = np.full(N, 7, dtype=np.int64)
    whole = Whole(column, column, column * 0, np.zeros(N, dtype=bool))
    both = Claim(mask_of(("queue", "prefill")), column, (A,))
    alone = settle(whole, Ledger([both], A, A), 0)
    assert alone.parts["unattributed"].tolist() == [7] * N and "queue" not in alone.parts
    merges = dict.fromkeys(("queue", "prefill"), ("queue", "prefill"))
    merged = settle(whole, Ledger([both], A, A, merges), 0)
    assert merged.parts["queue"].tolist() == [7] * N
    assert merged.sources["queue"].members == ("queue", "prefill")


def test_evidence_of_a_class_names_everything_once_and_has_the_worst_grade() -> None:
    column = np.ones(N, dtype=np.int64)
    whole = Whole(column * 3, column * 3, column * 0, np.zeros(N, dtype=bool))
    rest = Origin("C", "and what is left")
    origins = [(A,), (A, D), (rest,)]
    parts = settle(whole, Ledger([Claim(MASK["queue"], column, o) for o in origins], A, A), 0)
    assert parts.sources["queue"].evidence == "spans of one, two; and what is left"
    assert parts.sources["queue"].grade == "D"


def test_what_is_left_open_is_taken_from_one_and_given_to_another() -> None:
    column = np.full(N, 10, dtype=np.int64)
    whole = Whole(column * 2, column * 2, column * 0, np.zeros(N, dtype=bool))
    moves = [Move("queue", "prefill", 4.0), Move("queue", "network", np.full(N, 9.0))]
    ledger = Ledger(
        [Claim(MASK[name], column, (A,)) for name in ("queue", "prefill")],
        A,
        A,
        moves=moves,
        limits={"queue": column.astype(float)},
    )
    slack = settle(whole, ledger, 0).slack
    assert slack["queue"][0].tolist() == [10.0] * N  # no more than there is
    assert slack["prefill"][1].tolist() == [4.0] * N and slack["network"][1].tolist() == [9.0] * N
    assert not slack["queue"][1].any() and not slack["prefill"][0].any()


def test_draws_carry_what_stays_the_same_and_the_rest_follows_them() -> None:
    column = np.full(N, 10, dtype=np.int64)
    whole = Whole(column * 3, column * 3, column * 0, np.zeros(N, dtype=bool))
    drawn = np.array([column + 2, column - 1], dtype=float)
    claimed = [Claim(MASK["queue"], column, (A,), drawn=drawn), Claim(MASK["queue"], column, (A,))]
    parts = settle(whole, Ledger(claimed, A, A), 0)
    assert parts.draws["queue"][:, 0].tolist() == [22.0, 19.0]
    assert parts.draws["unattributed"][:, 0].tolist() == [8.0, 11.0]
    filled = settle(whole, Ledger(claimed, A, A, filled=frozenset({"client_ttft"})), 0)
    assert "unattributed" not in filled.draws


def test_a_leaf_is_what_is_stated_of_it_alone() -> None:
    column = np.ones(N, dtype=np.int64)
    whole = Whole(column * 9, column * 9, column * 0, np.zeros(N, dtype=bool))
    leaf = BIT["queue.admission"]
    claimed = [
        Claim(leaf, column, (A,), stated=True),
        Claim(leaf, column * 2, (D,), stated=True),
        Claim(leaf, column * 4, (A,)),
    ]
    parts = settle(whole, Ledger(claimed, A, A), 0)
    assert parts.leaves["queue.admission"].tolist() == [3] * N
    assert parts.parts["queue"].tolist() == [7] * N


def test_nothing_is_moved_from_a_class_to_itself() -> None:
    column = np.ones(N, dtype=np.int64)
    whole = Whole(column, column, column * 0, np.zeros(N, dtype=bool))
    with pytest.raises(AssertionError, match="queue"):
        settle(whole, Ledger([], A, A, moves=[Move("queue", "queue", 1.0)]), 0)
