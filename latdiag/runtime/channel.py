"""How latdiag's own processes talk: one framing, and declared messages in it.

A frame is four bytes of length and marshal (the fastest serialiser that Python has). Both ends
run this very code, so marshal meets only itself. A frame that a killed sender left half written
is dropped with its pipe.

What is sent seldom is a message: a frozen dataclass or a NamedTuple that ``message`` declares. It
comes back equal, with every field, because no field is named twice. What a reader hands to its
writer thousands of times a second are frames of plain tuples (``encode``, ``Frames``).
"""

from __future__ import annotations

import dataclasses
import fcntl
import marshal
import os
import select
import socket
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple, TypeVar

from latdiag.model.errors import LatdiagError

_F_SETPIPE_SZ = 1031
_PIPE_SIZE = 1 << 20
_PIECE = 1 << 18
#: Bytes of a frame, and of a message: a stage of some hundred thousand requests.
LARGEST_FRAME, LARGEST_MESSAGE = 1 << 30, 16 << 20
#: Characters of a traceback that pass.
_TRACE = 16 << 10
BUG_REMEDY = "run it again with `latdiag -vv ...` and report the traceback"

_Kind = TypeVar("_Kind", bound=type[Any])


# ---------------------------------------------------------------------- frames
class Record:
    """First item of every tuple that a reader sends: plain ints, marshal knows no enum."""

    BODY = 0  # (BODY, n, real_ns, user_ns, floor_ns, bytes)
    BEGUN = 1  # (BEGUN, n, request_id, trace_id, span_id, due_ns, isl, osl, stage, sent_ns, body)
    ENDED = 2  # (ENDED, n, *Ended)
    MESSAGE = 3  # (MESSAGE, a message that is packed), for what is sent seldom
    HEAD = 4  # (HEAD, n, status, content-encoding, content-type), before the first BODY


def wide_pipe() -> tuple[int, int]:
    """A pipe with as much room as the system grants, so that nobody waits for a moment's burst."""
    reading, writing = os.pipe()
    widen(writing)
    return reading, writing


def widen(pipe: int) -> None:
    """Give a pipe as much room as the system grants."""
    try:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        pass


def encode(content: Any) -> bytes:
    """A frame of plain values: for the hot path a list of tuples, each a ``Record``."""
    data = marshal.dumps(content)
    return len(data).to_bytes(4, "little") + data


class Frames:
    """Bytes in, the contents of whole frames out. LatdiagError for a frame over the bound."""

    def __init__(self, largest: int = LARGEST_FRAME) -> None:
        self._held = bytearray()
        self._largest = largest

    def feed(self, data: bytes) -> Iterator[Any]:
        held = self._held
        held += data
        start = 0
        while len(held) - start >= 4:
            size = int.from_bytes(held[start : start + 4], "little")
            if size > self._largest:
                raise _too_large(size)
            if len(held) - start - 4 < size:
                break
            with memoryview(held) as view:
                content = marshal.loads(view[start + 4 : start + 4 + size])
            start += 4 + size
            yield content
        del held[:start]


def _too_large(size: int) -> LatdiagError:
    text = f"a bug in latdiag: a process of its own sends {size:,} bytes at once"
    return LatdiagError(text, BUG_REMEDY)


# ---------------------------------------------------------------------- messages
#: Every declared message by its name, and the names of its fields.
MESSAGES: dict[str, type[Any]] = {}
_FIELDS: dict[type[Any], tuple[str, ...]] = {}
_PLAIN = frozenset((type(None), bool, int, float, str, bytes))


def message(kind: _Kind) -> _Kind:
    """Declare a frozen dataclass or a NamedTuple as what passes between processes.

    Its fields hold None, numbers, texts, bytes, tuples, lists, dicts, frozensets, and messages.
    """
    named: tuple[str, ...] | None = getattr(kind, "_fields", None)
    if named is None:
        fields = dataclasses.fields(kind)
        assert all(field.init and not field.kw_only for field in fields), kind
        named = tuple(field.name for field in fields)
    assert kind.__name__ not in MESSAGES, f"two messages are named {kind.__name__}"
    MESSAGES[kind.__name__] = kind
    _FIELDS[kind] = named
    return kind


def packed(value: Any) -> Any:
    """``value`` as marshal takes it: a tuple bears the name of its message first, or none.

    Numbers of numpy become plain ones. TypeError for what no message may hold.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if (fields := _FIELDS.get(kind)) is not None:
        return (kind.__name__, *[packed(getattr(value, name)) for name in fields])
    if kind is tuple:
        return ("", *map(packed, value))
    if kind in (list, frozenset):
        return kind(map(packed, value))
    if kind is dict:
        return {packed(key): packed(inner) for key, inner in value.items()}
    for plain in (str, int, float):  # an enum, or a number of numpy that is also Python's
        if isinstance(value, plain):
            return plain.__str__(value) if plain is str else plain(value)
    if getattr(value, "ndim", None) == 0:  # a number of numpy
        return packed(value.item())
    raise TypeError(f"{kind.__name__} is no declared message: {value!r:.200}")


def unpacked(value: Any) -> Any:
    """What ``packed`` was given."""
    kind = type(value)
    if kind is tuple:
        items = map(unpacked, value[1:])
        return MESSAGES[value[0]](*items) if value[0] else tuple(items)
    if kind in (list, frozenset):
        return kind(map(unpacked, value))
    if kind is dict:
        return {unpacked(key): unpacked(inner) for key, inner in value.items()}
    return value


@message
class Fault(NamedTuple):
    """What stopped a process: a LatdiagError by its words, or a bug with its traceback."""

    code: str
    text: str
    remedy: str
    trace: str = ""

    @staticmethod
    def of(error: BaseException, doing: str = "") -> Fault:
        """``doing`` begins the words for a bug: ``the design of the probe failed``."""
        if isinstance(error, LatdiagError):
            return Fault(error.code, error.text, error.remedy)
        name = type(error).__name__
        what = f"{name}: {error}" if str(error) else name
        text = f"a bug in latdiag: {doing}: {what}" if doing else f"a bug in latdiag: {what}"
        trace = "".join(traceback.format_exception(error))[-_TRACE:]
        return Fault(LatdiagError.code, text, BUG_REMEDY, trace)

    def error(self, run: str | None = None) -> LatdiagError:
        """The same error here. A bug's traceback is a note: the one here ends at the channel."""
        kinds = {kind.code: kind for kind in LatdiagError.__subclasses__()}
        error = kinds.get(self.code, LatdiagError)(self.text, self.remedy, run)
        if self.trace:
            error.add_note(self.trace)
        return error


# ---------------------------------------------------------------------- both ways
class Channel:
    """One end of a stream of messages both ways; the other end is in another process.

    ``ended``: the other end is closed, and all that it sent has been taken. Blocking with
    ``send`` and ``receive``; ``arrived`` never waits; with asyncio ``post`` and ``messages``.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._frames = Frames(LARGEST_MESSAGE)
        self._waiting: deque[Any] = deque()
        self._unsent = bytearray()
        self.ended = False

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        one, other = socket.socketpair()
        return cls(one), cls(other)

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self._end.fileno()

    def finish(self) -> None:
        """Send nothing more, which the other end sees; it may still send."""
        try:
            self._end.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._end.close()
        self.ended = True

    def send(self, content: Any) -> bool:
        """Send a message; whether the other end is still there to take it."""
        try:
            self._end.sendall(_frame(content))
        except OSError:  # why it is gone is known where its answer is missed
            return False
        return True

    def receive(self, seconds: float | None = None) -> Any | None:
        """The next message, awaited for at most ``seconds``; None without one."""
        until = None if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        while not self._waiting:
            if self.ended:
                return None
            poll.register(self._end, select.POLLIN)
            if not poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000):
                return None
            self._read()
        return self._waiting.popleft()

    def arrived(self) -> Iterator[Any]:
        """The messages that are there."""
        while self._read():
            pass
        while self._waiting:
            yield self._waiting.popleft()

    def _read(self) -> bool:
        """Take what is there; whether there was anything."""
        try:
            data = self._end.recv(_PIECE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:  # it left with messages of ours unread
            data = b""
        self._take(data)
        return bool(data)

    def _take(self, data: bytes) -> None:
        self.ended = not data
        self._waiting.extend(map(unpacked, self._frames.feed(data)))

    # ------------------------------------------------------------------ in an event loop
    async def messages(self) -> AsyncIterator[Any]:
        """Every message, until the other end is closed."""
        import asyncio

        self._end.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self.ended:
                return
            try:
                self._take(await loop.sock_recv(self._end, _PIECE))
            except OSError:
                self.ended = True

    def post(self, content: Any) -> None:
        """Send a message without waiting: what finds no room leaves when there is some."""
        import asyncio

        self._end.setblocking(False)
        self._unsent += _frame(content)
        self._push(asyncio.get_running_loop())

    def _push(self, loop: Any) -> None:
        try:
            sent = self._end.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(self._unsent)  # nobody is there to take it
        del self._unsent[:sent]
        loop.remove_writer(self._end)
        if self._unsent:
            loop.add_writer(self._end, self._push, loop)

    def flush(self) -> None:
        """Send what was posted, waiting as long as it takes: the end of a process."""
        self._end.setblocking(True)
        try:
            self._end.sendall(self._unsent)
        except OSError:
            pass
        self._unsent.clear()


def _frame(content: Any) -> bytes:
    data = encode(packed(content))
    if len(data) > LARGEST_MESSAGE:
        raise _too_large(len(data))
    return data
