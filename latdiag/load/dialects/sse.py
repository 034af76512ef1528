"""Server-sent events out of bytes, as the WHATWG HTML standard, section 9.2.6, prescribes.

Bytes in, bytes out: a field name is ASCII and UTF-8 never hides a line ending, so decoding can
wait for whoever reads the JSON. Differences to a browser: ``id`` and ``retry`` mean nothing to a
single reply, and there are limits, because whatever arrives may be hostile.
"""

from __future__ import annotations

LINE_LIMIT = 8 * 1024 * 1024
EVENT_LIMIT = 8 * 1024 * 1024

#: What ends a stream by the custom of OpenAI's API, and of how many last bytes it is part.
END_MARK, END_WITHIN = b"[DONE]", 12

_BOM = b"\xef\xbb\xbf"
_LF = 10
_CR = 13


class SseFault(ValueError):
    """A line or an event over its limit. ``completed``: events that this feed ended before it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.completed: list[bytes] = []


class TypedData(bytes):
    """The data of an event whose type is not ``message``."""

    event_type: str

    def __new__(cls, data: bytes, event_type: str) -> TypedData:
        made = super().__new__(cls, data)
        made.event_type = event_type
        return made

    def __reduce__(self) -> tuple[type[TypedData], tuple[bytes, str]]:
        return TypedData, (bytes(self), self.event_type)


class EventStream:
    """One reply's events. Feed what was received; each feed returns the data of the events that
    it completed: ``bytes``, or :class:`TypedData` where the event has a type of its own.

    Bytes may be split anywhere. An event that the end of the reply cuts off is never returned;
    ``pending`` tells that there is one. Over a limit :class:`SseFault` is raised, and again at
    every later feed: what follows cannot be told apart from the inside of the broken event.
    """

    __slots__ = ("_after_cr", "_at_start", "_data", "_event_type", "_fault", "_tail", "_whole")

    def __init__(self) -> None:
        self._tail = bytearray()  # an unfinished line
        self._data: bytes | bytearray | None = None  # of the unfinished event; None: no data line
        self._event_type = ""
        self._after_cr = False  # the last byte was CR: an LF to come belongs to it
        self._at_start = True  # a byte order mark may still come
        self._whole = False  # between two events: nothing is held
        self._fault = ""

    @property
    def pending(self) -> bool:
        """Whether an unfinished event or line is held: the reply ended in its midst."""
        return bool(self._tail or self._data is not None or self._event_type)

    def feed(self, data: bytes) -> list[bytes]:
        """The data of all events that ``data`` completes, in order."""
        # What servers send nearly always: one event of one line in one piece.
        if (
            self._whole
            and data.find(b"\n") == len(data) - 2
            and data.endswith(b"\n\n")
            and data.startswith(b"data: ")
            and data.find(b"\r") < 0
            and len(data) <= EVENT_LIMIT
        ):
            return [data[6:-2]]
        return self._feed(data)

    def _feed(self, data: bytes) -> list[bytes]:
        if self._fault:
            raise SseFault(self._fault)
        if self._at_start:
            data = self._past_bom(data)
        if data and self._after_cr:
            self._after_cr = False
            if data[0] == _LF:
                data = data[1:]
        done: list[bytes] = []
        if data:
            try:
                for line in self._lines(data):
                    self._take(line, done)
                self._check_line(len(self._tail))
            except SseFault as fault:
                self._fault = str(fault)
                self._whole = False
                fault.completed = done
                raise
        self._whole = not (self._after_cr or self._at_start or self.pending)
        return done

    def rest(self) -> bytes | None:
        """The data of the event that the end of the reply left without its blank line; None where
        there is none. Whether it is whole, only who reads it can tell."""
        if self._fault or self._at_start:
            return None
        done: list[bytes] = []
        if self._tail:
            line = bytes(self._tail)
            self._tail.clear()
            self._take(line, done)
        self._dispatch(done)
        return done[0] if done else None

    def _past_bom(self, data: bytes) -> bytes:
        """``data`` without the byte order mark; empty while that cannot be told yet."""
        if not data:
            return data
        data = bytes(self._tail) + data
        self._tail.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._tail += data
            return b""
        self._at_start = False
        return data.removeprefix(_BOM)

    def _lines(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their ends; the rest becomes the tail."""
        lines = data.splitlines()  # of bytes: at LF, CR and CRLF only
        last = data[-1]
        self._after_cr = last == _CR
        if self._tail:
            # Only the new bytes were searched, and appending is amortised: cost stays linear.
            self._tail += lines[0]
            if len(lines) == 1 and last not in (_LF, _CR):
                return []
            lines[0] = bytes(self._tail)
            self._tail.clear()
        if last not in (_LF, _CR):
            self._tail += lines.pop()
        return lines

    def _take(self, line: bytes, done: list[bytes]) -> None:
        """One complete line. Comments and fields without a meaning here pass by."""
        if not line:
            self._dispatch(done)
            return
        self._check_line(len(line))
        if line.startswith(b"data: "):
            self._add(line[6:])
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._add(value)
        elif name == b"event":
            self._event_type = value.removeprefix(b" ").decode("utf-8", "replace")

    def _add(self, value: bytes) -> None:
        held = self._data
        size = len(value) if held is None else len(held) + 1 + len(value)
        if size > EVENT_LIMIT:
            raise SseFault(f"an event of more than {EVENT_LIMIT >> 20} MiB")
        if held is None:
            self._data = value
            return
        if not isinstance(held, bytearray):
            held = self._data = bytearray(held)
        held += b"\n"
        held += value

    def _dispatch(self, done: list[bytes]) -> None:
        if self._data is not None:
            data = bytes(self._data)
            plain = self._event_type in ("", "message")
            done.append(data if plain else TypedData(data, self._event_type))
        self._data = None
        self._event_type = ""

    @staticmethod
    def _check_line(size: int) -> None:
        if size > LINE_LIMIT:
            raise SseFault(f"a line of more than {LINE_LIMIT >> 20} MiB")
