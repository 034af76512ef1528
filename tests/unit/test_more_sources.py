"""A source more on the same requests never gives a coarser answer, and every sum stays exact."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from latdiag.attribution.accounts import Account, Rank, together
from latdiag.attribution.combine import members_of
from tests.profiles import examples

from .test_combine import NAMES, account, classes_of, truths

#: The order in which they are believed, and the grade that each gives.
RANKS = {Rank.SPANS: "A", Rank.REPLIES: "A", Rank.LAWS: "C", Rank.METRICS: "B"}


def _classes(edges: set[int]) -> list[list[str]]:
    """The components in time order, parted at these places."""
    return [list(NAMES[a:b]) for a, b in pairwise([0, *sorted(edges), len(NAMES)])]


@examples(100)
@given(
    truths(),
    st.dictionaries(
        st.sampled_from(list(RANKS)), st.sets(st.integers(1, len(NAMES) - 1)), min_size=2
    ),
    st.sampled_from([0.0, 0.01]),
)
def test_sources_together_part_all_that_any_of_them_parts(
    truth: NDArray[np.int64], edges: dict[Rank, set[int]], spread: float
) -> None:
    """Each source knows how long what lies between some instants of a request took; so together
    they know it between all of these. ``spread``: of the laws and metrics, in shares."""
    draws = spread * float(truth.sum(axis=1).mean())
    accounts = [
        Account(
            rank,
            account(
                *(truth, _classes(parted), RANKS[rank]),
                draws=draws * (rank in (Rank.LAWS, Rank.METRICS)),
            ),
        )
        for rank, parted in edges.items()
    ]
    whole = together(accounts)
    assert whole.caveats == ()
    wanted = {frozenset(each) for each in _classes(set().union(*edges.values()))}
    assert classes_of(whole.parts) == wanted
    columns = whole.parts.parts
    assert (np.sum(list(columns.values()), axis=0) == truth.sum(axis=1)).all()
    for name, column in columns.items():
        if name != "unattributed":
            own = [NAMES.index(member) for member in members_of(whole.parts, name)]
            assert (column == truth[:, own].sum(axis=1)).all()


@st.composite
def any_classes(draw: st.DrawFn) -> list[list[str]]:
    """The components parted in any way: what a probe cannot tell apart need not lie together."""
    owners = draw(st.lists(st.integers(0, 7), min_size=len(NAMES), max_size=len(NAMES)))
    groups: dict[int, list[str]] = {}
    for name, owner in zip(NAMES, owners, strict=True):
        groups.setdefault(owner, []).append(name)
    return list(groups.values())


@examples(100)
@given(truths(), st.dictionaries(st.sampled_from(list(RANKS)), any_classes(), min_size=2))
def test_a_source_more_never_leaves_fewer_parts_however_its_classes_cross(
    truth: NDArray[np.int64], classes: dict[Rank, list[list[str]]]
) -> None:
    accounts = [
        Account(rank, account(truth, parted, RANKS[rank])) for rank, parted in classes.items()
    ]
    whole = together(accounts)
    assert whole.caveats == ()
    most = max(len(classes_of(each.parts)) for each in accounts if each.parts is not None)
    assert len(classes_of(whole.parts)) >= most
    columns = whole.parts.parts
    assert (np.sum(list(columns.values()), axis=0) == truth.sum(axis=1)).all()


@examples(60)
@given(
    truths(),
    st.lists(st.sets(st.integers(1, len(NAMES) - 1)), min_size=2, max_size=4),
    st.integers(1, len(NAMES) - 2),
)
def test_a_source_that_contradicts_takes_nothing_apart_and_is_named(
    truth: NDArray[np.int64], edges: list[set[int]], at: int
) -> None:
    """The last one infers more of a component than all of the request."""
    accounts = [
        Account(rank, account(truth, _classes(parted), RANKS[rank]))
        for rank, parted in zip(RANKS, edges, strict=False)
    ]
    *sound, last = accounts
    assert last.parts is not None
    fine = account(truth, [[name] for name in NAMES], "C")
    fine.parts[NAMES[at]] += fine.total + 1_000_000
    whole = together([*sound, Account(last.rank, fine)])
    assert classes_of(whole.parts) == classes_of(together(sound).parts)
    (said,) = whole.caveats
    assert said.code == "LD430" and NAMES[at] in said.text
    assert (np.sum(list(whole.parts.parts.values()), axis=0) == truth.sum(axis=1)).all()
