"""Scrapes over real sockets: what comes, what is late, too big, elsewhere or no exporter."""

from __future__ import annotations

import gzip
import time
import zlib
from pathlib import Path

import pytest

from latdiag.ingest.prometheus import scrape as scraping
from latdiag.ingest.prometheus.scrape import Scraper, metrics_url
from latdiag.load.look import origin_of
from latdiag.store.columns import arrow_batch

from .invoke import loaded
from .peers import Asked, Script, Wire, models, serving, well

FAMILIES = frozenset({"a", "done_total"})
TEXT = b'# TYPE a gauge\na{x="1"} 3\n# TYPE done_total counter\ndone_total 7\nother 1\n'


def reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def test_several_servers_are_scraped_at_once_into_rows() -> None:
    asked: list[Asked] = []

    def script(wire: Wire, one: Asked) -> None:
        asked.append(one)
        time.sleep(0.2)
        wire.send(reply(TEXT, "Content-Type: text/plain; version=0.0.4"))

    with serving(script) as first, serving(script) as second:
        before = time.monotonic_ns()
        columns, problems = Scraper([first.url, f"{second.url}/metrics"], FAMILIES).scrape("begin")
        after = time.monotonic_ns()
    assert problems == []
    rows = arrow_batch("evidence", columns).to_pylist()
    assert [(row["foreign_name"], row["value"]) for row in rows] == [
        ("a", 3.0),
        ("done_total", 7.0),
    ] * 2
    assert [row["replica"] for row in rows] == [f"{first.url}/metrics"] * 2 + [
        f"{second.url}/metrics"
    ] * 2
    assert all(before <= row["window_start_ns"] <= after for row in rows)
    assert {one.target for one in asked} == {"/metrics"}
    # Both were asked before either answered.
    instants = {row["window_start_ns"] for row in rows}
    assert max(instants) - min(instants) < 200_000_000


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "identity"])
def test_compressed_and_plain_bodies_are_read(encoding: str) -> None:
    body = gzip.compress(TEXT) if "gzip" in encoding else TEXT
    with serving(lambda wire, _: wire.send(reply(body, f"Content-Encoding: {encoding}"))) as peer:
        columns, problems = Scraper([peer.url], FAMILIES).scrape("end")
    assert columns["value"] == [3.0, 7.0] and problems == []


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(b"\n" * (1 << 20)) for _ in range(size)) + packer.flush()


def _hang(wire: Wire, _: Asked) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\na 1")
    time.sleep(3)


def _drip(wire: Wire, _: Asked) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 40:
        wire.send(bytes([byte]))
        time.sleep(0.1)


FAULTS = {
    "redirect": (reply(b"", "Location: http://127.0.0.1:1/", status="307 Moved"), "redirect"),
    "not found": (reply(b"no", status="404 Not Found"), "HTTP 404"),
    "no exporter": (reply(b"<html>hello</html>"), "not in Prometheus format"),
    "no known family": (reply(b"# TYPE b gauge\nb 1\n"), "latdiag knows none of its metrics"),
    "bomb": (reply(bomb(40), "Content-Encoding: gzip"), "longer than 32 MiB"),
    "not gzip": (reply(TEXT, "Content-Encoding: gzip"), "but it is not"),
    "half gzip": (reply(gzip.compress(TEXT)[:-9], "Content-Encoding: gzip"), "ends early"),
    "other encoding": (reply(TEXT, "Content-Encoding: br"), "not requested"),
    "cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\na 1", "RemoteProtocolError"),
    "no http": (b"hello\r\n\r\n", "RemoteProtocolError"),
    "openmetrics without end": (
        reply(TEXT, "Content-Type: application/openmetrics-text"),
        "end mark",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_scrape_is_one_sentence(name: str) -> None:
    said, sentence = FAULTS[name]

    def script(wire: Wire, _: Asked) -> None:
        wire.send(said)
        wire.close()

    with serving(script) as peer:
        columns, problems = Scraper([peer.url], FAMILIES).scrape("begin")
    assert not columns.get("kind")
    assert len(problems) == 1 and sentence in problems[0].text
    assert problems[0].replica == f"{peer.url}/metrics" and problems[0].count == 0


@pytest.mark.parametrize("script", [_hang, _drip], ids=["hang", "drip"])
def test_a_slow_server_costs_its_time_and_no_more(script: Script) -> None:
    with serving(script) as slow, serving(lambda wire, _: wire.send(reply(TEXT))) as good:
        columns, problems = Scraper([slow.url, good.url], FAMILIES, 0.5).scrape("begin")
    assert columns["value"] == [3.0, 7.0]
    assert [problem.text for problem in problems] == ["no whole reply within 0.5 s"]


def test_a_server_that_is_away_is_said() -> None:
    with serving(lambda wire, _: None) as peer:
        url = peer.url
    columns, problems = Scraper([url], FAMILIES).scrape("begin")
    assert columns == {} and "ConnectError" in problems[0].text


def test_malformed_lines_are_counted_by_reason() -> None:
    body = TEXT + b'a{x="2"} NaN\na{x="3"} huh\na{x="4"} huh\n'
    with serving(lambda wire, _: wire.send(reply(body))) as peer:
        columns, problems = Scraper([peer.url], FAMILIES).scrape("begin")
    assert columns["value"] == [3.0, 7.0]
    assert {(one.count, one.text) for one in problems} == {
        (1, "a value that is NaN or infinite"),
        (2, "a line that cannot be read"),
    }


def test_all_replies_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraping, "MOST_TOGETHER", 3 * len(TEXT) // 2)
    with (
        serving(lambda wire, _: wire.send(reply(TEXT))) as first,
        serving(lambda wire, _: wire.send(reply(TEXT))) as second,
    ):
        columns, problems = Scraper([first.url, second.url], FAMILIES).scrape("begin")
    assert columns["value"] == [3.0, 7.0]
    assert len(problems) == 1 and "together" in problems[0].text


def test_credentials_are_sent_and_never_stored() -> None:
    asked: list[Asked] = []

    def script(wire: Wire, one: Asked) -> None:
        asked.append(one)
        wire.send(reply(TEXT))

    with serving(script) as peer:
        host = peer.url.removeprefix("http://")
        urls = [f"http://{host}/m?token=s3cret", f"http://{host}/m?token=other"]
        headers = {origin_of(peer.url): [("Authorization", "bearer-s3cret")]}
        columns, problems = Scraper(urls, FAMILIES, headers=headers).scrape("begin")
    assert "s3cret" not in repr((columns, problems))
    assert {one.header("authorization") for one in asked} == {"bearer-s3cret"}
    # Two servers that only differ in what is left out keep apart.
    assert set(columns["replica"]) == {f"{peer.url}/m#1", f"{peer.url}/m#2"}


def test_a_header_goes_to_its_origin_alone_and_follows_no_redirect() -> None:
    asked: dict[str, list[str | None]] = {"own": [], "other": []}

    def script(name: str, answer: bytes) -> Script:
        def answered(wire: Wire, one: Asked) -> None:
            asked[name].append(one.header("authorization"))
            wire.send(answer)

        return answered

    with serving(script("other", reply(TEXT))) as other:
        away = reply(b"", f"Location: {other.url}/metrics", status="307 Away")
        with serving(script("own", away)) as own:
            headers = {origin_of(own.url): [("Authorization", "Basic Zm9vOmJhcg==")]}
            _, problems = Scraper([own.url, other.url], FAMILIES, headers=headers).scrape("end")
    assert asked == {"own": ["Basic Zm9vOmJhcg=="], "other": [None]}
    text = f"HTTP 307: a redirect to another server, not followed: {other.url}/metrics"
    assert [problem.text for problem in problems] == [text]


def test_user_and_password_in_a_url_are_refused() -> None:
    for bad in ("http://user:hunter2@host", "user@host:9090/metrics", "http://:hunter2@host"):
        with pytest.raises(ValueError, match="user name or password") as caught:
            metrics_url(bad)
        assert "hunter2" not in str(caught.value)


def test_urls_may_be_short_and_must_be_urls() -> None:
    assert metrics_url("host:8000") == "http://host:8000/metrics"
    assert metrics_url("https://host/x/prom") == "https://host/x/prom"
    for bad in ("ftp://host", "http://", "http://host:99999", "http://[::1"):
        with pytest.raises(ValueError, match="URL"):
            metrics_url(bad)
    with pytest.raises(ValueError, match="at most"):
        Scraper([f"http://h{i}" for i in range(300)], FAMILIES)


# ---------------------------------------------------------------------- doors of one server
def keyed(wire: Wire, asked: Asked) -> None:
    """Metrics behind a key, at the end of two redirects."""
    if asked.header("authorization") != "Bearer the-canary-key":
        wire.send(reply(b"", status="401 Unauthorized"))
    elif asked.target == "/metrics":
        wire.send(reply(b"", "Location: /metrics/", status="307 Temporary Redirect"))
    elif asked.target == "/metrics/":
        wire.send(reply(b"", f"Location: {'/real/metrics?x=1#top'}", status="308 Permanent"))
    else:
        wire.send(reply(TEXT))


def test_a_redirect_on_the_same_origin_is_followed_with_its_headers() -> None:
    with serving(keyed) as peer:
        headers = {origin_of(peer.url): (("Authorization", "Bearer the-canary-key"),)}
        columns, problems = Scraper([peer.url], FAMILIES, headers=headers).scrape("begin")
    assert columns["value"] == [3.0, 7.0] and problems == []
    assert set(columns["replica"]) == {f"{peer.url}/metrics"}
    assert [one.target for one in peer.asked] == ["/metrics", "/metrics/", "/real/metrics?x=1"]


@pytest.mark.parametrize(
    "place", ["{}/metrics", "//127.0.0.1:{port}/x", "HTTP://127.0.0.1:{port}"]
)
def test_another_origin_gets_nothing_and_is_named(place: str) -> None:
    with serving(lambda wire, _: wire.send(reply(TEXT))) as other:
        target = place.format(other.url, port=other.port)
        script: Script = lambda wire, _: wire.send(  # noqa: E731
            reply(b"", f"Location: {target}", status="302 Found")
        )
        with serving(script) as peer:
            headers = {origin_of(peer.url): (("Authorization", "Bearer the-canary-key"),)}
            _, problems = Scraper([peer.url], FAMILIES, headers=headers).scrape("begin")
    assert other.asked == []
    assert (
        "a redirect to another server" in problems[0].text and str(other.port) in problems[0].text
    )


def test_redirects_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda w, _: w.send(reply(b"", "Location: /metrics", status="302 F"))) as peer:
        _, problems = Scraper([peer.url], FAMILIES).scrape("begin")
    assert "without end" in problems[0].text and len(peer.asked) < 9


def test_why_a_key_is_wanted() -> None:
    with serving(keyed) as peer:
        wrong = {origin_of(peer.url): (("Authorization", "Bearer another"),)}
        _, none = Scraper([peer.url], FAMILIES).scrape("begin")
        _, given = Scraper([peer.url], FAMILIES, headers=wrong).scrape("begin")
    assert none[0].text.startswith("HTTP 401: it wants credentials (--metrics-header-env")
    assert given[0].text.startswith("HTTP 401: the server refuses the credentials sent")


def test_the_server_that_is_asked_is_scraped_with_the_same_credentials(tmp_path: Path) -> None:
    """And nobody else: another server gets none unasked."""

    def script(wire: Wire, asked: Asked) -> None:
        if "metrics" in asked.target:
            keyed(wire, asked)
        else:
            well_or_listed(wire, asked)

    with serving(script) as peer, serving(script) as other:
        ended = loaded(
            *(tmp_path, peer.url, "--requests", "2", "--osl", "3", "--api-key-env", "K"),
            *("--metrics", peer.url, "--metrics", other.url),
            K="the-canary-key",
        )
    assert ended.code in (0, 12), ended.err
    assert f"{other.url}/metrics: HTTP 401" in ended.err
    assert f"{peer.url}/metrics: HTTP" not in ended.err
    assert other.asked and not any(one.header("authorization") for one in other.asked)
    assert "the-canary-key" not in ended.err + ended.out


def well_or_listed(wire: Wire, asked: Asked) -> None:
    if not models(wire, asked):
        well(wire, asked)
