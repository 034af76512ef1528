"""A gateway that takes its time: HTTP requests passed on as an API gateway does, with its faults.

A process of its own in front of a server. It delays POSTs (as who checks a key or a guardrail),
works on each token, gathers a stream and lets it go by a timer, and lets so many POSTs through at
once. GETs it passes on at once: what they show of a gateway is not what a POST meets. What it did
to each request goes to a file, to the nanosecond.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from collections import deque
from dataclasses import asdict, dataclass
from time import monotonic_ns

from latdiag.sim import relay
from latdiag.sim.process import Books, serve
from latdiag.sim.relay import End, Pair, Relay

#: Ends a reply in chunks; any other reply of the demo server comes in one piece.
_LAST_CHUNK = b"0\r\n\r\n"
_STREAMS = b"text/event-stream"
_EVENT = b"data: {"
_TOKEN = re.compile(rb'"(?:content|text)":\s*"[^"]')
_ID = re.compile(rb"(?im)^x-request-id:[ \t]*([!-~]{1,200})\r$")
_TRACE = re.compile(rb"(?im)^traceparent:[ \t]*00-([0-9a-f]{32})-")


@dataclass(frozen=True, slots=True)
class Setup:
    """``upstream``: port of the server behind. ``delay_ms``: of each POST; ``token_ms``: work on
    each event, one after the other within a stream; ``flush_ms``: from the first byte that is held
    until all that is held leaves, 0: nothing is; the end of a stream leaves at once. ``admits``:
    POSTs behind it at once, 0: all. ``truth``: path, or None."""

    upstream: int
    delay_ms: float = 0.0
    token_ms: float = 0.0
    flush_ms: float = 0.0
    admits: int = 0
    port: int = 0
    truth: str | None = None


@dataclass(slots=True)
class Visit:
    """A POST on its way through; instants of CLOCK_MONOTONIC, 0: not yet. ``in``: the kernel's
    stamp of what came; ``out``: when it was handed to the kernel."""

    request_id: str
    trace_id: str
    request_in_ns: int
    request_out_ns: int = 0
    first_in_ns: int = 0
    first_out_ns: int = 0
    last_in_ns: int = 0
    last_out_ns: int = 0

    def line(self) -> str:
        """As a line of the truth file, with what the gateway had of the whole, and until the
        first token."""
        front = self.request_out_ns - self.request_in_ns
        first = self.first_out_ns - self.first_in_ns
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["gateway_ns"] = front + self.last_out_ns - self.last_in_ns
        fields["first_token_gateway_ns"] = front + first
        return json.dumps(fields) + "\n"


class GatewayPair(Pair):
    """A connection through the gateway: one request at a time, as clients of HTTP/1.1 send."""

    __slots__ = ("_answering", "_beat", "_busy_ns", "_held", "_post", "_visit", "_waits")
    relay: Gateway

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        self._answering = True  # what comes from the client begins a request
        self._visit: Visit | None = None
        self._post = False
        self._waits: deque[tuple[bytes, int]] | None = None  # until it is admitted
        self._busy_ns = self._beat = 0
        self._held = bytearray()
        super().__init__(relay, client, server)

    # ------------------------------------------------------------------ to the server
    def _send_on(self, end: End, data: bytes, at_ns: int) -> None:
        if not data:
            self._flush()
            super()._send_on(end, data, at_ns)
        elif end is self.to_client:
            self._reply(end, data, at_ns)
        else:
            self._ask(end, data, at_ns)

    def _ask(self, end: End, data: bytes, at_ns: int) -> None:
        if self._answering:
            self._answering, self._post = False, data[:5] == b"POST "
            if self._post:
                self._visit = Visit(_found(_ID, data), _found(_TRACE, data), at_ns)
                if not self.relay.admit(self):
                    self._waits = deque()
        if self._visit is not None and not self._visit.request_out_ns:
            self._visit.request_in_ns = at_ns  # of its last byte
        if self._waits is not None:
            self._waits.append((data, at_ns))
            return
        self._pass_on(end, data, at_ns)

    def _pass_on(self, end: End, data: bytes, at_ns: int) -> None:
        due_ns = at_ns + (self.relay.post_ns if self._post else 0)
        self._later(end, data, due_ns)

    def admitted(self) -> None:
        """Its turn has come: what waited goes on."""
        waiting, self._waits = self._waits or deque(), None
        now_ns = monotonic_ns()
        for data, _ in waiting:
            self._pass_on(self.ends[1], data, now_ns)

    # ------------------------------------------------------------------ to the client
    def _reply(self, end: End, data: bytes, at_ns: int) -> None:
        self._answering = True
        visit = self._visit
        if not self._post or visit is None:
            self._later(end, data, at_ns)
            return
        if not visit.first_in_ns and _TOKEN.search(data):
            visit.first_in_ns = at_ns
        if data.endswith(_LAST_CHUNK) or (not self._busy_ns and _STREAMS not in data):
            visit.last_in_ns = at_ns
        work_ns = self.relay.token_ns * data.count(_EVENT)
        self._busy_ns = max(self._busy_ns, at_ns) + work_ns
        if not self.relay.flush_ns:
            self._later(end, data, self._busy_ns)
            return
        self._held += data
        if visit.last_in_ns:
            self._flush()
        elif not self._beat:
            self._beat = self._busy_ns + self.relay.flush_ns
            beat = self._beat
            self.relay.later(beat, lambda: self._flush() if self._beat == beat else None)

    def _flush(self) -> None:
        """All that is held leaves, in one piece."""
        self._beat = 0
        if self._held and self.open:
            data, self._held = bytes(self._held), bytearray()
            self._later(self.to_client, data, monotonic_ns())

    def _later(self, end: End, data: bytes, due_ns: int) -> None:
        end.last_due_ns = max(end.last_due_ns, due_ns)
        end.under_way += len(data)
        end.coming.append((end.last_due_ns, data))
        self.relay.later(end.last_due_ns, lambda: self._arrive(end))

    def _arrive(self, end: End) -> None:
        data = end.coming[0][1] if end.coming else b""
        visit, now_ns = self._visit, monotonic_ns()
        super()._arrive(end)
        if visit is None or not data or not self._post:
            return
        if end is not self.to_client:
            visit.request_out_ns = now_ns
            return
        if not visit.first_out_ns and _TOKEN.search(data):
            visit.first_out_ns = now_ns
        if visit.last_in_ns and not end.coming:
            visit.last_out_ns = now_ns
            self._ended(visit)

    def _ended(self, visit: Visit) -> None:
        self._visit, self._post, self._busy_ns = None, False, 0
        self.relay.tell(visit)
        self.relay.released(self)

    def _close(self) -> None:
        super()._close()
        self.relay.released(self)


def _found(pattern: re.Pattern[bytes], data: bytes) -> str:
    match = pattern.search(data)
    return match[1].decode("ascii") if match else ""


class Gateway(Relay):
    """All connections, and how many POSTs are behind the gateway."""

    pair = GatewayPair

    def __init__(self, setup: Setup, listener: socket.socket, truth: Books | None) -> None:
        super().__init__(relay.Setup(setup.upstream, 0.0, port=setup.port), listener)
        self.post_ns = round(setup.delay_ms * 1e6)
        self.token_ns = round(setup.token_ms * 1e6)
        self.flush_ns = round(setup.flush_ms * 1e6)
        self._admits = setup.admits
        self._truth = truth
        self._behind: set[GatewayPair] = set()
        self._waiting: deque[GatewayPair] = deque()

    def admit(self, pair: GatewayPair) -> bool:
        """Whether a POST goes on now; else it waits for its turn."""
        if self._admits and len(self._behind) >= self._admits:
            self._waiting.append(pair)
            return False
        self._behind.add(pair)
        return True

    def released(self, pair: GatewayPair) -> None:
        """Its POST is answered, or its connection gone."""
        if pair in self._waiting:
            self._waiting.remove(pair)
        if pair not in self._behind:
            return
        self._behind.discard(pair)
        while self._waiting:
            following = self._waiting.popleft()
            if following.open:
                self._behind.add(following)
                following.admitted()
                return

    def tell(self, visit: Visit) -> None:
        if self._truth is not None and visit.first_in_ns:
            self._truth.write(visit.line())


def main() -> None:
    """A gateway process: its Setup as JSON is the argument. See ``process.running``."""
    setup = Setup(**json.loads(sys.argv[1]))
    serve(setup.port, setup.truth, lambda listener, truth: Gateway(setup, listener, truth))


def arguments(setup: Setup) -> str:
    """The argument for ``main``."""
    return json.dumps(asdict(setup))


if __name__ == "__main__":
    main()
