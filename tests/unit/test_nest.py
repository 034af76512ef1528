"""One rule of what lies inside what: the same for lengths and for intervals in time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.leaves import BIT, HIDDEN_BITS, visible
from latdiag.attribution.nest import (
    Intervals,
    Length,
    narrower,
    nested,
    remaining,
    union,
)
from latdiag.stacks.signal import of
from tests.profiles import examples

LEAVES = tuple(bit for bit in BIT.values() if not bit & HIDDEN_BITS)
covers = st.integers(1, 2**6 - 1).map(
    lambda n: union(b for i, b in enumerate(LEAVES[8:14]) if n >> i & 1)
)
lengths = st.lists(
    st.builds(Length, covers, st.just(0), st.sampled_from(["a", "b"]), st.integers(0, 9)),
    max_size=6,
)


def length(*names: str, rest: str = "", server: str = "", size: float = 1.0) -> Length:
    return Length(visible(of(*names)), BIT[rest] if rest else 0, server, size)


def test_a_narrower_length_of_the_same_server_is_inside() -> None:
    nesting = nested([length("frontend", "queue", "prefill"), length("queue"), length("prefill")])
    assert nesting.inside == {1: (), 2: (), 0: (1, 2)} and not nesting.crossed


def test_of_the_same_leaves_the_shorter_is_inside_the_longer() -> None:
    nesting = nested([length("decode", size=2.0), length("decode", size=1.0)])
    assert nesting.inside == {1: (), 0: (1,)}


def test_two_that_overlap_are_told_by_what_holds_both() -> None:
    before, after = length("frontend", "queue"), length("queue", "prefill")
    whole = length("frontend", "queue", "prefill")
    assert nested([before, after, whole]).inside == {2: ()}
    # Where nothing holds both, the narrower is what is known.
    assert nested([before, after]).inside == {0: ()}
    # And where their overlap is known by itself, nothing is open.
    assert len(nested([before, after, whole, length("queue")]).inside) == 4


def test_another_server_is_inside_with_all_that_it_did_or_not_at_all() -> None:
    waits = length("frontend", "queue", "prefill", "decode", server="gateway")
    behind = [length("queue", server="engine"), length("queue", "prefill", server="engine")]
    assert set(nested([waits, *behind]).inside[0]) == {1, 2}
    called_after = length("frontend", "queue", server="gateway")
    assert nested([called_after, *behind]).inside[0] == ()


@given(lengths)
@examples(200)
def test_what_is_used_and_what_is_not_are_all_there_is(found: list[Length]) -> None:
    nesting = nested(found)
    assert nesting.inside.keys() | nesting.crossed.keys() == set(range(len(found)))
    assert not nesting.inside.keys() & nesting.crossed.keys()
    for at, within in nesting.inside.items():
        for inner in within:
            assert not found[inner].covers & ~found[at].covers
            assert at not in nesting.inside[inner]


@given(lengths)
@examples(200)
def test_no_leaf_of_one_server_is_left_to_two_that_do_not_hold_each_other(
    found: list[Length],
) -> None:
    nesting = nested(found)
    for at, within in nesting.inside.items():
        for other in nesting.inside:
            apart = other not in within and at not in nesting.inside[other] and other != at
            if apart and found[other].server == found[at].server:
                mine, theirs = (
                    found[k].covers & ~union(found[i].covers for i in nesting.inside[k])
                    for k in (at, other)
                )
                assert not mine & theirs


@given(st.lists(covers, min_size=1, max_size=6, unique=True))
@examples(200)
def test_intervals_of_one_server_leave_what_lengths_leave(sets: list[int]) -> None:
    """Of sets that nest, the leaves that are left are the same with places in time and without."""
    chain = [union(sets[: n + 1]) for n in range(len(sets))]
    chain = list(dict.fromkeys(chain))
    nesting = nested([Length(each, 0, "", 1.0) for each in chain])
    n = len(chain)
    row, one = np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64)
    start = np.arange(n)[::-1].astype(np.int64)
    intervals = Intervals(
        row,
        start,
        2 * n - start,
        np.array(chain),
        row,
        one << np.arange(n),
        (2 << np.arange(n)) - 1,
    )
    inside = narrower(intervals).tolist()
    for at, within in nesting.inside.items():
        assert inside[at] == union(chain[k] for k in within)
        assert remaining(chain[at], inside[at], 0) == chain[at] & ~inside[at]


def test_what_is_left_is_the_rests_and_of_nothing_hidden() -> None:
    everything = visible(of("frontend", "queue", "prefill"))
    front = BIT["frontend.parse"]
    assert remaining(everything | HIDDEN_BITS, visible(of("queue", "prefill")), front) == front
    assert remaining(visible(of("queue")), visible(of("queue")), 0) == 0
