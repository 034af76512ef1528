"""The bytes of a streamed reply: SSE events in HTTP/1.1 chunks, one event a chunk."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

MODEL = "mock"
CREATED = 1_760_000_000
#: Takes the place of the request number while a frame is made once for all requests.
MARK = b"%NUMBER%"

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
DONE = b"e\r\ndata: [DONE]\n\n\r\n"
END = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def framed(event: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(event), event)


def event(value: object) -> bytes:
    return framed(b"data: %b\n\n" % json.dumps(value, separators=(",", ":")).encode())


def plain_reply(status: int, value: object, extra: str = "") -> bytes:
    """A whole JSON reply with its length; ``extra`` is header lines, each with its CRLF."""
    body = json.dumps(value).encode()
    reason = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests"}
    head = (
        f"HTTP/1.1 {status} {reason.get(status, 'Status')}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True, slots=True)
class Usage:
    prompt: int
    completion: int

    def value(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(slots=True)
class Shape:
    """Frames of all streams that look alike. Frame k is made once and cut at the number."""

    chat: bool
    per_chunk: int = 1
    ids: bool = False
    pad: int = 0
    _cut: list[tuple[bytes, bytes]] = field(default_factory=list)

    def usual(self, index: int) -> tuple[bytes, bytes]:
        """Frame ``index`` of a full chunk in mid-stream: what stands before and after the number.

        The number has as many digits as MARK has bytes, so the chunk's length is right.
        """
        while len(self._cut) <= index:
            made = self.chunk(MARK.decode(), len(self._cut), self.per_chunk)
            before, _, after = made.partition(MARK)
            self._cut.append((before, after))
        return self._cut[index]

    def chunk(
        self,
        number: str,
        index: int,
        count: int,
        finish: str | None = None,
        usage: Usage | None = None,
    ) -> bytes:
        """Chunk ``index`` with ``count`` tokens; its text names each by its number."""
        first = index * self.per_chunk
        text = "".join(f" t{i}" for i in range(first, first + count)) + "." * self.pad
        choice: dict[str, object] = {"index": 0}
        if self.chat:
            choice["delta"] = {"content": text}
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": finish}
        if self.ids:
            choice["token_ids"] = list(range(1000 + first, 1000 + first + count))
        return event(self.envelope(number, [choice], usage))

    def role(self, number: str) -> bytes:
        """The event that opens a chat stream; other streams have none."""
        if not self.chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return event(self.envelope(number, [choice], None))

    def usage_event(self, number: str, usage: Usage) -> bytes:
        return event(self.envelope(number, [], usage))

    def whole(self, number: str, tokens: int, usage: Usage) -> bytes:
        """The reply of a request that asked for no stream."""
        text = "".join(f" t{i}" for i in range(tokens))
        choice: dict[str, object] = {"index": 0, "finish_reason": "length"}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        value = self.envelope(number, [choice], usage)
        value["object"] = "chat.completion" if self.chat else "text_completion"
        return plain_reply(200, value)

    def envelope(
        self, number: str, choices: list[object], usage: Usage | None
    ) -> dict[str, object]:
        value: dict[str, object] = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{number}",
            "object": "chat.completion.chunk" if self.chat else "text_completion",
            "created": CREATED,
            "model": MODEL,
            "choices": choices,
        }
        if usage is not None:
            value["usage"] = usage.value()
        return value
