"""The same reply in every form that HTTP and SSE allow: all of them must read alike."""

from __future__ import annotations

import json
import time

from .faults import TOKENS, at_once, fault
from .peers import DONE, ROLE, Asked, Wire, chunked, delta, event, tokens, well, whole


# ---------------------------------------------------------------------- HTTP
@fault()
def http_1_0(wire: Wire, asked: Asked) -> None:
    wire.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", *whole(asked))
    wire.close()


@fault("cut", "^the stream ended without finish_reason or .DONE.$", outputs=3)
def http_1_0_cut(wire: Wire, _asked: Asked) -> None:
    wire.send(b"HTTP/1.0 200 OK\r\n\r\n", ROLE, *tokens(3))
    wire.close()


@fault()
def connection_close(wire: Wire, asked: Asked) -> None:
    wire.head("Connection: close")
    wire.chunk(*whole(asked))
    wire.end()
    wire.hang()  # the closing is the client's business too


@fault()
def with_a_length(wire: Wire, asked: Asked) -> None:
    wire.reply(200, b"".join(whole(asked)), "Content-Type: text/event-stream")


@fault()
def surplus_reply(wire: Wire, asked: Asked) -> None:
    body = b"".join(whole(asked))
    second = b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nbad"
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body + second)
    wire.hang()


@fault()
def surplus_rubbish(wire: Wire, asked: Asked) -> None:
    body = b"".join(map(chunked, whole(asked))) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    wire.send(head + body + b"\x00data: {}\n\n")
    wire.hang()


@fault()
def trailers_and_extensions(wire: Wire, asked: Asked) -> None:
    wire.head("Trailer: X-Sum", "X-Padded:   a   ")
    for data in whole(asked):
        wire.send(b'%04X;quality="7";a=b\r\n%s\r\n' % (len(data), data))
    wire.send(b"000\r\nX-Sum: 1\r\n\r\n")


@fault()
def byte_by_byte(wire: Wire, asked: Asked) -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"".join(map(chunked, whole(asked))) + b"0\r\n\r\n"
    wire.send(*(raw[i : i + 1] for i in range(len(raw))))


# ---------------------------------------------------------------------- SSE
@fault(outputs=len(delta(content="w")) - 1)
def split_at_every_byte(wire: Wire, _asked: Asked) -> None:
    """One event for each place where it can be cut in two."""
    wire.head()
    whole_event = delta(content="w")
    for place in range(1, len(whole_event)):
        wire.chunk(whole_event[:place], whole_event[place:])
    wire.chunk(delta("stop"), DONE)
    wire.end()


@fault()
def crlf(wire: Wire, asked: Asked) -> None:
    wire.head()
    wire.chunk(*(data.replace(b"\n", b"\r\n") for data in whole(asked)))
    wire.end()


@fault()
def crlf_split_between(wire: Wire, asked: Asked) -> None:
    wire.head()
    for data in whole(asked):
        for line in data.splitlines():
            wire.chunk(line + b"\r", b"\n")
    wire.end()


@fault()
def cr(wire: Wire, asked: Asked) -> None:
    wire.head()
    wire.chunk(*(data.replace(b"\n", b"\r") for data in whole(asked)))
    wire.end()


@fault()
def several_data_lines(wire: Wire, asked: Asked) -> None:
    wire.head()
    for data in whole(asked)[:-1]:
        pretty = json.dumps(json.loads(data[6:]), indent=1)
        wire.chunk(b"".join(b"data:%s\n" % line.encode() for line in pretty.split("\n")) + b"\n")
    wire.chunk(DONE)
    wire.end()


@fault()
def comments(wire: Wire, asked: Asked) -> None:
    wire.head()
    wire.chunk(b"\xef\xbb\xbf: hello\n\n")
    for data in whole(asked):
        wire.chunk(b": keep-alive\n\n", b"id: 1\nretry: 5\nevent: message\nunknown\n" + data)
    wire.end()


# ---------------------------------------------------------------------- tokens
@fault(
    outputs=3,
    row=lambda row: (
        list(row["tokens"]) == [0, 3, 1, 3]
        and row["osl"] == TOKENS
        and row["token_source"] == "usage_continuous"
    ),
)
def several_tokens_in_a_chunk(wire: Wire, asked: Asked) -> None:
    assert asked.document["stream_options"]["continuous_usage_stats"] is True
    wire.head()
    wire.chunk(ROLE)
    for so_far in (3, 4, 7):
        choice = {"index": 0, "delta": {"content": "a b c "}, "finish_reason": None}
        counts = {"prompt_tokens": 5, "completion_tokens": so_far}
        wire.chunk(event(id="chatcmpl-1", choices=[choice], usage=counts))
    wire.chunk(delta("length"), DONE)
    wire.end()


@fault(
    outputs=2,
    row=lambda row: (
        list(row["tokens"]) == [2, 5] and row["osl"] == 7 and row["token_source"] == "ids"
    ),
)
def huge_token_ids(wire: Wire, asked: Asked) -> None:
    assert asked.document["return_token_ids"] is True
    many = [10**400, -1, 2**63, 0, 7]
    choices = [
        {"index": 0, "delta": {"content": "a"}, "token_ids": many[:2]},
        {"index": 0, "delta": {"content": "b"}, "token_ids": many},
    ]
    at_once(wire, *(event(id="chatcmpl-1", choices=[c]) for c in choices), delta("stop"), DONE)


@fault(outputs=2, row=lambda row: row["kinds"].tolist() == [2, 3])
def reasoning_first(wire: Wire, _asked: Asked) -> None:
    at_once(wire, delta(reasoning_content="hm"), delta(content="so"), delta("stop"), DONE)


@fault(row=lambda row: row["retry_after_s"] != row["retry_after_s"])
def late(wire: Wire, asked: Asked) -> None:
    time.sleep(0.2)
    well(wire, asked)
