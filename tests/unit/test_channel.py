"""How the processes talk: whole frames come out whatever pieces the bytes come in."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.processes.counters import Counters, Counts
from latdiag.runtime.channel import Frames, encode, wide_pipe

scalars = (
    st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=10)
    | st.none()
    | st.booleans()
)
records = st.tuples(
    st.integers(0, 6), scalars, scalars | st.dictionaries(st.text(max_size=5), scalars)
)
batches = st.lists(st.lists(records, max_size=6), max_size=6)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@given(batches, st.lists(st.integers(0, 2000), max_size=12))
def test_any_cut_gives_the_same_frames(sent: list[list[tuple[Any, ...]]], cuts: list[int]) -> None:
    frames = Frames()
    data = b"".join(encode(batch) for batch in sent)
    found = [batch for piece in pieces(data, cuts) for batch in frames.feed(piece)]
    assert found == sent


@given(batches.filter(bool), st.data())
def test_what_a_killed_sender_left_half_written_is_no_frame(
    sent: list[list[tuple[Any, ...]]], data: st.DataObject
) -> None:
    *whole, last = [encode(batch) for batch in sent]
    torn = last[: data.draw(st.integers(0, len(last) - 1))]
    assert list(Frames().feed(b"".join(whole) + torn)) == sent[:-1]


def test_a_byte_at_a_time() -> None:
    frames = Frames()
    data = encode([(1, b"x" * 300)]) + encode([]) + encode([(2, None)])
    found = [batch for i in range(len(data)) for batch in frames.feed(data[i : i + 1])]
    assert found == [[(1, b"x" * 300)], [], [(2, None)]]


def test_a_wide_pipe_carries_bytes_and_ends_with_its_writer() -> None:
    reading, writing = wide_pipe()
    try:
        assert os.write(writing, b"x" * 4096) == 4096
        os.close(writing)
        assert os.read(reading, 8192) == b"x" * 4096
        assert os.read(reading, 8192) == b""
    finally:
        os.close(reading)


def test_counters_are_shared_with_a_forked_process() -> None:
    counters = Counters()
    assert counters.read() == Counts(0, 0, 0, 0) and not counters.ready
    pid = os.fork()
    if not pid:
        counters.add_begun()
        counters.add_begun()
        counters.set_ready()
        os._exit(0)
    counters.set_done(5, 1, 2**40, 1)  # each number has one writer, and they do not meet
    os.waitpid(pid, 0)
    assert counters.read() == Counts(2, 5, 1, 2**40, 1) and counters.ready
