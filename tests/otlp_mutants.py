"""Bodies of exports that are changed in their structure, and metrics likewise; by a seed."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.loopback.otlp_sender import export

#: Fields that are messages, by the path of field numbers that leads to the message.
_INNER: dict[tuple[int, ...], tuple[int, ...]] = {
    (): (1,),
    (1,): (1, 2),
    (1, 1): (1,),
    (1, 1, 1): (2,),
    (1, 2): (1, 2),
    (1, 2, 2): (9, 15),
    (1, 2, 2, 9): (2,),
}
Field = list[Any]  # number, wire type, payload: bytes, or fields of a message


def varint(number: int, size: int = 0) -> bytes:
    """A number, padded to ``size`` bytes as no encoder does."""
    made = bytearray()
    while number > 127 or len(made) + 1 < size:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


def _read(body: bytes, path: tuple[int, ...] = ()) -> list[Field]:
    fields, at = [], 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(body):
        key = number()
        field, wire, start = key >> 3, key & 7, at
        if wire == 2:
            size = number()
            payload: Any = body[at : at + size]
            at += size
            if field in _INNER.get(path, ()):
                payload = _read(payload, (*path, field))
        else:
            at = at + (8 if wire == 1 else 4) if wire in (1, 5) else at
            if wire == 0:
                number()
            payload = body[start:at]
        fields.append([field, wire, payload])
    return fields


def _written(draw: random.Random, fields: list[Field], wild: float) -> bytes:
    made = b""
    for field, wire, payload in fields:
        inner = _written(draw, payload, wild) if isinstance(payload, list) else payload
        size = draw.randrange(11) if draw.random() < wild else 0
        made += varint(field << 3 | wire, size if draw.random() < 0.3 else 0)
        if wire == 2:
            length = len(inner)
            if draw.random() < wild:
                length = max(0, length + draw.choice((-1, 1, -5, 300, 2**31, 2**63)))
            made += varint(length, size)
        made += inner
    return made


def _messages(fields: list[Field]) -> list[list[Field]]:
    """The message and all inside of it."""
    found = [fields]
    for _, _, payload in fields:
        if isinstance(payload, list):
            found += _messages(payload)
    return found


def _changed(draw: random.Random, fields: list[Field]) -> None:
    """One change somewhere in the structure."""
    message = draw.choice(_messages(fields))
    at = draw.randrange(len(message) + 1)
    chosen = message[draw.randrange(len(message))] if message else [1, 0, b"\x00"]
    kind = draw.randrange(9)
    if kind == 0:  # a group, closed or not, or closed by another
        ends = draw.choice((b"\x7c", b"\x74", b"", b"\x08\x01\x7c", b"\x7b" * 200 + b"\x7c" * 200))
        message.insert(at, [15, 3, ends])
    elif kind == 1:  # a number of any length
        message.insert(
            at, [draw.choice((1, 2, 6, 999)), 0, b"\xff" * draw.randrange(12) + b"\x01"]
        )
    elif kind == 2:  # the same again
        message[at:at] = [list(chosen) for _ in range(draw.choice((1, 2, 50)))]
    elif kind == 3:  # another number or wire type
        chosen[0 if draw.random() < 0.5 else 1] = draw.choice((0, 1, 2, 3, 4, 5, 6, 7, 2**28))
    elif kind == 4:  # values inside each other
        body = b""
        for _ in range(draw.choice((3, 90, 101, 2000))):
            body = b"\x2a" + varint(len(body) + 2) + b"\x0a" + varint(len(body)) + body
        message.insert(at, [draw.choice((2, 9)), 2, body])
    elif kind == 5:  # empty messages
        message.insert(at, [draw.choice((1, 2, 9)), 2, b"\x0a\x00" * draw.choice((1, 5000))])
    elif kind == 6 and message:
        del message[draw.randrange(len(message))]
    elif kind == 7:
        draw.shuffle(message)
    else:  # bytes instead of what was there: also half of a character
        chosen[2] = draw.choice((b"", b"\xff", b"\xed\xa0\x80", draw.randbytes(20), b"\x00" * 9))


def protobuf(seed: int, count: int) -> list[bytes]:
    draw = random.Random(seed)
    good = [export(n, n * 10).SerializeToString() for n in (1, 2, 5)]
    made = []
    for _ in range(count):
        fields = _read(draw.choice(good))
        for _ in range(draw.randrange(4)):
            _changed(draw, fields)
        body = _written(draw, fields, draw.choice((0, 0, 0.05)))
        if draw.random() < 0.1:
            body = body[: draw.randrange(len(body) + 1)]
        made.append(body)
    return made


# ---------------------------------------------------------------------- JSON
_ODD: list[str] = [
    "null",
    "true",
    "-0",
    "1e999",
    "-1",
    "9" * 30,
    "9" * 5000,
    "NaN",
    '"\\ud800"',
    '"\\u0000"',
    '"' + "x" * 300 + '"',
    "[]",
    "{}",
    "[[]]",
    "[" * 60 + "]" * 60,
    "[" * 3000 + "]" * 3000,
    '{"values":[' + "{}," * 300 + "{}]}",
    '"0123456789abcdef"',
    "[1,]",
    "{,}",
    "'",
    "",
    "18446744073709551616",
]


def good_json(spans: int) -> Any:
    made = [
        {
            "traceId": f"{n + 1:032x}",
            "spanId": f"{n + 1:016x}",
            "name": "llm_request",
            "startTimeUnixNano": "1700000000000000000",
            "attributes": [
                {"key": "gen_ai.usage.prompt_tokens", "value": {"intValue": str(n)}},
                {"key": "k", "value": {"arrayValue": {"values": [{"doubleValue": 1.5}]}}},
            ],
            "status": {"code": 2},
        }
        for n in range(spans)
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "s"}}]}
    scoped = {"scope": {"name": "vllm.llm_engine"}, "spans": made}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scoped]}]}


def json_texts(seed: int, count: int) -> list[bytes]:
    """Documents in which values are others, keys come twice, or the text is cut."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        text = json.dumps(good_json(draw.choice((1, 2, 5))))
        for _ in range(draw.randrange(4)):
            starts = [n for n, c in enumerate(text) if c in '{[:,"']
            if not starts:
                break
            at = draw.choice(starts)
            kind = draw.randrange(5)
            if kind == 0:
                text = text[: at + 1] + draw.choice(_ODD) + text[at + 1 :]
            elif kind == 1:
                end = text.find(draw.choice(',}]"'), at + 1)
                text = text[: at + 1] + draw.choice(_ODD) + text[max(end, at + 1) :]
            elif kind == 2:
                key = draw.choice(("resourceSpans", "scopeSpans", "spans", "resource", "name"))
                text = text.replace(f'"{key}"', f'"{key}": {draw.choice(_ODD)}, "{key}"', 1)
            elif kind == 3:
                text = text[:at] + draw.choice(" \t\n\r\x00\x0b") + text[at:]
            else:
                text = text[: draw.randrange(len(text) + 1)]
        made.append(text.encode("utf-8", "surrogatepass"))
    return made


# ---------------------------------------------------------------------- metrics
FAMILIES = frozenset({"a:queue_seconds", "a:requests_total", "a:running"})
_GOOD = """# HELP a:queue_seconds h
# TYPE a:queue_seconds histogram
a:queue_seconds_bucket{model="m",le="0.1"} 1
a:queue_seconds_bucket{model="m",le="1"} 3
a:queue_seconds_bucket{model="m",le="+Inf"} 4
a:queue_seconds_sum{model="m"} 2.5
a:queue_seconds_count{model="m"} 4
# TYPE a:requests counter
a:requests_total{code="200"} 7
# TYPE a:running gauge
a:running 3
other 1
"""
_PIECES = [
    '"', "\\", "{", "}", ",", "=", " ", "#", "\n", "\r", "\t", "\x00", "\x85", "\u2028", "é",
    "NaN", "+Inf", "-Inf", "1e999", "0x1p3", "9" * 400, "1_0", 'le="nan"', 'le="1"', "# EOF\n",
    "# TYPE a:running histogram\n", "# TYPE a:queue_seconds gauge\n", '# {trace="1"} 1 2',
    'a:running{x="' + "y" * 5000 + '"} 1\n', 'a:running{' + 'x="",' * 900 + "} 1\n",
    "a:queue_seconds_bucket{le=} 1\n", "a:queue_seconds_sum 1\n", "a:queue_seconds 1\n",
    "a:running" + "{" * 200 + "\n", "_bucket", "_total", "a:running ", "-1", " 1700000000000",
]  # fmt: skip


def metrics(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        text = _GOOD
        for _ in range(draw.randrange(6)):
            at, kind = draw.randrange(len(text) + 1), draw.randrange(4)
            if kind == 0:
                text = text[:at] + draw.choice(_PIECES) + text[at:]
            elif kind == 1:
                text = text[:at] + draw.choice(_PIECES) + text[at + draw.randrange(1, 20) :]
            elif kind == 2:
                lines = text.splitlines(keepends=True)
                draw.shuffle(lines)
                text = "".join(lines + lines[: draw.randrange(len(lines) + 1)])
            else:
                text = text[:at]
        made.append(text)
    return made
