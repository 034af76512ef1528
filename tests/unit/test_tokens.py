from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.tokens import TokenCounts, settle_kinds, token_counts
from latdiag.model.records import OUTPUT_KINDS, Kind, TokenSource
from tests.profiles import examples

R, A, E, U, T = Kind.ROLE, Kind.ANSWER, Kind.OTHER, Kind.USAGE, Kind.REASONING
NONE = [None]


def test_token_ids_come_first():
    got = token_counts([R, A, A, U], [None, 3, 1, None], [0, 3, 4, 4], 4)
    assert got == TokenCounts([0, 3, 1, 0], TokenSource.IDS, 4, [R, A, A, U], 0)


def test_one_arrival_without_ids_makes_the_ids_useless():
    got = token_counts([R, A, A, U], [None, 3, None, None], [0, 3, 4, 4], 4)
    assert (got.counts, got.source) == ([0, 3, 1, 0], TokenSource.USAGE_CONTINUOUS)


def test_ids_without_any_usage():
    got = token_counts([A, A], [1, 2], [None, None], None)
    assert got == TokenCounts([1, 2], TokenSource.IDS, 3, [A, A], None)


def test_tokens_that_no_arrival_bore_are_told():
    got = token_counts([A, A], [1, 2], [None, None], 5)
    assert got == TokenCounts([1, 2], TokenSource.IDS, 5, [A, A], -2)


def test_ids_that_the_server_contradicts_are_not_used():
    # As from a server that repeats all ids so far in each chunk.
    got = token_counts([A, A, A], [1, 2, 3], [None] * 3, 3)
    assert got == TokenCounts([1, 1, 1], TokenSource.USAGE, 3, [A, A, A], 3)


def test_differences_of_continuous_usage():
    got = token_counts([R, A, A, U], NONE * 4, [0, 2, 3, 3], 3)
    assert got == TokenCounts([0, 2, 1, 0], TokenSource.USAGE_CONTINUOUS, 3, [R, A, A, U], 0)


def test_usage_that_grows_without_text_tells_of_a_token_without_text():
    # As vLLM streams half of a multi-byte character, then an unseen end of sequence.
    got = token_counts([R, U, A, A, U, U], NONE * 6, [0, 1, 2, 3, 4, 4], 4)
    assert (got.counts, got.off_by) == ([0, 1, 1, 1, 1, 0], 0)
    assert got.kinds == [R, A, A, A, A, U]


def test_a_role_event_that_counts_the_first_token_already_does_not_bear_it():
    got = token_counts([R, A, A, U], NONE * 4, [1, 2, 3, 3], 3)
    assert (got.counts, got.kinds) == ([0, 2, 1, 0], [R, A, A, U])


def test_a_token_counted_by_the_summary_only_belongs_to_no_arrival():
    got = token_counts([A, A, U], NONE * 3, [1, 2, 3], 3)
    assert (got.counts, got.osl, got.off_by) == ([1, 1, 0], 3, -1)


@pytest.mark.parametrize("cumulative", [[3, 3, 3], [None, None, 3], [3, 2, 3], [0, 1, 3]])
def test_usage_that_does_not_grow_with_the_output_counts_nothing(cumulative):
    got = token_counts([A, A, A, U], NONE * 4, [*cumulative, 7], 7)
    assert (got.counts, got.source, got.osl) == (None, TokenSource.USAGE, 7)


def test_a_total_equal_to_the_arrivals_proves_one_token_each():
    got = token_counts([R, T, A, E, U], NONE * 5, [*NONE * 4, 2], 2)
    assert got == TokenCounts([0, 1, 1, 0, 0], TokenSource.USAGE, 2, [R, T, A, E, U], None)


@pytest.mark.parametrize("total", [1, 3, 24])
def test_any_other_total_leaves_the_counts_open(total):
    got = token_counts([R, A, A, U], NONE * 4, NONE * 4, total)
    assert (got.counts, got.source, got.osl) == (None, TokenSource.USAGE, total)


def test_chunks_are_not_tokens():
    got = token_counts([R, A, A], NONE * 3, NONE * 3, None)
    assert got == TokenCounts(None, TokenSource.CHUNKS, None, [R, A, A], None)


def test_an_empty_reply():
    assert token_counts([], [], [], None).source is TokenSource.CHUNKS
    assert token_counts([R, U], NONE * 2, [0, 0], 0).counts == [0, 0]


@pytest.mark.parametrize(
    ("kinds", "ids", "wanted"),
    [
        ([R, E, A], [None, 1, 1], [R, A, A]),
        ([R, E, T, E, A, E], [None, 1, 1, 1, 1, 1], [R, T, T, T, A, A]),
        ([R, E], [None, 1], [R, A]),
        ([R, A], [2, 1], [A, A]),
        ([A, E, U], [1, 0, None], [A, E, U]),
        ([A, Kind.ERROR], [1, 1], [A, Kind.ERROR]),
    ],
)
def test_tokens_without_text_are_output_of_the_kind_around_them(kinds, ids, wanted):
    assert settle_kinds(kinds, {i for i, n in enumerate(ids) if n}) == wanted


ARRIVAL = st.tuples(
    st.sampled_from(list(Kind)), st.none() | st.integers(0, 5), st.none() | st.integers(0, 40)
)


@examples(500)
@given(st.lists(ARRIVAL, max_size=12), st.none() | st.integers(0, 30))
def test_counts_never_contradict_the_total_and_lie_on_output_only(arrivals, total):
    kinds, ids, cumulative = ([list(column) for column in zip(*arrivals, strict=True)]
                              if arrivals else ([], [], []))  # fmt: skip
    got = token_counts(kinds, ids, cumulative, total)
    assert len(got.kinds) == len(kinds)
    if total is not None:
        assert got.osl == total
    if got.counts is not None:
        assert len(got.counts) == len(kinds)
        assert got.osl is not None and sum(got.counts) <= got.osl
        bearing = {kind for kind, n in zip(got.kinds, got.counts, strict=True) if n}
        assert bearing <= set(OUTPUT_KINDS)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=20))
def test_all_sources_agree_where_all_are_there(per_arrival):
    n = len(per_arrival)
    so_far = [sum(per_arrival[: i + 1]) for i in range(n)]
    kinds, nothing = [A] * n, [None] * n
    by_ids = token_counts(kinds, per_arrival, nothing, None)
    by_usage = token_counts(kinds, nothing, so_far, so_far[-1])
    assert by_ids.counts == by_usage.counts == per_arrival
    assert by_ids.osl == by_usage.osl == sum(per_arrival)
