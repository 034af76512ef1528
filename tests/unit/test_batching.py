"""Streams that something holds back, and all that looks like it and is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.spans.batching import Batching, batching
from latdiag.measurement.chunks import TOGETHER_NS, Chunks, chunks_of, joined_chunks
from latdiag.measurement.streams import read_streams
from latdiag.model.records import Kind
from latdiag.store.batch import Batch, Ints, Lists

MS = 1_000_000
ROWS = 12

Made = list[float]
Row = dict[str, Any]


def evenly(chunks: int = 64, step_ms: float = 6.0) -> Made:
    """When a server makes its chunks, ms after the first."""
    return [step_ms * at for at in range(chunks)]


def through_a_timer(made: Made, every_ms: float = 200.0, since_ms: float = 125.0) -> Made:
    """When they come through a gateway that sends what it has whenever its timer fires."""
    return [since_ms + every_ms * np.ceil(max(at - since_ms, 0) / every_ms) for at in made]


def row(made: Made, **given_: Any) -> Row:
    n = len(made)
    found: Row = {
        "arrivals_ns": [10**15 + round(at * MS) for at in made],
        "kinds": [int(Kind.ANSWER)] * n,
        "tokens": [1] * n,
        "censored": [False] * n,
        "clock_step": False,
        "out_of_order": 0,
        "stamp_source": "kernel",
    } | given_
    return found | {"osl": sum(found["tokens"])}


def batch(rows: Sequence[Row]) -> Batch:
    kinds = {"arrivals_ns": np.int64, "tokens": np.int32, "kinds": np.int8, "censored": np.bool_}
    offsets = np.cumsum([0, *(len(one["kinds"]) for one in rows)]).astype(np.int64)
    every = np.ones(len(rows), dtype=bool)

    def column(name: str) -> Any:
        return np.array([one[name] for one in rows])

    return Batch(
        len(rows),
        {name: Ints(column(name).astype(np.int64), every) for name in ("osl", "out_of_order")},
        {"clock_step": column("clock_step")},
        {
            "request_id": np.array([f"r{at}" for at in range(len(rows))], dtype=object),
            "stamp_source": column("stamp_source").astype(object),
        },
        {
            name: Lists(np.array([x for one in rows for x in one[name]], kind), offsets, every)
            for name, kind in kinds.items()
        },
    )


def chunks(batches: Sequence[Batch]) -> Chunks:
    return joined_chunks([chunks_of(one, read_streams(one)) for one in batches])


def judged(rows: Sequence[Row], decode_ms: float = 63 * 6.0) -> Batching | None:
    came = chunks([batch(rows[:5]), batch(rows[5:])] if len(rows) > 5 else [batch(rows)])
    return batching(came, np.full(len(came.chunks), round(decode_ms * MS)))


# ---------------------------------------------------------------------- what it is
def test_a_gateway_with_a_timer_is_found_with_its_period() -> None:
    """64 chunks 6 ms apart, sent whenever 200 ms are over: after 125, 325 and 525 ms."""
    found = judged([row(through_a_timer(evenly()))] * ROWS)
    assert found is not None
    assert (found.requests, found.held) == (ROWS, ROWS)
    assert found.every_ns == pytest.approx(200 * MS)
    assert found.step_ns == pytest.approx(6 * MS)
    assert found.tokens == pytest.approx(64 / 3)
    assert found.share == pytest.approx(61 / 63)


def test_chunks_of_one_batch_may_come_a_little_apart() -> None:
    spread = [at + 0.001 * i for i, at in enumerate(through_a_timer(evenly()))]
    assert judged([row(spread)] * ROWS) is not None


def test_a_reply_that_is_held_until_its_end_comes_whole() -> None:
    found = judged([row([378.0] * 64)] * ROWS)
    assert found is not None and found.share == 1.0
    assert found.tokens == 64 and found.every_ns == pytest.approx(6 * MS * 64)


def test_tokens_are_counted_where_a_chunk_holds_several() -> None:
    """Speculative decoding, three tokens a step of 18 ms, behind the same gateway."""
    made = through_a_timer(evenly(40, 18.0))
    found = judged([row(made, tokens=[3] * 40)] * ROWS, decode_ms=39 * 18.0)
    assert found is not None
    batches = len(set(made))
    assert found.tokens == pytest.approx(3 * 40 / batches)
    assert found.step_ns == pytest.approx(6 * MS)


def test_what_was_read_late_hides_nothing_of_the_others() -> None:
    """A whole batch of a request was read late: that request proves nothing, the others do."""
    late = row(through_a_timer(evenly()), censored=[True] * 20 + [False] * 44)
    found = judged([late, row(through_a_timer(evenly()))] * ROWS)
    assert found is not None and (found.requests, found.held) == (ROWS, ROWS)
    assert judged([late] * ROWS) is None


# ---------------------------------------------------------------------- what it is not
def late_reader(made: Made) -> Row:
    """A reader that is busy for 100 ms at a time: every chunk bears the stamp of the last one
    that it read with it, and all but those are known to be wrong."""
    read = [100.0 * np.ceil(at / 100.0) for at in made]
    last = [a != b for a, b in zip(read, [*read[1:], None], strict=True)]
    return row(read, censored=[not is_last for is_last in last])


def under_load(made: Made) -> Row:
    """An event loop that hands out two chunks at once half of the time, and sometimes three."""
    joined = [made[min(len(made) - 1, i | 1)] if i % 8 else made[i] for i in range(len(made))]
    joined[20] = joined[21] = joined[22]
    return row(joined)


#: A direct stream, or one of which nothing can be said.
INNOCENT: dict[str, Callable[[], Row]] = {
    "direct": lambda: row(evenly()),
    "several tokens a chunk": lambda: row(evenly(), tokens=[4] * 64),
    "under load": lambda: under_load(evenly()),
    "late reader": lambda: late_reader(evenly()),
    "stamped in user space": lambda: row(through_a_timer(evenly()), stamp_source="user"),
    "a lost segment": lambda: row(through_a_timer(evenly()), out_of_order=3),
    "clock stepped": lambda: row(through_a_timer(evenly()), clock_step=True),
    # One prompt of another request in between: a stall of the engine, then its ordinary steps.
    "stalls": lambda: row([0.5 * at + 150.0 * (at // 16) for at in range(64)]),
    # Sent again after 200 ms, and all that had waited behind it at once.
    "one retransmission": lambda: row([at if not 90 < at < 290 else 290.0 for at in evenly()]),
    "a short reply": lambda: row([30.0] * 6),
}


@pytest.mark.parametrize("name", INNOCENT)
def test_no_gateway_is_blamed(name: str) -> None:
    assert judged([INNOCENT[name]()] * ROWS) is None


def test_a_loop_that_is_late_by_milliseconds_is_no_gateway() -> None:
    """Steps of 1.2 ms, handed out by fives: every 6 ms. By twenties it is one: every 24 ms."""
    made = evenly(200, 1.2)
    for size, found in ((5, False), (20, True)):
        joined = [made[at // size * size + size - 1] for at in range(200)]
        assert (judged([row(joined)] * ROWS, decode_ms=199 * 1.2) is not None) == found


def test_a_server_that_is_as_fast_itself_is_believed() -> None:
    """It says that it made 64 tokens in 20 ms: they may well have left together."""
    assert judged([row(through_a_timer(evenly()))] * ROWS, decode_ms=20.0) is None


def test_without_a_word_of_the_server_nothing_is_said() -> None:
    assert judged([row(through_a_timer(evenly()))] * ROWS, decode_ms=0.0) is None


def test_a_few_requests_are_no_habit() -> None:
    held, direct = row(through_a_timer(evenly())), row(evenly())
    assert judged([held] * 4) is None
    assert judged([held] * 6 + [direct] * 6) is None
    assert judged([held] * 7 + [direct] * 5) is not None


def test_nothing_comes_of_nothing() -> None:
    came = chunks([])
    assert batching(came, np.zeros(0, dtype=np.int64)) is None


@given(
    st.lists(st.integers(1, 3), min_size=3, max_size=40),
    st.floats(1.1, 50.0),
    st.lists(st.booleans(), min_size=120, max_size=120),
)
def test_groups_of_three_are_never_blamed(
    sizes: list[int], step_ms: float, late: list[bool]
) -> None:
    """However chunks are joined by twos and threes, and whichever of them were read late."""
    made, at = [], 0
    for size in sizes:
        at += size
        made += [at * step_ms] * size
    decode_ms = (len(made) - 1) * step_ms
    for censored in ([False] * len(made), late[: len(made)]):
        assert judged([row(made, censored=censored)] * ROWS, decode_ms=decode_ms) is None


@given(
    st.integers(16, 200),
    st.floats(3.5, 40.0),
    st.floats(6.0, 40.0),
    st.floats(0.0, 1.0),
)
def test_any_timer_of_six_steps_and_more_is_found(
    chunks: int, step_ms: float, steps: float, phase: float
) -> None:
    every = steps * step_ms
    made = through_a_timer(evenly(chunks, step_ms), every, phase * every)
    found = judged([row(made)] * ROWS, decode_ms=(chunks - 1) * step_ms)
    assert found is not None
    assert found.step_ns == pytest.approx(step_ms * MS, rel=1e-3)
    if len(set(made)) >= 3:
        assert found.every_ns == pytest.approx(every * MS, rel=1e-3)


def test_the_bound_of_together_is_where_it_says() -> None:
    for apart, found in ((TOGETHER_NS, True), (TOGETHER_NS + 1, False)):
        made = [200.0 * (at // 16) + (at % 16) * apart / MS for at in range(64)]
        assert (judged([row(made)] * ROWS) is not None) == found
