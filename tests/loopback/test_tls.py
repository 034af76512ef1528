"""TLS: whom we trust, what we say where we do not, and replies that end in the middle of it."""

from __future__ import annotations

import datetime
import os
import select
import socket
import ssl
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .framings import byte_by_byte
from .invoke import Ended, called, loaded, well_measured
from .peers import Asked, Over, Peer, Wire, endpoint, serving, tokens, well, whole
from .test_targets import refused
from .test_transport import Taken, post, with_client

trustme = pytest.importorskip("trustme")
Captured = pytest.CaptureFixture[str]
LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """A certificate authority of the test's own, trusted by whoever is told so."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def server(self, name: str = "127.0.0.1", **more: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name, **more).configure_cert(context)
        return context

    def client(self, folder: Path) -> Path:
        """A file with a certificate of a client, and its key."""
        issued = self._ca.issue_cert("client@example.org")
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "client.pem"))
        return folder / "client.pem"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def fine(wire: Wire, asked: Asked) -> None:
    endpoint(lambda _: None)(wire, asked)


# ---------------------------------------------------------------------- trust
def test_a_certificate_that_nobody_vouches_for(
    capsys: Captured, tmp_path: Path, authority: Authority
) -> None:
    with serving(fine, tls=authority.server()) as peer:
        ended = called(capsys, tmp_path, peer.url)
    refused(ended, "TLS with 127.0.0.1 failed: (unable|self.signed)", "--insecure", peer.url)
    assert peer.asked == []


@pytest.mark.parametrize(
    ("certificate", "says"),
    [
        ({"name": "other.example"}, "IP address mismatch"),
        ({"not_before": LONG_AGO, "not_after": LONG_AGO + datetime.timedelta(1)}, "has expired"),
    ],
    ids=["host", "time"],
)
def test_a_certificate_of_another_host_or_time(
    capsys: Captured,
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    certificate: dict[str, Any],
    says: str,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with serving(fine, tls=authority.server(**certificate)) as peer:
        ended = called(capsys, tmp_path, peer.url)
    refused(ended, f"TLS with 127.0.0.1 failed: .*{says}", "--insecure", peer.url)
    assert peer.asked == []


@pytest.mark.parametrize("insecure", [True, False])
def test_a_load_over_tls(tmp_path: Path, authority: Authority, insecure: bool) -> None:
    """Trusted through the system's store, or not verified at all."""
    options = ["--requests", "7", "--osl", "7", "--quiet", *["--insecure"] * insecure]
    variables = {} if insecure else {"SSL_CERT_FILE": str(authority.file)}
    with serving(fine, tls=authority.server()) as peer:
        ended = loaded(tmp_path, peer.url, *options, **variables)
    assert well_measured(ended) and ended.err == ""
    rows = ended.rows().values()
    assert {(row["outcome"], row["osl"]) for row in rows} == {("ok", 7)}
    fresh = [row for row in rows if not row["reused"]]
    assert len(fresh) == 1
    assert fresh[0]["tcp_ns"] < fresh[0]["tls_ns"] <= fresh[0]["written_ns"]


# ---------------------------------------------------------------------- no TLS at all
def test_https_to_a_server_of_plain_http(capsys: Captured, tmp_path: Path) -> None:
    greeting = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    with serving(fine, greeting=greeting) as peer:
        url = peer.url.replace("http:", "https:")
        ended = called(capsys, tmp_path, url)
    refused(ended, "TLS with 127.0.0.1 failed: wrong version", "use http://", url)


def test_http_to_a_server_of_tls(capsys: Captured, tmp_path: Path, authority: Authority) -> None:
    with serving(fine, tls=authority.server()) as peer:
        url = peer.url.replace("https:", "http:")
        ended = called(capsys, tmp_path, url)
    refused(ended, "closed the connection|connection broke|broken HTTP", "check scheme and", url)


def test_a_handshake_without_an_answer(capsys: Captured, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        ended = called(capsys, tmp_path, url, "--timeout", "300ms")
    refused(ended, "no connection to 127.0.0.1 port .* within 0.3 s", "can be reached", url)


def test_a_handshake_that_is_broken_off(capsys: Captured, tmp_path: Path) -> None:
    with serving(lambda wire, _: wire.close(), greeting=b"\x15\x03\x03\x00\x02\x02\x28") as peer:
        url = peer.url.replace("http:", "https:")
        ended = called(capsys, tmp_path, url)
    refused(ended, "TLS with 127.0.0.1 failed: ", "--insecure skips", url)


# ---------------------------------------------------------------------- streams within TLS
def notify(wire: Wire) -> None:
    """Close in due form as far as TLS goes; the TCP connection stays."""
    assert isinstance(wire.sock, ssl.SSLSocket)
    wire.sock.settimeout(0.2)
    with suppress(OSError):  # the client need not answer
        wire.sock.unwrap()


def closes_between(wire: Wire, asked: Asked) -> None:
    well(wire, asked)
    notify(wire)
    raise Over


def notifies_instead(wire: Wire, asked: Asked) -> None:
    if asked.place:
        notify(wire)
        raise Over
    well(wire, asked)


def vanishes_instead(wire: Wire, asked: Asked) -> None:
    if asked.place:
        raise Over
    well(wire, asked)


def notifies_within(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(*tokens(3))
    notify(wire)
    raise Over


def vanishes_within(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(*tokens(3))
    raise Over


def ends_by_notify(wire: Wire, asked: Asked) -> None:
    """A reply without a length whose end only TLS tells: the client has to close the socket."""
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", *whole(asked))
    notify(wire)
    while select.select([wire.sock], [], [], 20)[0]:
        if not os.read(wire.sock.fileno(), 4096):
            break
    raise Over


def rubbish_within(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(*tokens(3))
    time.sleep(0.05)
    os.write(wire.sock.fileno(), b"\x17\x03\x03\x00\x20" + b"x" * 32)
    time.sleep(0.2)
    raise Over


def in_one_piece(wire: Wire, asked: Asked) -> None:
    """Several records of TLS in one segment."""
    wire.reply(200, b": " + b"x" * 70_000 + b"\n" + b"".join(whole(asked)))


#: script: (outcome, how often the peer gets the request, output arrivals)
STREAMS = {
    closes_between: ("ok", 1, 7),
    notifies_instead: ("ok", 2, 7),
    vanishes_instead: ("ok", 2, 7),
    notifies_within: ("cut", 1, 3),
    vanishes_within: ("cut", 1, 3),
    ends_by_notify: ("ok", 1, 7),
    rubbish_within: ("tls", 1, 3),
    byte_by_byte: ("ok", 1, 7),
    in_one_piece: ("ok", 1, 7),
}
NUMBER = {script: 2 * i + 2 for i, script in enumerate(STREAMS)}


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> tuple[Ended, Peer]:
    by_number = {number: script for script, number in NUMBER.items()}
    context = authority.server()
    context.num_tickets = 2  # they come after the handshake, while a request is under way
    with serving(endpoint(by_number.get), tls=context) as peer:
        ended = loaded(
            tmp_path_factory.mktemp("tls"),
            peer.url,
            *("--insecure", "--requests", "23", "--osl", "7", "--quiet", "--timeout", "5s"),
        )
    return ended, peer


@pytest.mark.parametrize("script", STREAMS, ids=[script.__name__ for script in STREAMS])
def test_a_stream_within_tls(streamed: tuple[Ended, Peer], script: Any) -> None:
    ended, peer = streamed
    outcome, sent, outputs = STREAMS[script]
    row = ended.rows()[NUMBER[script]]
    times = Counter(asked.number for asked in peer.of_load())
    assert (row["outcome"], times[NUMBER[script]]) == (outcome, sent), row["error"]
    assert sum(1 for kind in row["kinds"] if kind == 3) == outputs


def test_the_streams_between_are_untouched(streamed: tuple[Ended, Peer]) -> None:
    ended, _ = streamed
    assert well_measured(ended)
    rows = ended.rows()
    assert sorted(rows) == list(range(23))
    others = [row for number, row in rows.items() if number not in NUMBER.values()]
    assert {(row["outcome"], row["osl"]) for row in others} == {("ok", 7)}


def test_a_large_body_goes_out_whole(authority: Authority) -> None:
    """More than one record of TLS, more than a socket takes at once, more than a slow server."""
    body = bytes(range(256)) * 5000

    def script(wire: Wire, asked: Asked) -> None:
        wire.reply(200, "same" if asked.body == body else f"{len(asked.body)} bytes")

    async def act(client: Any) -> list[bytes]:
        sinks = [Taken() for _ in range(3)]
        for sink in sinks:
            await post(client, peer.url, sink, body=body)
        return [sink.body for sink in sinks]

    with serving(script, tls=authority.server()) as peer:
        assert with_client(act, verify=False) == [b"same"] * 3


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_of_tls(authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.server()
    context.minimum_version = context.maximum_version = version

    async def act(client: Any) -> list[str]:
        return [(await post(client, peer.url)).text for _ in range(3)]

    with serving(lambda w, a: w.reply(200, f"{a.connection}"), tls=context) as peer:
        assert with_client(act, verify=False) == ["0", "0", "0"]


# ---------------------------------------------------------------------- files of the user's own
def test_an_authority_is_trusted_by_its_file(tmp_path: Path, authority: Authority) -> None:
    def script(wire: Wire, asked: Asked) -> None:
        if asked.target == "/metrics":
            wire.reply(
                200, "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n"
            )
        else:
            fine(wire, asked)

    with serving(script, tls=authority.server()) as peer:
        ended = loaded(
            *(tmp_path, peer.url, "--requests", "2", "--osl", "3", "--metrics", peer.url),
            *("--ca-file", str(authority.file)),
        )
    assert well_measured(ended), ended.err
    assert "Scraping" not in ended.out and "metrics" not in ended.err


def test_a_client_certificate_is_shown_to_the_target_alone(
    tmp_path: Path, authority: Authority
) -> None:
    """A server that wants one gets it, for requests and scrapes; another server none."""
    chain = authority.client(tmp_path)
    shown: dict[str, list[bool]] = {"target": [], "other": []}

    def noting(name: str) -> Any:
        def script(wire: Wire, asked: Asked) -> None:
            shown[name].append(bool(wire.sock.getpeercert()))  # type: ignore[attr-defined]
            if asked.target == "/metrics":
                wire.reply(200, "vllm:num_requests_running 1\n")
            else:
                fine(wire, asked)

        return script

    wanting, asking = authority.server(), authority.server()
    for context, mode in ((wanting, ssl.CERT_REQUIRED), (asking, ssl.CERT_OPTIONAL)):
        context.verify_mode = mode
        context.load_verify_locations(str(authority.file))
    with serving(noting("target"), tls=wanting) as peer, serving(noting("other"), tls=asking) as o:
        ended = loaded(
            *(tmp_path, peer.url, "--requests", "2", "--osl", "3"),
            *("--metrics", peer.url, "--metrics", o.url),
            *("--ca-file", str(authority.file), "--client-cert", str(chain)),
        )
    assert well_measured(ended), ended.err
    assert all(shown["target"]) and len(shown["target"]) > 4
    assert shown["other"] and not any(shown["other"])


@pytest.mark.parametrize(
    ("option", "content", "text"),
    [
        ("--ca-file", None, "--ca-file cannot be used: No such file"),
        ("--ca-file", "no certificate", "--ca-file cannot be used: it is not what"),
        ("--client-cert", "no certificate", "--client-cert cannot be used: it is not what"),
    ],
)
def test_files_that_are_none_are_said_first(
    capsys: Captured, tmp_path: Path, option: str, content: str | None, text: str
) -> None:
    file = tmp_path / "x.pem"
    if content is not None:
        file.write_text(content)
    ended = called(capsys, tmp_path, "https://127.0.0.1:1", option, str(file))
    assert ended.code == 2 and text in ended.err and not ended.run.exists()


# ---------------------------------------------------------------------- not HTTP/1.1, and proxies
#: What servers of HTTP/2 send first: SETTINGS (grpc-go, nghttp2), GOAWAY.
FRAMES = {
    "settings": b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
    "empty settings": b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "goaway": b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(8),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=list(FRAMES))
def test_a_port_of_http_2_alone_is_named(capsys: Captured, tmp_path: Path, frame: bytes) -> None:
    def script(wire: Wire, _asked: Asked) -> None:
        wire.send(frame)
        wire.close()

    with serving(script) as peer:
        ended = called(capsys, tmp_path, peer.url)
    refused(ended, "speaks HTTP/2 alone at this port, as gRPC does", "HTTP/1.1", peer.url)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"http_proxy": "http://user:canary-secret@proxy:3128"}, "HTTP_PROXY"),
        ({"ALL_PROXY": "socks5://proxy"}, "ALL_PROXY"),
        ({"https_proxy": "http://proxy"}, None),
        ({"http_proxy": "http://proxy", "no_proxy": "127.0.0.1"}, None),
    ],
)
def test_a_proxy_that_is_not_used_is_named(
    capsys: Captured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    named: str | None,
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ended = called(capsys, tmp_path, "http://127.0.0.1:1")
    assert ended.code == 15 and "canary-secret" not in ended.err
    said = f"latdiag uses no proxy, although {named} names one"
    assert (said in ended.err) if named else ("proxy" not in ended.err)
