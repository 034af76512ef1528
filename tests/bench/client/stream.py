"""One reply under way: which bytes come next, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import frames, plan

if TYPE_CHECKING:
    from .connection import Connection
    from .record import RequestRecord

#: Rows of the record that are not a token's chunk say so in place of the chunk's index.
HEAD_ROW, ROLE_ROW, TAIL_ROW, WHOLE_ROW, FAULT_ROW = -1, -2, -3, -4, -5


class Stream:
    """State of one reply. ``index`` is the chunk that is due next."""

    __slots__ = (
        "chunks",
        "closes",
        "connection",
        "continuous",
        "digits",
        "gap_ns",
        "gaps",
        "gone",
        "index",
        "number",
        "options",
        "prompt",
        "record",
        "shape",
        "streamed",
        "tag",
    )

    def __init__(
        self,
        number: int,
        connection: Connection,
        options: plan.Options,
        shape: frames.Shape,
        prompt: int,
        record: RequestRecord,
    ) -> None:
        self.number = number
        self.connection = connection
        self.options = options
        self.shape = shape
        self.prompt = prompt
        self.record = record
        self.digits = f"{number:08d}"
        self.tag = self.digits.encode()
        self.index = 0
        self.gone = False
        self.streamed = True
        self.closes = False
        self.chunks = -(-options.tokens // options.tokens_per_chunk)
        self.gap_ns = round(options.itl_ms * plan.MS)
        self.gaps = plan.gaps(options, number)
        self.continuous = options.usage == "continuous"

    def opening(self) -> tuple[int, bytes]:
        """(row code, what goes out before prefill); empty where nothing does."""
        early_role = self.options.role == "early" and self.shape.chat
        if self.options.headers == "withheld" and not early_role:
            return HEAD_ROW, b""
        if early_role:
            return ROLE_ROW, frames.HEAD + self.shape.role(self.digits)
        return HEAD_ROW, frames.HEAD

    def frame(self) -> bytes:
        """What the send of chunk ``index`` bears."""
        index = self.index
        if 0 < index < self.chunks - 1 and not self.continuous:
            before, after = self.shape.usual(index)
            return before + self.tag + after
        return self._first_part() + self._chunk() + self._last_part()

    def closing(self) -> list[bytes]:
        """What follows the last chunk in sends of its own (``tail=separate``)."""
        if self.options.tail == "joined":
            return []
        rest = self._end()
        usage = self._usage_event()
        return [usage, rest] if usage else [rest]

    def next_gap(self) -> int:
        """ns from the chunk that was just sent to the next one."""
        gap = self.gap_ns if self.gaps is None else next(self.gaps)
        if self.index == self.options.stall_at:
            gap += round(self.options.stall_ms * plan.MS)
        return gap

    def _first_part(self) -> bytes:
        if self.index:
            return b""
        opened = self.opening()[1]
        head = b"" if opened else frames.HEAD
        return head + (self.shape.role(self.digits) if self.options.role == "with_first" else b"")

    def _chunk(self) -> bytes:
        done = self.index * self.options.tokens_per_chunk
        count = min(self.options.tokens_per_chunk, self.options.tokens - done)
        usage = frames.Usage(self.prompt, done + count) if self.continuous else None
        finish = "length" if self.index == self.chunks - 1 else None
        return self.shape.chunk(self.digits, self.index, count, finish, usage)

    def _last_part(self) -> bytes:
        if self.index < self.chunks - 1 or self.options.tail == "separate":
            return b""
        return self._usage_event() + self._end()

    def _usage_event(self) -> bytes:
        if self.options.usage == "none":
            return b""
        usage = frames.Usage(self.prompt, self.options.tokens)
        return self.shape.usage_event(self.digits, usage)

    def _end(self) -> bytes:
        return (b"" if self.options.no_done else frames.DONE) + frames.END


def error_event() -> bytes:
    """What a server that fails in mid-stream sends, and the end of the stream."""
    failed = {"message": "engine failed", "type": "internal", "code": 500}
    return frames.event({"error": failed}) + frames.DONE + frames.END
