"""The SSE reader against a slow one that follows the standard word by word."""

from __future__ import annotations

import itertools
import json
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.dialects.sse import EVENT_LIMIT, LINE_LIMIT, EventStream, SseFault, TypedData
from tests.profiles import examples

FAST = examples(400)


def slow_events(stream: bytes) -> list[tuple[bytes, str]]:
    """WHATWG HTML 9.2.6 for a whole stream: (data, type) of every dispatched event."""
    text = stream.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    events = []
    data, event_type = "", ""
    for line in lines:
        if line == "":
            if data != "":
                name = event_type.encode("latin-1").decode("utf-8", "replace")
                events.append((data[:-1].encode("latin-1"), name or "message"))
            data, event_type = "", ""
        elif line[0] == ":":
            continue
        else:
            field, value = line.split(":", 1) if ":" in line else (line, "")
            if value[:1] == " ":
                value = value[1:]
            if field == "data":
                data += value + "\n"
            elif field == "event":
                event_type = value
    return events


def as_pairs(events: list[bytes]) -> list[tuple[bytes, str]]:
    return [(bytes(e), e.event_type if isinstance(e, TypedData) else "message") for e in events]


def read(pieces: list[bytes]) -> tuple[list[tuple[bytes, str]], EventStream]:
    stream = EventStream()
    return as_pairs([event for piece in pieces for event in stream.feed(piece)]), stream


LINES = [
    b"data: x", b"data:y", b"data", b"data: ", b"data:  z", b'data: {"a":1}', b"data: x\rdata: z",
    b"event: error", b"event:message", b"event", b"id: 1", b"retry: 5", b": comment", b"", b"",
    b"Data: no", b"datax: no", b" data: no", b"\xef\xbb\xbfdata: bom", b"event:  error",
    b"data: \xff\x00\x0b\x1c\x85",
]  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"\r\r", b""])
#: What one read may bring: a line or more with its end, or any bytes.
PIECES = st.lists(
    st.builds(bytes.__add__, st.sampled_from(LINES), ENDS)
    | st.sampled_from([b"data: 1\n\n", b"data: 1\n\ndata: 2\n\n", b"\n", b"\xef", b"\xbb\xbf"])
    | st.binary(max_size=4),
    max_size=30,
)


@FAST
@given(PIECES, st.lists(st.integers(0, 300), max_size=8))
def test_any_stream_in_any_pieces_is_read_as_the_standard_says(pieces, cuts):
    stream = b"".join(pieces)
    wanted = slow_events(stream)
    assert read(pieces)[0] == wanted
    assert read([stream])[0] == wanted
    assert read([stream[i : i + 1] for i in range(len(stream))])[0] == wanted
    bounds = itertools.pairwise([0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)])
    assert read([stream[a:b] for a, b in bounds])[0] == wanted


@FAST
@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20),
            min_size=1,
        )
    ),
    st.sampled_from(["\n", "\r", "\r\n"]),
    st.booleans(),
    st.integers(1, 9),
)
def test_what_was_written_is_what_is_read(events, end, space, size):
    lead = "data: " if space else "data:"
    for lines in events:
        # Without the optional space a leading one of the value would be taken for it.
        lines[:] = [line if space else line.lstrip(" ") for line in lines]
    text = "".join("".join(lead + line + end for line in lines) + end for lines in events)
    raw = text.encode()
    got, stream = read([raw[i : i + size] for i in range(0, len(raw), size)])
    assert got == [("\n".join(lines).encode(), "message") for lines in events]
    assert not stream.pending


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_is_complete_with_its_empty_line(end):
    stream = EventStream()
    assert stream.feed(b"data: 1" + end) == []
    assert stream.pending
    # After CR the event is out at once, not when the next byte shows that no LF belongs to it.
    assert stream.feed(end[:1]) == [b"1"]
    assert stream.feed(end[1:] + b"data: 2" + end + end) == [b"2"]
    assert not stream.pending


def test_each_part_of_a_whole_event_alone():
    body = json.dumps({"choices": [{"delta": {"content": "a\nb"}}]}).encode()
    whole = b"data: " + body + b"\n\n"
    stream = EventStream()
    assert stream.feed(whole) == [body]
    assert stream.feed(whole) == [body]
    assert stream.feed(whole + whole) == [body, body]
    assert stream.feed(whole[:-1]) == []
    assert stream.feed(b"\n" + whole) == [body, body]
    assert stream.feed(b"data: a\ndata: b\n\n") == [b"a\nb"]
    assert stream.feed(b"data\n\n") == [b""]
    assert stream.feed(b"data:  two spaces\n\n") == [b" two spaces"]
    assert stream.feed(b"data: x\rdata: y\n\n") == [b"x\ny"]
    assert stream.feed(b"data: x\n") + stream.feed(b"data: y\n\n") == [b"x\ny"]
    assert stream.feed(b"event: x\n\n") == []
    assert stream.feed(whole) == [body]


def test_types_other_than_message_come_along_and_survive_a_process_border():
    (event,) = EventStream().feed(b"event: error\ndata: {}\n\n")
    assert isinstance(event, TypedData)
    assert (event, event.event_type) == (b"{}", "error")
    copy = pickle.loads(pickle.dumps(event))
    assert (copy, copy.event_type) == (b"{}", "error")
    (plain,) = EventStream().feed(b"event: message\ndata: {}\n\n")
    assert type(plain) is bytes


def test_only_the_first_byte_order_mark_is_one():
    stream = EventStream()
    assert stream.feed(b"\xef") == []
    assert stream.feed(b"\xbb") == []
    assert stream.feed(b"\xbfdata: 1\n\n") == [b"1"]
    assert stream.feed(b"\xef\xbb\xbfdata: 2\n\n") == []


@pytest.mark.parametrize("rest", [b"data: x", b"data: x\n", b"x", b"event: error\n", b": c"])
def test_what_the_end_cuts_off_is_not_returned_but_told(rest):
    stream = EventStream()
    assert stream.feed(b"data: whole\n\n" + rest) == [b"whole"]
    assert stream.pending


def test_a_line_at_the_limit_passes_and_one_byte_more_does_not():
    line = b"data:" + b"x" * (LINE_LIMIT - 5)
    assert EventStream().feed(line + b"\n\n") == [line[5:]]
    with pytest.raises(SseFault):
        EventStream().feed(line + b"x\n\n")
    # On the short way too, which one whole event takes.
    used = EventStream()
    used.feed(b"data: 1\n\n")
    with pytest.raises(SseFault):
        used.feed(b"data: " + line + b"x\n\n")


def test_an_event_of_many_lines_has_a_limit_too():
    stream = EventStream()
    line = b"data:" + b"x" * (EVENT_LIMIT // 8 - 1) + b"\n"
    for _ in range(8):  # with the line feeds between them one byte below the limit
        stream.feed(line)
    with pytest.raises(SseFault, match="an event of more than 8 MiB"):
        stream.feed(line)


def test_a_fault_hands_over_what_was_complete_and_stays():
    stream = EventStream()
    with pytest.raises(SseFault, match="a line of more than 8 MiB") as fault:
        stream.feed(b"data: 1\n\ndata: 2\n\n" + b"x" * (LINE_LIMIT + 1))
    assert fault.value.completed == [b"1", b"2"]
    with pytest.raises(SseFault) as again:
        stream.feed(b"\n\ndata: 3\n\n")
    assert again.value.completed == []


@pytest.mark.parametrize("start", [b"", b"data: ", b":", b"data: 1\n\ndata: "])
def test_a_line_of_100_mb_is_given_up_at_the_limit(start):
    stream = EventStream()
    stream.feed(start)
    piece = b"x" * 65536
    taken = 0
    with pytest.raises(SseFault):
        for _ in range(100 * 16):
            stream.feed(piece)
            taken += len(piece)
    assert LINE_LIMIT - 2 * len(piece) <= taken <= LINE_LIMIT


def test_the_cost_of_a_long_line_does_not_grow_with_the_number_of_its_pieces():
    stream = EventStream()
    piece = b"x" * 128
    before = time.process_time()
    for _ in range(LINE_LIMIT // len(piece)):  # 65,536 pieces
        stream.feed(piece)
    # Copying the line at each piece would move 256 GiB: over 20 s on any machine.
    assert time.process_time() - before < 5
