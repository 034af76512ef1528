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
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from latdiag.sim.http import (
    LAST_CHUNK,
    Refusal,
    Request,
    Requests,
    chunk,
    json_object,
    reply,
    stream_head,
)
from latdiag.sim.process import announce, running

MODEL = "echo"
_MAX_BODY, _MAX_TOKENS = 64 << 20, 100_000
_READ_SIZE = 64 << 10
#: The end of a stream leaves apart from its last token, or one read would bring both.
_END_S = 0.002


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds to the first token, and between tokens."""

    ttft_s: float
    itl_s: float

    def due(self, begun: float, index: int) -> float:
        """Loop time at which token ``index`` leaves, of a request that was read at ``begun``."""
        return begun + self.ttft_s + index * self.itl_s


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


async def read_request(reader: asyncio.StreamReader, requests: Requests) -> Request | None:
    """The next request of a connection; None at the connection's end."""
    while (request := requests.next()) is None:
        data = await reader.read(_READ_SIZE)
        if not data:
            return None
        requests.feed(data)
    return request


def parse_ask(body: bytes, chat: bool) -> Ask:
    """The request's body; Refusal where it is not what the API takes."""
    fields = json_object(body)
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
        requests = Requests(_MAX_BODY)
        try:
            while await self._one(reader, requests, writer):
                pass
        except OSError:
            pass  # the client went away in the middle
        finally:
            writer.close()

    async def _one(
        self, reader: asyncio.StreamReader, requests: Requests, writer: asyncio.StreamWriter
    ) -> bool:
        """One request and its reply; whether the connection may bear another."""
        try:
            request = await read_request(reader, requests)
        except Refusal as refusal:
            # Where the next request begins is not known after a broken one.
            await _send_json(writer, refusal.status, refusal.body)
            return False
        if request is None:
            return False
        begun = asyncio.get_running_loop().time()
        try:
            await self._answer(request, begun, writer)
        except Refusal as refusal:
            await _send_json(writer, refusal.status, refusal.body)
        return request.keeps

    async def _answer(self, request: Request, begun: float, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v1/models":
            _allow(request, "GET")
            models = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
            await _send_json(writer, 200, json.dumps(models).encode())
            return
        if request.path not in ("/v1/chat/completions", "/v1/completions"):
            raise Refusal(404, f"nothing here; try /v1/chat/completions, not {request.path[:100]}")
        _allow(request, "POST")
        ask = parse_ask(request.body, request.path == "/v1/chat/completions")
        number, created = next(self._numbers), int(time.time())
        if not ask.stream:
            await _sleep_until(self._pace.due(begun, ask.osl - 1))
            await _send_json(writer, 200, whole(ask, number, created))
            return
        async for data in self._paced(chunks(ask, number, created), begun, writer):
            writer.write(chunk(data))
            await writer.drain()
        writer.write(LAST_CHUNK)
        await writer.drain()

    async def _paced(
        self,
        events: tuple[list[bytes], list[bytes], list[bytes]],
        begun: float,
        writer: asyncio.StreamWriter,
    ) -> AsyncIterator[bytes]:
        """Headers at once, then each event when it is due."""
        first, tokens, last = events
        writer.write(stream_head())
        for data in first:
            yield data
        for index, data in enumerate(tokens):
            await _sleep_until(self._pace.due(begun, index))
            yield data
        await asyncio.sleep(_END_S)
        yield b"".join(last)


def _allow(request: Request, method: str) -> None:
    if request.method != method:
        raise Refusal(405, f"{request.path} takes {method}")


async def _send_json(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    writer.write(reply(status, body))
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
    server = await asyncio.start_server(Echo(pace).serve, "127.0.0.1", port, backlog=1024)
    bound = server.sockets[0].getsockname()[1]
    announce(bound)
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
    pace = ["--port", str(port), "--ttft-ms", str(ttft_ms), "--itl-ms", str(itl_ms)]
    failure = f"the echo server did not start on port {port}"
    with running("echo", *pace, failure=failure) as child:
        yield f"{child.url}/v1"


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
