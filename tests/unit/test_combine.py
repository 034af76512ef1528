"""Two accounts of the same requests as one: sums of the stronger, splits of the weaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from latdiag.attribution.accounts import Account, Rank, together
from latdiag.attribution.combine import combined, members_of
from latdiag.attribution.parts import Parts, Source
from latdiag.diagnosis.breakdown import breakdown
from latdiag.model.components import COMPONENTS
from tests.profiles import examples

#: What both accounts divide: all but what is left over.
NAMES = COMPONENTS[:-1]
EARLY = NAMES[:-1]


def account(
    truth: NDArray[np.int64],
    classes: Sequence[Sequence[str]],
    grade: str,
    row: NDArray[np.int64] | None = None,
    draws: float = 0.0,
) -> Parts:
    """An account that knows the sums of these classes. ``truth``: a column for each of NAMES."""
    n = len(truth)
    parts: dict[str, NDArray[np.int64]] = {}
    sources = {"unattributed": Source("A", "what is left")}
    for members in sorted(
        (sorted(c, key=NAMES.index) for c in classes), key=lambda c: NAMES.index(c[0])
    ):
        parts[members[0]] = np.sum([truth[:, NAMES.index(m)] for m in members], axis=0)
        merged = len(members) > 1
        sources[members[0]] = Source(
            "E" if merged else grade, f"{grade} knows", tuple(members) if merged else (), None
        )
    parts["unattributed"] = np.zeros(n, dtype=np.int64)
    early = {k: v for k, v in parts.items() if k not in ("decode", "unattributed")}
    return Parts(
        total=truth.sum(axis=1),
        ttft=truth[:, :-1].sum(axis=1),
        parts=parts,
        delayed=np.zeros(n, dtype=bool),
        left_out=0,
        sources=sources,
        within={"client_ttft": early, "decode": {k: v for k, v in parts.items() if k == "decode"}},
        row=np.arange(n) if row is None else row,
        draws={
            name: column + draws * np.linspace(-1, 1, 11)[:, None]
            for name, column in parts.items()
            if draws and name != "unattributed"
        },
    )


def classes_of(parts: Parts) -> set[frozenset[str]]:
    return {frozenset(members_of(parts, name)) for name in parts.parts if name != "unattributed"}


@st.composite
def partitions(draw: st.DrawFn) -> list[list[str]]:
    """EARLY in some classes, decode alone."""
    at = [draw(st.integers(0, 4)) for _ in EARLY]
    groups: dict[int, list[str]] = {}
    for name, place in zip(EARLY, at, strict=True):
        groups.setdefault(place, []).append(name)
    return [*groups.values(), ["decode"]]


@st.composite
def truths(draw: st.DrawFn) -> NDArray[np.int64]:
    seed = draw(st.integers(0, 2**32 - 1))
    scale = draw(st.lists(st.sampled_from([0, 10**4, 10**7, 10**9]), min_size=8, max_size=8))
    random = np.random.default_rng(seed)
    return random.integers(0, np.array(scale) + 1, size=(40, len(NAMES)))


@examples(200)
@given(truths(), partitions(), partitions())
def test_consistent_accounts_are_never_coarser_together(
    truth: NDArray[np.int64], ours: list[list[str]], theirs: list[list[str]]
) -> None:
    strong, weak = account(truth, ours, "A"), account(truth, theirs, "C")
    one = combined(strong, weak)
    assert not one.against
    found = classes_of(one.parts)
    # A refinement of the stronger's partition, exact to the nanosecond in each row.
    assert all(any(each <= whole for whole in classes_of(strong)) for each in found)
    assert sorted(m for each in found for m in each) == sorted(NAMES)
    for columns, total in (
        (one.parts.parts, strong.total),
        (one.parts.inside("client_ttft"), strong.ttft),
    ):
        assert (np.sum(list(columns.values()), axis=0) == total).all()
    # Each class has what it has in truth: both accounts were right.
    for name, column in one.parts.parts.items():
        if name != "unattributed":
            members = members_of(one.parts, name)
            own = np.sum([truth[:, NAMES.index(m)] for m in members], axis=0)
            assert (column == own).all()


@examples(100)
@given(truths(), partitions())
def test_a_weaker_account_that_knows_all_splits_all(
    truth: NDArray[np.int64], ours: list[list[str]]
) -> None:
    one = combined(account(truth, ours, "A"), account(truth, [[n] for n in NAMES], "C"))
    assert classes_of(one.parts) == {frozenset([name]) for name in NAMES}


@examples(100)
@given(truths(), partitions(), st.integers(0, len(EARLY) - 1))
def test_accounts_that_exclude_each_other_split_nothing_and_say_so(
    truth: NDArray[np.int64], ours: list[list[str]], at: int
) -> None:
    strong, weak = account(truth, ours, "A"), account(truth, [[n] for n in NAMES], "C")
    wrong = weak.parts[EARLY[at]] + strong.total + 1_000_000
    weak = replace(weak, parts={**weak.parts, EARLY[at]: wrong})
    one = combined(strong, weak)
    assert classes_of(one.parts) == classes_of(strong)
    assert [e for e in one.against if EARLY[at] in e.members]
    union = together([Account(Rank.SPANS, strong), Account(Rank.LAWS, weak)])
    (said,) = union.caveats
    assert said.code == "LD430"
    assert EARLY[at] in said.text and "spans" in said.text and "probe" in said.text


def _rows(n: int = 100) -> NDArray[np.int64]:
    random = np.random.default_rng(5)
    return random.integers(1, [2, 10**5, 10**5, 10**6, 10**8, 3 * 10**8, 10**7, 10**9], (n, 8))


def test_a_split_bears_the_doubt_of_the_weaker_and_ends_at_the_sum() -> None:
    truth = _rows()
    merged = [["client"], ["network"], ["gateway"], ["frontend"], ["queue", "prefill"],
              ["interconnect"], ["decode"]]  # fmt: skip
    strong = account(truth, merged, "A")
    weak = account(truth, [[n] for n in NAMES], "C", draws=float(truth.sum(axis=1).mean()))
    found = breakdown(combined(strong, weak).parts, "client_e2e", "mean")
    assert found is not None
    whole = breakdown(strong, "client_e2e", "mean")
    assert whole is not None
    both, queue, prefill = whole.shares["queue"], found.shares["queue"], found.shares["prefill"]
    assert queue.sum_ns + prefill.sum_ns == both.sum_ns
    assert both.hi is not None and queue.hi is not None and prefill.hi is not None
    assert queue.hi - queue.share > 3 * (both.hi - both.share)
    assert queue.hi <= both.hi + 1e-9 and prefill.hi <= both.hi + 1e-9
    assert (queue.grade, queue.members) == ("C", ())


def test_what_the_stronger_lacks_is_doubt_and_no_subtraction_out_of_nothing() -> None:
    truth = _rows()
    alone = [[n] for n in NAMES if n not in ("frontend", "queue", "prefill")]
    strong = account(truth, [*alone, ["frontend"], ["queue", "prefill"]], "A")
    # The stronger's frontend is unattributed instead.
    hidden = strong.parts.pop("frontend")
    inside = dict(strong.within["client_ttft"])
    inside["unattributed"] = inside.pop("frontend")
    strong = replace(
        strong,
        parts={**strong.parts, "unattributed": hidden},
        within={**strong.within, "client_ttft": inside},
    )
    weak = account(truth, [*alone, ["queue"], ["frontend", "prefill"]], "C")
    parts = combined(strong, weak).parts
    assert {"queue", "prefill"} <= set(parts.parts)
    assert (np.sum(list(parts.parts.values()), axis=0) == strong.total).all()
    found = breakdown(parts, "client_e2e", "mean")
    assert found is not None
    for name in ("queue", "prefill"):
        share = found.shares[name]
        true = truth[:, NAMES.index(name)].sum() / truth.sum()
        assert share.lo is not None and share.hi is not None
        assert share.lo <= true <= share.hi


@pytest.mark.parametrize("known", [10, 25])
def test_requests_that_few_spans_reach_keep_the_probe_s_answer(known: int) -> None:
    truth = _rows(34)
    some = np.arange(known)
    strong = account(truth[:known], [[n] for n in NAMES], "A", row=some)
    theirs = [["client"], ["network"], ["gateway"], ["frontend", "prefill", "interconnect"],
              ["queue"], ["decode"]]  # fmt: skip
    one = combined(strong, account(truth, theirs, "C"), is_of_all=True)
    assert len(one.parts.total) == 34
    assert classes_of(one.parts) == {frozenset(c) for c in theirs}
    assert (np.sum(list(one.parts.parts.values()), axis=0) == truth.sum(axis=1)).all()
    assert f"{known} of 34 requests" in one.parts.sources["queue"].evidence
    found = breakdown(one.parts, "client_e2e", "mean")
    assert found is not None and found.insufficient is None


def test_where_few_spans_contradict_the_probe_the_probe_is_said_to_be_used() -> None:
    truth = _rows(100)
    strong = account(truth[:10], [[n] for n in NAMES], "A", row=np.arange(10))
    weak = account(truth, [[n] for n in NAMES], "C")
    weak = replace(weak, parts={**weak.parts, "queue": weak.parts["queue"] + 10**10})
    union = together([Account(Rank.SPANS, strong), Account(Rank.LAWS, weak)])
    assert union.parts is weak and union.ranks == (Rank.LAWS,)
    assert (
        "use the probe's own stages, which the servers' spans contradict" in union.caveats[0].text
    )


def test_spans_of_most_requests_stand_for_all() -> None:
    truth = _rows(100)
    strong = account(truth[:70], [[n] for n in NAMES], "A", row=np.arange(70))
    weak = account(truth, [["client"], list(EARLY[1:]), ["decode"]], "C")
    one = combined(strong, weak, is_of_all=True)
    assert one.parts is strong and one.stands == (True, False)


def test_other_requests_are_not_combined() -> None:
    truth = _rows()
    strong = account(truth, [["client"], list(EARLY[1:]), ["decode"]], "A")
    weak = account(truth, [[n] for n in NAMES], "C", row=np.arange(50, 150))
    assert combined(strong, weak).parts is strong
