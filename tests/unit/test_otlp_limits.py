"""Bounds of the receiver: inflating, counting messages, addresses."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import hypothesis.strategies as st
import pytest
from hypothesis import given
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from latdiag.ingest.otlp.endpoints import Endpoints, address_of
from latdiag.ingest.otlp.forward import Destination, refuse_own
from latdiag.ingest.otlp.grpc_door import wrapping_of
from latdiag.ingest.otlp.limits import Budget, Refusal, done, inflated
from latdiag.ingest.otlp.protobuf import Protobuf
from latdiag.model.errors import UsageFault
from tests.profiles import examples


@examples(50)
@given(st.binary(max_size=5000), st.sampled_from(["gzip", "deflate"]))
def test_what_was_compressed_comes_back(body: bytes, wrapping: str) -> None:
    packed = gzip.compress(body) if wrapping == "gzip" else zlib.compress(body)
    assert inflated(packed, wrapping) == body
    assert wrapping_of(packed) == wrapping


def test_a_gzip_of_several_members_is_one_body() -> None:
    assert inflated(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip") == b"one two"


@pytest.mark.parametrize("size", [10 << 20, 300 << 20])
def test_a_bomb_is_refused(size: int) -> None:
    # Level 1 packs zeros by a factor of 200, far beyond what is taken, in a third of the time.
    packed = gzip.compress(bytes(size), 1)
    with pytest.raises(Refusal) as caught:
        inflated(packed, "gzip")
    assert caught.value.reason == "bomb"


def test_members_add_up_to_a_bomb() -> None:
    part = gzip.compress(bytes(60_000))
    with pytest.raises(Refusal) as caught:
        inflated(part * 40, "gzip")
    assert caught.value.reason == "bomb"


@pytest.mark.parametrize(
    "packed",
    [b"\x1f\x8b", b"not gzip", gzip.compress(b"x" * 500)[:-9], gzip.compress(b"x") + b"rest"],
    # No bytes of these: a gzip holds the second at which it was made, and processes share tests.
    ids=["short", "other", "cut", "followed"],
)
def test_what_is_no_gzip_is_refused(packed: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        inflated(packed, "gzip")
    assert caught.value.reason == "malformed"


def outlined(body: bytes) -> Protobuf:
    form = Protobuf(body, Budget())
    done(form.outline())
    return form


def framed(body: bytes, *tags: bytes) -> bytes:
    for tag in tags:
        body = tag + _length(body) + body
    return body


def test_an_export_of_nothing_but_messages_is_refused() -> None:
    span = b"\x12\x00" * 1_100_000  # 1,100,000 empty spans, in 2.2 MB
    body = framed(span, b"\x12", b"\x0a") * 2
    with pytest.raises(Refusal) as caught:
        outlined(body)
    assert caught.value.reason == "too_many"


def test_messages_in_values_count_and_are_not_made() -> None:
    """A span of 2 MB with an array of a million values: it is taken without the array."""
    values = b"\x0a\x00" * 1_100_000
    pair = framed(values, b"\x2a", b"\x12")
    body = framed(b"\x0a\x10" + bytes(16) + framed(pair, b"\x4a"), b"\x12", b"\x12", b"\x0a")
    whole = ExportTraceServiceRequest.FromString(body)
    value = whole.resource_spans[0].scope_spans[0].spans[0].attributes[0].value
    assert len(value.array_value.values) == 1_100_000
    form = outlined(body)
    ((scoped,),) = [group.scopes for group in form.groups]
    (place,) = scoped.places()
    assert form.short(place) is None
    span, left_out = done(form.long(place))
    assert (len(span.trace_id), len(span.attributes), left_out) == (16, 0, 1)


def test_a_large_export_of_ordinary_spans_passes() -> None:
    made = ExportTraceServiceRequest()
    spans = made.resource_spans.add().scope_spans.add().spans
    for number in range(4000):
        span = spans.add(trace_id=bytes(15) + b"1", name="n" * 500)
        span.attributes.add(key=f"k{number}").value.string_value = "v" * 100
    form = outlined(made.SerializeToString())
    assert form.spans == 4000
    ((scoped,),) = [group.scopes for group in form.groups]
    assert [form.short(place) for place in scoped.places()] == list(spans)


@examples(30)
@given(st.binary(max_size=200), st.integers(0, 2**40))
def test_walking_never_fails(tail: bytes, length: int) -> None:
    with contextlib.suppress(Refusal):
        outlined(b"\x0a\xff\xff\x01" * 25_000 + tail)
    with contextlib.suppress(Refusal):
        outlined((b"\x0a" + _length(b"x" * (length % 300)) + tail) * 1_000)


def test_fields_without_end_are_refused() -> None:
    with pytest.raises(Refusal) as caught:
        outlined(b"\x08\x01" * 3_100_000)
    assert caught.value.reason == "too_many"


@pytest.mark.parametrize("before", [b"\x7b\x7c", b"\xff" * 11, b"\x0f", b"\x02\x00"])
def test_what_cannot_be_walked_does_not_hide_what_follows(before: bytes) -> None:
    """A parser skips a group (0x7b 0x7c): 8 million messages behind one took it 100 s."""
    with pytest.raises(Refusal) as caught:
        outlined(before + b"\x0a\x00" * (8 << 20))
    assert caught.value.reason == "malformed"


def test_members_without_end_are_refused() -> None:
    """Empty gzip members of 20 bytes each: what follows each was copied."""
    with pytest.raises(Refusal) as caught:
        inflated(gzip.compress(b"") * 5000, "gzip")
    assert caught.value.reason == "bomb"


def _length(body: bytes) -> bytes:
    number, made = len(body), b""
    while True:
        byte, number = number & 127, number >> 7
        made += bytes([byte | (128 if number else 0)])
        if not number:
            return made


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:1", "0.0.0.0:1"),
        (":9", "127.0.0.1:9"),
        ("localhost", "localhost:4317"),
        ("[::1]:5", "[::1]:5"),
        ("::1", "[::1]:4317"),
        ("[::1]", "[::1]:4317"),
    ],
)
def test_an_address_is_read(text: str, address: str) -> None:
    assert address_of(text, 4317) == address


@pytest.mark.parametrize("text", ["host:port", "h:99999", "http://h:4317", "a b:1", "h:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageFault):
        address_of(text, 4317)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.1", "example.org"])
def test_other_machines_need_a_token(host: str) -> None:
    with pytest.raises(UsageFault):
        Endpoints(f"{host}:1", None)
    with pytest.raises(UsageFault):
        Endpoints(None, f"{host}:1")
    Endpoints(f"{host}:1", None, token="t")
    Endpoints(f"{host}:1", None, allow_unauthenticated=True)


def test_a_token_is_not_shown() -> None:
    assert "sesame" not in repr(Endpoints(token="sesame"))


@pytest.mark.parametrize(
    ("url", "grpc", "port", "where"),
    [
        ("http://h:4317", True, 4317, None),
        ("grpc://h", True, 4317, None),
        ("http://h:4318", False, 4318, "http://h:4318/v1/traces"),
        ("http://h", False, 4318, "http://h:4318/v1/traces"),
        ("http://h:4317/v1/traces", False, 4317, "http://h:4317/v1/traces"),
        ("https://h/otlp/v1/traces", False, 443, "https://h:443/otlp/v1/traces"),
        ("http://[::1]:9", False, 9, "http://[::1]:9/v1/traces"),
    ],
)
def test_a_destination_is_read(url: str, grpc: bool, port: int, where: str | None) -> None:
    found = Destination.parse(url)
    assert (found.grpc, found.port) == (grpc, port)
    if where is not None:
        assert found.url("traces") == where
        assert found.url("metrics") == where.replace("traces", "metrics")


@pytest.mark.parametrize(
    "url", ["h:4317", "ftp://h", "http://", "http://u:secret@h", "http://h:x", "http://h?key=1"]
)
def test_what_is_no_destination_is_refused(url: str) -> None:
    with pytest.raises(UsageFault) as caught:
        Destination.parse(url)
    assert "secret" not in caught.value.text


@pytest.mark.parametrize(
    ("url", "own", "is_own"),
    [
        ("http://127.0.0.1:4317", "127.0.0.1:4317", True),
        ("http://localhost:4317", "127.0.0.1:4317", True),
        ("http://0.0.0.0:4317", "127.0.0.1:4317", True),
        ("http://127.0.0.1:4317", "0.0.0.0:4317", True),
        ("http://127.0.0.2:4317", "0.0.0.0:4317", True),
        ("http://[::ffff:127.0.0.1]:4317", "127.0.0.1:4317", True),
        ("http://127.0.0.1:4319", "127.0.0.1:4317", False),
        ("http://127.0.0.2:4317", "127.0.0.1:4317", False),
        ("http://192.0.2.1:4317", "0.0.0.0:4317", False),
    ],
)
def test_nothing_is_forwarded_to_itself(url: str, own: str, is_own: bool) -> None:
    destination = Destination.parse(url)
    if is_own:
        with pytest.raises(UsageFault):
            refuse_own(destination, [own])
    else:
        refuse_own(destination, [own])
