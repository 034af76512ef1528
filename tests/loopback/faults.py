"""What a server can do wrong with one request, and what latdiag has to make of it."""

from __future__ import annotations

import gzip
import json
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .peers import (
    DONE,
    ROLE,
    Asked,
    Script,
    Wire,
    chunked,
    delta,
    event,
    tokens,
    usage,
    well,
    whole,
)

#: What every reply below has in it unless it says otherwise.
TOKENS = 7
#: The load's --timeout: replies without an end are cut off by it.
TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Fault:
    """``error``: a pattern for the row's sentence. ``outputs``: arrivals with output, or None."""

    name: str
    script: Script
    outcome: str = "ok"
    error: str | None = None
    status: int | None = 200
    outputs: int | None = TOKENS
    row: Callable[[dict[str, Any]], object] | None = None


FAULTS: list[Fault] = []


def fault(
    outcome: str = "ok",
    error: str | None = None,
    status: int | None = 200,
    outputs: int | None = None,
    row: Callable[[dict[str, Any]], object] | None = None,
) -> Callable[[Script], Script]:
    """Enter a script into the table. Without ``outputs``: all tokens if ok, else none."""

    def enter(script: Script) -> Script:
        expected = (TOKENS if outcome == "ok" else 0) if outputs is None else outputs
        FAULTS.append(Fault(script.__name__, script, outcome, error, status, expected, row))
        return script

    return enter


def at_once(wire: Wire, *events: bytes) -> None:
    """A whole stream in one segment."""
    body = b"".join(chunked(e) for e in events)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n"
    wire.send(head + b"\r\n" + body + b"0\r\n\r\n")


# ---------------------------------------------------------------------- the status says it
def refusing(name: str, status: int, error: str, *headers: str, body: Any = None) -> None:
    """Enter a reply with a status other than 200."""
    said = {"error": {"message": "not now", "type": "x"}} if body is None else body
    text = said if isinstance(said, str) else json.dumps(said)

    def script(wire: Wire, _asked: Asked) -> None:
        wire.reply(status, text, "Content-Type: application/json", *headers)

    limited = status == 429 or (status == 503 and any("retry" in h.lower() for h in headers))
    outcome = "rate_limited" if limited else "http_error"
    waits = [h.partition(": ")[2] for h in headers if h.startswith("Retry-After")]
    seconds = float(waits[0]) if waits and re.fullmatch(r"[\d.]+", waits[0]) else None

    def row(found: dict[str, Any]) -> bool:
        stored = found["retry_after_s"]
        return stored == seconds if seconds is not None else stored != stored

    FAULTS.append(Fault(name, script, outcome, error, status, 0, row))


refusing("unauthorized", 401, "^HTTP 401: not now$")
refusing("forbidden", 403, "^HTTP 403: not now$")
refusing("not_found", 404, "^HTTP 404: not now$")
refusing("too_large", 413, "^HTTP 413$", body="")
refusing("unprocessable", 422, "^HTTP 422: too long$", body={"detail": [{"msg": "too long"}]})
refusing("broken_server", 500, "^HTTP 500: Internal Server Error$", body="Internal Server Error")
refusing("page_of_a_proxy", 502, "^HTTP 502$", body="<html><h1>Bad Gateway</h1></html>")
refusing("unavailable", 503, "^HTTP 503: not now$")
refusing("unavailable_for_a_time", 503, "^HTTP 503: not now$", "Retry-After: 0")
refusing("too_many", 429, "^HTTP 429: not now$", "Retry-After: 0.25")
refusing("too_many_without_a_word", 429, "^HTTP 429: not now$")
refusing("too_many_until_a_date", 429, "^HTTP 429", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT")
refusing("nothing", 204, "^HTTP 204$", body="")
refusing(
    "elsewhere",
    307,
    "^HTTP 307: redirect to http://127.0.0.1:9/v2 not followed$",
    "Location: http://user:password@127.0.0.1:9/v2?key=value",
)


# ---------------------------------------------------------------------- no stream
@fault("protocol", "sent an HTML page instead of an event stream$")
def html(wire: Wire, _asked: Asked) -> None:
    wire.reply(200, "<!doctype html><p>hello</p>", "Content-Type: text/html; charset=utf-8")


@fault("protocol", "sent one JSON document instead of an event stream$")
def json_document(wire: Wire, _asked: Asked) -> None:
    reply = {"choices": [{"message": {"role": "assistant", "content": "hi"}}]}
    wire.reply(200, json.dumps(reply), "Content-Type: application/json")


@fault("http_error", "^HTTP 200 with an error: no such model$")
def json_error(wire: Wire, _asked: Asked) -> None:
    wire.reply(200, '{"error": "no such model"}', "Content-Type: application/json")


@fault("protocol", "^the reply held no event$")
def empty(wire: Wire, _asked: Asked) -> None:
    wire.reply(200, b"", "Content-Type: text/event-stream")


@fault("protocol", "^the server switched protocols$", None)
def upgrade(wire: Wire, _asked: Asked) -> None:
    wire.send(
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05"
    )
    wire.hang()


@fault("protocol", "^broken HTTP reply", None)
def not_http(wire: Wire, _asked: Asked) -> None:
    wire.send(b"SSH-2.0-OpenSSH_9.6\r\n")
    wire.hang()


# ---------------------------------------------------------------------- broken streams
@fault("timeout", f"^the reply did not end within {TIMEOUT_S:.3g} s$", outputs=-1)
def endless(wire: Wire, _asked: Asked) -> None:
    wire.head()
    while True:
        wire.chunk(delta(content="w "))
        time.sleep(0.05)


@fault("timeout", "^the reply did not end within", outputs=3)
def stalls(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(ROLE, *tokens(3))
    wire.hang()


@fault("timeout", "^the reply did not end within", None)
def never_answers(wire: Wire, _asked: Asked) -> None:
    wire.hang()


@fault("timeout", "^the reply did not end within", None)
def half_a_head(wire: Wire, _asked: Asked) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nContent-")
    wire.hang()


@fault(outputs=TOKENS)
def bad_utf8(wire: Wire, _asked: Asked) -> None:
    at_once(
        wire, *tokens(TOKENS), b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n', DONE
    )


@fault(outputs=TOKENS)
def bad_json(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(*tokens(3), b"data: {'choices': []}\n\n", *tokens(4), delta("stop"), DONE)
    wire.end()


@fault(outputs=TOKENS)
def no_object(wire: Wire, _asked: Asked) -> None:
    at_once(wire, *tokens(TOKENS), b"data: [1, 2]\n\n", DONE)


@fault("protocol", r"^an event of 200000 bytes is not JSON$")
def deep_json(wire: Wire, _asked: Asked) -> None:
    at_once(wire, b"data: " + b"[" * 200_000 + b"\n\n", DONE)


@fault("http_error", "^error in the stream: server_error: out of blocks$", outputs=3)
def error_event(wire: Wire, _asked: Asked) -> None:
    wire.head()
    told = event(error={"message": "out of blocks", "type": "server_error"})
    wire.chunk(ROLE, *tokens(3), told, b"data: {rubbish after it\n\n", DONE)
    wire.end()


@fault("http_error", "^error in the stream: worker lost$", outputs=1)
def typed_error(wire: Wire, _asked: Asked) -> None:
    at_once(wire, *tokens(1), b'event: error\ndata: {"message": "worker lost"}\n\n')


@fault("protocol", "^broken HTTP reply: Invalid character in chunk size$", outputs=3)
def broken_chunks(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.send(b"".join(map(chunked, tokens(3))) + b"zz\r\n")  # what came before still counts
    wire.hang()


@fault("protocol", "^broken HTTP reply: Chunk size overflow$", outputs=1)
def chunk_beyond_64_bits(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.send(chunked(tokens(1)[0]) + b"10000000000000000\r\n")
    wire.hang()


@fault("cut", "^the server closed the connection in mid-reply$", outputs=1)
def chunk_of_2_to_the_63(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.send(b"8000000000000000\r\n" + tokens(1)[0])
    wire.close()


@fault("protocol", "^the reply announces more than 256 MiB$")
def length_of_2_to_the_62(wire: Wire, _asked: Asked) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4611686018427387904\r\n\r\n" + tokens(1)[0])
    wire.hang()


@fault("reset", "^the connection broke: Connection reset by peer, in mid-reply$", outputs=3)
def reset(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(ROLE, *tokens(3))
    time.sleep(0.05)
    wire.reset()


@fault("cut", "^the server closed the connection in mid-reply$", outputs=3)
def closed(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(ROLE, *tokens(3))
    wire.close()


@fault("cut", "^the server closed the connection in mid-reply$")
def closed_below_its_length(wire: Wire, _asked: Asked) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + ROLE)
    wire.close()


@fault("cut", "^the stream ended without finish_reason or .DONE.$", outputs=3)
def ends_in_the_midst(wire: Wire, _asked: Asked) -> None:
    at_once(wire, ROLE, *tokens(3), b'data: {"choices":[{"del')


@fault("protocol", "^the reply's headers exceed 64 KiB$", None)
def oversized_headers(wire: Wire, _asked: Asked) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\n" + b"X-Much: %s\r\n" % (b"x" * 1000) * 70 + b"\r\n")
    wire.hang()


@fault("protocol", "^the reply's headers exceed 64 KiB$", None)
def endless_header(wire: Wire, _asked: Asked) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nX-Much: ")
    while True:
        wire.send(b"x" * 65536)


@fault("protocol", "^the reply's headers exceed 64 KiB$", None)
def endless_patience(wire: Wire, _asked: Asked) -> None:
    while True:
        wire.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)


@fault("protocol", "^8 MiB of the reply hold no content$", outputs=1)
def endless_trailer(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.send(chunked(tokens(1)[0]) + b"0\r\nX-Much: ")
    while True:
        wire.send(b"x" * (1 << 20))


# ---------------------------------------------------------------------- encodings
def compressed(wire: Wire, asked: Asked, wbits: int, name: str) -> None:
    """Each event flushed, as a proxy does it that compresses streams."""
    packer = zlib.compressobj(wbits=wbits)
    wire.head(f"Content-Encoding: {name}")
    for data in whole(asked):
        wire.chunk(packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))
    wire.chunk(packer.flush())
    wire.end()


@fault()
def gzipped(wire: Wire, asked: Asked) -> None:
    compressed(wire, asked, 31, "gzip")


@fault()
def deflated(wire: Wire, asked: Asked) -> None:
    compressed(wire, asked, 15, "Deflate")


@fault("protocol", "^the reply says that it is compressed, but it is not$")
def not_gzip(wire: Wire, asked: Asked) -> None:
    wire.head("Content-Encoding: gzip")
    wire.chunk(*whole(asked))
    wire.end()


@fault("protocol", "^the compressed reply inflates beyond 16 MiB in one read$")
def bomb(wire: Wire, _asked: Asked) -> None:
    wire.reply(200, gzip.compress(bytes(48 << 20)), "Content-Encoding: gzip")


@fault("protocol", "^the reply is encoded as zstd, which was not requested$")
def unknown_encoding(wire: Wire, asked: Asked) -> None:
    wire.head("Content-Encoding: zstd")
    wire.chunk(*whole(asked))
    wire.end()


# ---------------------------------------------------------------------- odd, but right
@fault()
def interim(wire: Wire, asked: Asked) -> None:
    wire.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n")
    well(wire, asked)


@fault()
def ends_without_the_last_chunk(wire: Wire, asked: Asked) -> None:
    wire.head()
    wire.chunk(*whole(asked))
    wire.close()


@fault()
def done_without_a_finish(wire: Wire, _asked: Asked) -> None:
    at_once(wire, ROLE, *tokens(TOKENS), DONE)


@fault()
def finish_without_done(wire: Wire, _asked: Asked) -> None:
    at_once(wire, ROLE, *tokens(TOKENS), delta("stop"))


@fault(row=lambda row: row["token_source"] == "chunks" and row["tokens"] is None)
def no_usage(wire: Wire, _asked: Asked) -> None:
    at_once(wire, ROLE, *tokens(TOKENS), delta("stop"), DONE)


@fault(row=lambda row: row["token_source"] == "usage" and row["osl"] == 2 * TOKENS)
def more_tokens_than_events(wire: Wire, _asked: Asked) -> None:
    at_once(wire, ROLE, *tokens(TOKENS), delta("stop"), usage(5, 2 * TOKENS), DONE)


@fault(row=lambda row: row["headers_ns"] == row["arrivals_ns"][0])
def withheld_headers(wire: Wire, asked: Asked) -> None:
    time.sleep(0.05)
    first, *rest = whole(asked)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire.send(head + chunked(first))
    wire.chunk(*rest)
    wire.end()


@fault(row=lambda row: list(row["kinds"][:4]) == [1, 1, 1, 3])
def role_only(wire: Wire, asked: Asked) -> None:
    wire.head()
    wire.chunk(ROLE, ROLE, *whole(asked))
    wire.end()
