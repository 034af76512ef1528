"""Which stamps of a stream can be trusted: the kernel keeps one for all that a read brings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.dialects import DIALECTS
from latdiag.load.row import TOLERANCE_NS, Row
from latdiag.load.wire.exchange import Ended
from latdiag.model.records import OUTPUT_KINDS
from latdiag.stacks.signal import ReplyFields

US, MS = 1_000, 1_000_000
START = 10**15
#: REALTIME minus MONOTONIC.
OFFSET = 1_795_000_000 * 10**9
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def new_row() -> Row:
    begun = (1, 0, b"id", b"0" * 32, b"0" * 16, 0, 0, 0, "load", START, b"{}")
    row = Row(begun, DIALECTS["openai-chat"].reader(ReplyFields()), ())
    row.head(200, "", b"text/event-stream")
    return row


def taken(row: Row, stamp: int, floor: int, data: bytes, late: int = 50 * US) -> None:
    row.take(stamp + OFFSET, stamp + late, floor, data, OFFSET)


def marks(row: Row) -> list[tuple[int, bool]]:
    """(stamp, flagged) of each arrival that bears output."""
    output = {int(kind) for kind in OUTPUT_KINDS}
    return [
        (real - OFFSET, bool(flag))
        for real, kind, flag in zip(row.real_ns, row.kinds, row.censored, strict=True)
        if kind in output
    ]


# ---------------------------------------------------------------------- cases by hand
def test_tokens_that_are_read_one_by_one_are_exact_however_late_the_reads() -> None:
    row = new_row()
    for number in range(1, 6):
        taken(row, START + number * MS, 0, TOKEN, late=300 * MS)
    assert [flag for _, flag in marks(row)] == [False] * 5


def test_of_several_tokens_in_one_read_only_the_last_is_exact() -> None:
    row = new_row()
    taken(row, START + 50 * MS, 0, TOKEN * 3)
    assert marks(row) == [(START + 50 * MS, True)] * 2 + [(START + 50 * MS, False)]


def test_a_token_read_with_the_end_mark_is_not_exact() -> None:
    row = new_row()
    taken(row, START + 50 * MS, 0, TOKEN + DONE)
    assert marks(row) == [(START + 50 * MS, True)]


def test_a_token_read_with_the_beginning_of_the_next_event_is_not_exact() -> None:
    row = new_row()
    taken(row, START + 50 * MS, 0, TOKEN + TOKEN[:20])
    taken(row, START + 60 * MS, 0, TOKEN[20:])
    assert [flag for _, flag in marks(row)] == [True, False]


def test_a_token_read_with_the_end_of_the_framing_is_not_exact() -> None:
    row = new_row()
    taken(row, START + 50 * MS, 0, TOKEN)
    taken(row, START + 60 * MS, 0, TOKEN)
    row.end(Ended(status=200, done_ns=START + 60 * MS + 50 * US))
    assert [flag for _, flag in marks(row)] == [False, True]


def test_what_came_in_one_segment_came_together_however_late_it_was_read() -> None:
    row = new_row()
    for number in range(1, 4):
        taken(row, START + number * 200 * MS, 0, TOKEN * 30, late=40 * MS)
    assert sum(flag for _, flag in marks(row)) == 3 * 29
    row.end(Ended(status=200, done_ns=START + 900 * MS, stamped_each=True))
    assert not any(flag for _, flag in marks(row))


def test_a_floor_that_lies_near_makes_the_stamp_good_for_all() -> None:
    row = new_row()
    at = START + 50 * MS
    taken(row, at, at - TOLERANCE_NS, TOKEN * 3)
    assert [flag for _, flag in marks(row)] == [False] * 3
    at += 10 * MS
    taken(row, at, at - TOLERANCE_NS - 1, TOKEN * 2)
    assert [flag for _, flag in marks(row)][3:] == [True, False]


def test_the_read_before_is_a_floor_too() -> None:
    """What comes in this read came after the last byte of the one before."""
    row = new_row()
    taken(row, START + 50 * MS, 0, TOKEN)
    taken(row, START + 50 * MS + TOLERANCE_NS, 0, TOKEN * 2)
    assert [flag for _, flag in marks(row)] == [False] * 3


def test_a_role_before_the_token_of_a_read_takes_no_flag_from_it() -> None:
    row = new_row()
    taken(row, START + 50 * MS, 0, ROLE + TOKEN)
    assert marks(row) == [(START + 50 * MS, False)]


def test_a_token_in_two_reads_arrives_with_the_second() -> None:
    row = new_row()
    taken(row, START + 50 * MS, 0, TOKEN[:20])
    taken(row, START + 60 * MS, 0, TOKEN[20:])
    assert marks(row) == [(START + 60 * MS, False)]


def test_without_a_kernel_stamp_the_read_stands_for_the_arrival() -> None:
    row = new_row()
    row.take(0, START + 50 * MS, START + 50 * MS - 2 * TOLERANCE_NS, TOKEN * 2, OFFSET)
    assert [bool(flag) for flag in row.censored] == [True, False]
    assert list(row.real_ns) == [0, 0]


# ---------------------------------------------------------------------- what always holds
@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int, int]]]:
    """(the true arrivals, the reads as (how many they bring, stamp, floor)).

    A floor is anything that is not later than the first arrival of its read.
    """
    gaps = draw(st.lists(st.integers(1, 30 * US) | st.integers(1, 20 * MS), min_size=1))
    arrivals, now = [], START
    for gap in gaps:
        now += gap
        arrivals.append(now)
    reads, at = [], 0
    while at < len(arrivals):
        size = draw(st.integers(1, min(6, len(arrivals) - at)))
        first, last = arrivals[at], arrivals[at + size - 1]
        ages = [0, 1, 50 * US, TOLERANCE_NS // 2, TOLERANCE_NS, 5 * MS]
        floor = first - draw(st.sampled_from(ages)) if draw(st.booleans()) else 0
        reads.append((size, last, floor))
        at += size
    return arrivals, reads


@given(streams())
def test_what_is_not_flagged_is_right_and_what_is_flagged_is_bounded(
    stream: tuple[list[int], list[tuple[int, int, int]]],
) -> None:
    arrivals, reads = stream
    row = new_row()
    for size, stamp, floor in reads:
        taken(row, stamp, floor, TOKEN * size)
    found = iter(marks(row))
    truths = iter(arrivals)
    before = START
    for size, last, _ in reads:
        for _ in range(size):
            truth, (stamp, flagged) = next(truths), next(found)
            assert before < truth <= stamp == last, "in (the read before, this stamp]"
            if not flagged:
                assert stamp - truth <= TOLERANCE_NS
            if size == 1:
                assert not flagged and stamp == truth
        before = last
    assert next(found, None) is None


@given(streams())
def test_a_true_floor_flags_no_more_than_no_floor(
    stream: tuple[list[int], list[tuple[int, int, int]]],
) -> None:
    _, reads = stream
    with_floor, without = new_row(), new_row()
    for size, stamp, floor in reads:
        taken(with_floor, stamp, floor, TOKEN * size)
        taken(without, stamp, 0, TOKEN * size)
    flagged = [flag for _, flag in marks(with_floor)]
    assert all(b or not a for a, b in zip(flagged, (f for _, f in marks(without)), strict=True))
