"""A tiny streaming endpoint that says the prompt's words back at a fixed pace.

It speaks enough OpenAI to be a first target: ``/v1/models``, ``/v1/chat/completions`` and
``/v1/completions``, streamed or whole, with usage. No model, no queue, no batch: the first token
leaves ``ttft`` after the request was read, each further one ``itl`` after the one before.
It runs in a process of its own, so that its work is not mixed with the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

MODEL = "echo"
_MAX_HEAD, _MAX_BODY, _MAX_TOKENS = 64 << 10, 64 << 20, 100_000
#: The end of a stream leaves apart from its last token, or one read would bring both.
_END_S = 0.002
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


class Refusal(Exception):
    """An HTTP error to answer with: status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds to the first token, and between tokens."""

    ttft_s: float
    itl_s: float

    def due(self, begun: float, index: int) -> float:
        """Loop time at which token ``index`` leaves, of a request that was read at ``begun``."""
        return begun + self.ttft_s + index * self.itl_s


@dataclass(frozen=True, slots=True)
class Head:
    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a completion request asks for. ``words``: what is said back, in turn."""

    chat: bool
    model: str
    words: tuple[str, ...]
    isl: int
    osl: int
    stream: bool
    usage: bool
    #: in every chunk: usage so far, ids of its tokens
    usage_always: bool = False
    token_ids: bool = False


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Request line and headers; None when the client closed between two requests."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as exc:
        raise Refusal(400, f"the head is larger than {_MAX_HEAD} bytes") from exc
    first, *rest = raw.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3:
        raise Refusal(400, "not an HTTP request line")
    pairs = (line.partition(":") for line in rest if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Head(parts[0], parts[1].partition("?")[0], headers)


async def read_body(reader: asyncio.StreamReader, head: Head) -> bytes:
    """The body, by length or by chunks."""
    if "chunked" in head.headers.get("transfer-encoding", "").lower():
        return await _read_chunks(reader)
    length = _number(head.headers.get("content-length", "0"), 10)
    return await reader.readexactly(length)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        size = _number(line.partition(b";")[0].strip().decode("latin-1"), 16)
        if len(body) + size > _MAX_BODY:
            raise Refusal(400, "the body is too large")
        body += (await reader.readexactly(size + 2))[:size]
        if not size:
            return bytes(body)


def _number(text: str, base: int) -> int:
    try:
        value = int(text, base)
    except ValueError as exc:
        raise Refusal(400, "a length that is not a number") from exc
    if not 0 <= value <= _MAX_BODY:
        raise Refusal(400, "the body is too large")
    return value


def parse_ask(body: bytes, chat: bool) -> Ask:
    """The request's body; Refusal where it is not what the API takes."""
    try:
        fields = json.loads(body)
    except ValueError as exc:
        raise Refusal(400, "the body is not JSON") from exc
    if not isinstance(fields, dict):
        raise Refusal(400, "the body is not a JSON object")
    words = _prompt(fields.get("messages" if chat else "prompt"), chat)
    wanted = fields.get("max_completion_tokens") or fields.get("max_tokens") or 16
    if type(wanted) is not int or not 1 <= wanted <= _MAX_TOKENS:
        raise Refusal(400, f"max_tokens is a whole number from 1 to {_MAX_TOKENS}")
    options = fields.get("stream_options")
    options = options if isinstance(options, dict) else {}
    return Ask(
        chat=chat,
        model=str(fields.get("model") or MODEL),
        words=words or ("...",),
        isl=len(words),
        osl=wanted,
        stream=bool(fields.get("stream")),
        usage=bool(options.get("include_usage")),
        usage_always=bool(options.get("continuous_usage_stats")),
        token_ids=bool(fields.get("return_token_ids")),
    )


def _prompt(given: Any, chat: bool) -> tuple[str, ...]:
    """The prompt as words; token ids count as one word each."""
    if chat:
        if not isinstance(given, list) or not all(isinstance(m, dict) for m in given):
            raise Refusal(400, "messages is a list of objects")
        texts = [m.get("content") or "" for m in given]
        return tuple(word for text in texts for word in _text(text).split())
    if isinstance(given, list):
        return tuple(str(item) for item in given)
    if isinstance(given, str):
        return tuple(given.split())
    raise Refusal(400, "prompt is a text or a list of token ids")


def _text(content: Any) -> str:
    """A message's content: a text, or a list of parts with texts."""
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def chunks(ask: Ask, number: int, created: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The events of a stream: at once (the role), one a token, and after the last token."""
    kind = "chat.completion.chunk" if ask.chat else "text_completion"
    frame: dict[str, Any] = {
        "id": f"{'chatcmpl' if ask.chat else 'cmpl'}-{number:08d}",
        "object": kind,
        "created": created,
        "model": ask.model,
    }

    def event(choice: dict[str, Any] | None, usage: int | None = None) -> bytes:
        choices = [] if choice is None else [{"index": 0, "finish_reason": None, **choice}]
        counts = {} if usage is None else {"usage": _usage(ask, usage)}
        return f"data: {json.dumps({**frame, 'choices': choices, **counts})}\n\n".encode()

    def token(index: int, word: str) -> bytes:
        said: dict[str, Any] = {"delta": {"content": word}} if ask.chat else {"text": word}
        if ask.token_ids:
            said["token_ids"] = [index % len(ask.words)]
        return event(said, index + 1 if ask.usage_always else None)

    first = [event({"delta": {"role": "assistant", "content": ""}})] if ask.chat else []
    words = itertools.islice(itertools.cycle(ask.words), ask.osl)
    tokens = [token(index, f"{word} ") for index, word in enumerate(words)]
    nothing: dict[str, Any] = {"delta": {}} if ask.chat else {"text": ""}
    last = [event({**nothing, "finish_reason": "length"})]
    if ask.usage:
        last.append(event(None, ask.osl))
    return first, tokens, [*last, b"data: [DONE]\n\n"]


def _usage(ask: Ask, osl: int) -> dict[str, int]:
    return {
        "prompt_tokens": ask.isl,
        "completion_tokens": osl,
        "total_tokens": ask.isl + osl,
    }


def whole(ask: Ask, number: int, created: int) -> bytes:
    """The answer in one piece, for a request that does not stream."""
    text = " ".join(itertools.islice(itertools.cycle(ask.words), ask.osl))
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    choice |= {"message": {"role": "assistant", "content": text}} if ask.chat else {"text": text}
    reply = {
        "id": f"{'chatcmpl' if ask.chat else 'cmpl'}-{number:08d}",
        "object": "chat.completion" if ask.chat else "text_completion",
        "created": created,
        "model": ask.model,
        "choices": [choice],
        "usage": _usage(ask, ask.osl),
    }
    return json.dumps(reply).encode()


class Echo:
    """The server's behaviour on one connection after another; ``pace`` is all its parameters."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._numbers = itertools.count()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection, until the client closes it or breaks the protocol."""
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client went away in the middle
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; whether the connection may bear another."""
        try:
            head = await read_head(reader)
            if head is None:
                return False
            body = await read_body(reader, head)
        except Refusal as refusal:
            # Where the next request begins is not known after a broken one.
            await _send_json(writer, refusal.status, _error(str(refusal)))
            return False
        begun = asyncio.get_running_loop().time()
        try:
            await self._answer(head, body, begun, writer)
        except Refusal as refusal:
            await _send_json(writer, refusal.status, _error(str(refusal)))
        return head.headers.get("connection", "").lower() != "close"

    async def _answer(
        self, head: Head, body: bytes, begun: float, writer: asyncio.StreamWriter
    ) -> None:
        if head.path == "/v1/models":
            _allow(head, "GET")
            models = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
            await _send_json(writer, 200, json.dumps(models).encode())
            return
        if head.path not in ("/v1/chat/completions", "/v1/completions"):
            raise Refusal(404, f"nothing here; try /v1/chat/completions, not {head.path[:100]}")
        _allow(head, "POST")
        ask = parse_ask(body, head.path == "/v1/chat/completions")
        number, created = next(self._numbers), int(time.time())
        if not ask.stream:
            await _sleep_until(self._pace.due(begun, ask.osl - 1))
            await _send_json(writer, 200, whole(ask, number, created))
            return
        async for data in self._paced(chunks(ask, number, created), begun, writer):
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _paced(
        self,
        events: tuple[list[bytes], list[bytes], list[bytes]],
        begun: float,
        writer: asyncio.StreamWriter,
    ) -> AsyncIterator[bytes]:
        """Headers at once, then each event when it is due."""
        first, tokens, last = events
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for data in first:
            yield data
        for index, data in enumerate(tokens):
            await _sleep_until(self._pace.due(begun, index))
            yield data
        await asyncio.sleep(_END_S)
        yield b"".join(last)


def _allow(head: Head, method: str) -> None:
    if head.method != method:
        raise Refusal(405, f"{head.path} takes {method}")


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()


async def _send_json(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()


async def _sleep_until(due: float) -> None:
    """Sleep to an instant of the loop's clock; lateness does not add up over a stream."""
    await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


async def serve(port: int, pace: Pace) -> None:
    """Serve on 127.0.0.1; print the URL; end when stdin closes, which is when the parent ends."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if not sys.stdin.isatty():
        loop.add_reader(sys.stdin.fileno(), _watch, stop)
    server = await asyncio.start_server(
        Echo(pace).serve, "127.0.0.1", port, limit=_MAX_HEAD, backlog=1024
    )
    bound = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{bound}/v1", flush=True)
    await stop.wait()
    server.close()


def _watch(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


@contextlib.contextmanager
def running_echo(port: int = 0, *, ttft_ms: float = 50.0, itl_ms: float = 10.0) -> Iterator[str]:
    """The URL (``http://127.0.0.1:PORT/v1``) of an echo in a process of its own; 0: a free port.

    It ends with the block, and with this process however that ends. A Ctrl-C in the terminal
    does not reach it, so that the client can still finish what is in flight.
    """
    pace = ["--ttft-ms", str(ttft_ms), "--itl-ms", str(itl_ms)]
    # By path, and -P: no module of the working directory can take the place of one it needs.
    command = [sys.executable, "-P", __file__, "--port", str(port), *pace]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url:
            raise OSError(f"the echo server did not start on port {port}")
        yield url
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """``python -m latdiag.sim.echo --port 8000``"""
    parser = argparse.ArgumentParser(prog="python -m latdiag.sim.echo", description=main.__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--ttft-ms", type=float, default=50.0)
    parser.add_argument("--itl-ms", type=float, default=10.0)
    options = parser.parse_args()
    pace = Pace(options.ttft_ms / 1000, options.itl_ms / 1000)
    try:
        asyncio.run(serve(options.port, pace))
    except OSError as exc:
        sys.exit(f"echo: {exc}")


if __name__ == "__main__":
    main()
