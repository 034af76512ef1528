"""Secrets and prompts go out to a server that says them again wherever it can.

Nothing of them may be in the run, on stdout or on stderr: not even a piece of a secret that some
limit has cut in two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from .faults import at_once
from .invoke import Ended, called, loaded
from .peers import Asked, Script, Wire, chunked, delta, event, serving, tokens, usage, well

# Every piece has a letter that ids in hexadecimal lack: else it may be in a file by chance.
KEY = "sk-live-kq7zn3wmv8xrt2py"
HEADER = "token w5hn1k8rz0qy7m4x"
BASIC = "Basic dXNlcjo0ODhiMWFmZTdkMDI="
QUERY = "q-cred-6zn7kw0wr2m9x4t"
TAG = "overlay-tag-2vz9kn17xm53"
PROMPTS = (
    "The launch code of the northern silo is 4471 and the password is swordfish.",
    'Line one holds a name: Ottilie Abendroth.\nLine two: «Grüße» "quoted" and\tso on.',
    "supercalifragilistic-canary-0e4b77d1",
)
#: Pieces of this length of a secret, or of a prompt, are too much.
SECRET_PIECE, PROMPT_PIECE = 6, 12


def pieces(text: str, size: int) -> set[str]:
    """All passages of so many characters that are in no ordinary word of latdiag's own."""
    found = {text[i : i + size] for i in range(len(text) - size + 1)}
    return {piece for piece in found if piece.strip() not in ("Bearer", "Basic", "Basic d")}


FORBIDDEN: dict[str, set[str]] = {
    **{s: pieces(s, SECRET_PIECE) for s in (KEY, HEADER.split()[1], BASIC.split()[1], TAG)},
    **{p: pieces(p, PROMPT_PIECE) | pieces(json.dumps(p), PROMPT_PIECE) for p in PROMPTS},
}


# ---------------------------------------------------------------------- the echo
def echoes(asked: Asked) -> list[str]:
    """What a server may say again, as it came and as programs like to print it."""
    ask = asked.document
    prompt = ask["messages"][-1]["content"]
    headers = [value for name, value in asked.headers if name.lower().startswith(("auth", "x-s"))]
    plain = [*headers, prompt, ask["metadata"]["tag"]]
    return [*plain, repr(prompt), json.dumps(prompt), asked.body.decode(), " | ".join(plain)]


def hidden(text: str) -> str:
    """With an invisible character between any two: gone when shown, and the text is back."""
    return "\u200b".join(text)


def padded(text: str) -> Iterator[str]:
    """The text where some limit may cut through it."""
    for limit in (40, 128, 200, 300, 512, 1024, 1600, 2048, 4096, 16384, 65536):
        yield "x" * (limit - 9) + " " + text


Say = Callable[[Wire, str], None]


def _error(status: int, body: Callable[[str], str]) -> Say:
    return lambda wire, text: wire.reply(status, body(text), "Content-Type: application/json")


def _events(*parts: Callable[[str], bytes]) -> Say:
    return lambda wire, text: at_once(wire, *(part(text) for part in parts), delta("stop"))


def _header(*lines: str, status: int = 200) -> Say:
    def say(wire: Wire, text: str) -> None:
        line = text.replace("\n", " ").replace("\r", " ")[:8000]
        told = "\r\n".join(each.format(line) for each in lines)
        body = b"".join(map(chunked, [*tokens(3), delta("stop"), usage(3, 3)])) + b"0\r\n\r\n"
        head = f"HTTP/1.1 {status} {line[:99]}\r\n{told}\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.send(head.encode() + body)

    return say


def _in_names(text: str) -> bytes:
    choice = {"delta": {"role": text, "content": text}, "finish_reason": text}
    named = {"id": text, "model": text, "object": text, "system_fingerprint": text}
    return event(choices=[], **named) + event(choices=[choice], **named)


def _in_figures(text: str) -> bytes:
    metrics = {text: 1, "n": {text: 2, "t": text}}
    first = event(id="c-1", choices=[], metrics=metrics, timings={text[:64]: "3"})
    return first + event(id="c-1", choices=[], usage={text: 1, "prompt_tokens": text})


def _typed(text: str) -> bytes:
    return b"event: error\ndata: " + text.encode() + b"\n\n"


SAYS: dict[str, Say] = {
    "message": _error(400, lambda text: json.dumps({"error": {"message": text, "type": text}})),
    "detail": _error(422, lambda text: json.dumps({"detail": [{"msg": text, "loc": [text]}]})),
    "plain text": _error(500, lambda text: text),
    "page": _error(502, lambda text: f"<html>{text}"),
    "limited": _error(429, lambda text: json.dumps({"message": f"slow down, {text}"})),
    "document": _error(200, lambda text: json.dumps({"error": text, "id": text})),
    "error event": _events(lambda text: event(error={"message": text, "code": text})),
    "typed error": _events(lambda text: _typed(json.dumps(text))),
    "error as text": _events(lambda text: _typed(text.replace("\n", " "))),
    "event type": _events(lambda text: f"event: {text!r}\ndata: {{}}\n\n".encode()),
    "no json": _events(lambda text: f"data: {text!r}\n\n".encode()),
    "names": _events(_in_names),
    "figures": _events(_in_figures),
    "headers": _header("Server: {0}", "X-Request-Id: {0}", "Server-Timing: {0};dur=1"),
    "timing header": _header("openai-processing-ms: {0}", "x-envoy-upstream-service-time: {0}"),
    "content type": _header("Content-Type: text/event-stream; {0}"),
    "content encoding": _header("Content-Encoding: {0}"),
    "retry after": _header("Retry-After: {0}", status=429),
    "location": _header("Location: http://{0}:{0}@host/{0}?{0}#{0}", status=307),
    "bare location": _header("Location: {0}", status=302),
}


def scripts() -> list[tuple[str, Script]]:
    """Each way to say each thing, whole; and the cut ones in the ways that keep a sentence."""
    found: list[tuple[str, Script]] = []

    def add(name: str, say: Say, of: Callable[[Asked], str]) -> None:
        found.append((name, lambda wire, asked: say(wire, of(asked))))

    for name, say in SAYS.items():
        for which in range(8):
            add(f"{name} {which}", say, lambda asked, which=which: (echoes(asked) * 2)[which])
        add(f"{name} hidden", say, lambda asked: hidden(echoes(asked)[0]))
    for name in ("message", "plain text", "error event", "names", "headers", "location"):
        for cut in range(11):
            add(
                f"{name} cut {cut}",
                SAYS[name],
                lambda asked, cut=cut: list(padded(echoes(asked)[0]))[cut],
            )
    return found


def folder_text(folder: Path) -> str:
    """All that is in a folder: each file's bytes, and what its parquet columns hold."""
    import pyarrow.parquet as pq

    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            found.append(file.name)
            found.append(file.read_bytes().decode("utf-8", "replace"))
            if file.suffix == ".parquet":
                table = pq.read_table(file)
                found.append(repr(table.to_pylist()) + repr(table.schema.metadata))
    assert len(found) > 6
    return "\n".join(found)


def assert_silent(text: str, forbidden: dict[str, set[str]] = FORBIDDEN) -> None:
    for whole, parts in forbidden.items():
        said = sorted(part for part in parts if part in text)
        around = [text[max(0, text.index(s) - 90) : text.index(s) + 60] for s in said[:2]]
        assert not said, f"of {whole!r} there are {len(said)} pieces, as in {around}"


def prompts_file(folder: Path) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return path


VARIABLES = {"CANARY_KEY": KEY, "CANARY_HEADER": HEADER}
OPTIONS = (
    *("--api-key-env", "CANARY_KEY", "--header-env", "X-Secret: CANARY_HEADER"),
    *("--header", f"X-Second: {BASIC}", "--body-json", json.dumps({"metadata": {"tag": TAG}})),
)


def echo(ways: Sequence[tuple[str, Script]]) -> Script:
    """A server whose answer to the load's request ``n`` is the ``n``-th way."""

    def script(wire: Wire, asked: Asked) -> None:
        if asked.method == "GET":
            listed = json.dumps({"data": [{"id": "tiny"}]})
            wire.reply(200, listed, f"Server: {asked.header('authorization')}")
        elif asked.number is None:
            well(wire, asked)
        else:
            ways[asked.number][1](wire, asked)

    return script


# ---------------------------------------------------------------------- a load
@pytest.fixture(scope="module")
def echoed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Sequence[str], str]:
    folder = tmp_path_factory.mktemp("canary")
    ways = scripts()

    with serving(echo(ways)) as peer:
        url = peer.url + "/v1?api-key=" + QUERY
        ended = loaded(
            folder,
            url,
            *("--prompts", str(prompts_file(folder)), "--requests", str(len(ways))),
            *("--concurrency", "101", "--timeout", "20s", *OPTIONS),
            before=("-vv",),
            **VARIABLES,
        )
        assert {asked.header("authorization") for asked in peer.asked} == {f"Bearer {KEY}"}
        assert all(asked.target.endswith(QUERY) for asked in peer.asked)
    return ended, [name for name, _ in ways], folder_text(ended.run)


def test_no_file_of_the_run_holds_a_secret_or_a_prompt(
    echoed: tuple[Ended, Sequence[str], str],
) -> None:
    assert_silent(echoed[2])


def test_neither_stdout_nor_stderr_does(echoed: tuple[Ended, Sequence[str], str]) -> None:
    assert_silent(echoed[0].out)
    assert_silent(echoed[0].err)


def test_what_the_user_gave_in_the_url_is_in_no_header_of_the_run(
    echoed: tuple[Ended, Sequence[str], str],
) -> None:
    header = (echoed[0].run / "run.json").read_text()
    assert_silent(header + echoed[0].out + echoed[0].err, {QUERY: pieces(QUERY, SECRET_PIECE)})
    assert "/v1/chat/completions" in header


def test_the_echoes_were_read_and_the_rest_of_their_words_is_kept(
    echoed: tuple[Ended, Sequence[str], str],
) -> None:
    """The test would pass on a client that stores nothing: so here is what it has to store."""
    ended, names, _ = echoed
    rows = ended.rows()
    assert len(rows) == len(names)
    by_name = {name: rows[number] for number, name in enumerate(names)}
    assert by_name["message 0"]["error"] == "HTTP 400: ***"
    assert by_name["message 2"]["error"] == "HTTP 400: ***"
    assert by_name["limited 0"]["error"] == "HTTP 429: slow down, ***"
    assert "[request]" in by_name["message 3"]["error"]
    assert by_name["error event hidden"]["error"].startswith("error in the stream: ")
    outcomes = {row["outcome"] for row in rows.values()}
    assert outcomes == {"ok", "http_error", "rate_limited", "protocol"}
    for name in ("figures 0", "headers 0", "names 0"):
        assert by_name[name]["outcome"] == "ok"


def test_the_report_for_people_is_silent_too(tmp_path: Path) -> None:
    """Examples of failures are printed there: each outcome's first is an echo."""
    wanted = ("message 4", "limited 2", "error event cut 2", "no json 3", "message cut 2")
    ways = [way for way in scripts() if way[0] in wanted]
    options = ("--prompts", str(prompts_file(tmp_path)), "--requests", str(len(ways)), *OPTIONS)
    with serving(echo(ways)) as peer:
        ended = loaded(tmp_path, peer.url, *options, before=("-v",), as_json=False, **VARIABLES)
    assert ended.code == 15 and len(ways) == len(wanted)  # none of them is usable
    assert "HTTP 4" in ended.out + ended.err
    assert_silent(ended.out + ended.err)


# ---------------------------------------------------------------------- before a load
@pytest.mark.parametrize("name", ["message", "detail", "document", "error event", "location"])
def test_a_preflight_that_echoes(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    for variable, value in VARIABLES.items():
        monkeypatch.setenv(variable, value)

    def script(wire: Wire, asked: Asked) -> None:
        SAYS[name](wire, " ".join(echoes(asked)))

    with serving(script) as peer:
        options = ("--model", "m", "--prompts", str(prompts_file(tmp_path)), *OPTIONS)
        for more in ((), ("--json",)):
            ended = called(capsys, tmp_path, peer.url, *options, *more)
            assert ended.code == 15
            assert_silent(ended.out + ended.err)


def test_a_model_named_like_the_key_is_not_taken(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", KEY)

    def script(wire: Wire, asked: Asked) -> None:
        name = (asked.header("authorization") or "").removeprefix("Bearer ")
        wire.reply(200, json.dumps({"data": [{"id": f"model-{name}"}]}))

    with serving(script) as peer:
        ended = called(capsys, tmp_path, peer.url, "--api-key-env", "CANARY_KEY")
    assert ended.code == 15 and "without a usable name" in ended.err
    assert_silent(ended.out + ended.err)


def test_a_query_of_the_url_is_a_secret_too(tmp_path: Path) -> None:
    """Whether a key is in a header or in the URL: its echo is not stored."""
    ways = [SAYS[name] for name in ("message", "plain text", "names", "timing header")]

    def script(wire: Wire, asked: Asked) -> None:
        if asked.number is None:
            well(wire, asked)
        else:
            ways[asked.number](wire, f"no access with {asked.target}")

    with serving(script) as peer:
        url = f"{peer.url}/v1?api-key={QUERY}%2F77"
        ended = loaded(tmp_path, url, "--model", "m", "--requests", str(len(ways)))
    said = folder_text(ended.run) + ended.out + ended.err
    assert_silent(said, {QUERY: pieces(QUERY, SECRET_PIECE)})
