"""A network that takes its time: passes bytes on, both ways, later than they came.

A process of its own in front of a server. What a connection bears keeps its order in each
direction; so do its ends, whether said politely (half-close) or not (reset).
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from itertools import count
from time import monotonic_ns

from latdiag.sim.connection import receive, want_stamps
from latdiag.sim.loop import READ, WRITE, Lateness, Loop
from latdiag.sim.process import Report, serve

#: Bytes under way in one direction of one connection, beyond which its sender has to wait.
MAX_UNDER_WAY = 4 << 20
_MAX_CONNECTIONS = 1024
#: To a listener on this machine: done or refused at once, unless it hangs.
_CONNECT_S = 0.2
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Setup:
    """``upstream``: port of the server behind. Times in ms: one way, and the mean of an
    exponential on top of it, drawn anew for everything that is read."""

    upstream: int
    delay_ms: float
    jitter_ms: float = 0.0
    port: int = 0
    seed: int = 0


class End:
    """One socket of a pair, and what is on its way to it: (due, bytes), b"" for a half-close."""

    __slots__ = ("_mask", "coming", "held", "last_due_ns", "loop", "other", "pair", "reading",
                 "shut", "sock", "under_way")  # fmt: skip

    def __init__(self, pair: Pair, sock: socket.socket, loop: Loop) -> None:
        self.pair, self.sock, self.loop = pair, sock, loop
        self.other: End = self
        self.coming: deque[tuple[int, bytes]] = deque()
        self.held = bytearray()  # due, but the socket had no room
        self.under_way = self.last_due_ns = 0
        self.reading, self.shut = True, False
        self._mask = 0

    def watch(self) -> None:
        """Look at what matters now: input while there is room for it, room while bytes wait."""
        mask = READ if self.reading and self.other.under_way < MAX_UNDER_WAY else 0
        mask |= WRITE if self.held else 0
        if mask == self._mask:
            return
        self._mask = mask
        if mask:
            self.loop.watch(self.sock, mask, self.pair.ready_of(self))
        else:
            self.loop.forget(self.sock)


class Pair:
    """A client's connection and the one to the server that it stands for."""

    __slots__ = ("ends", "open", "relay")

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        self.relay, self.open = relay, True
        near, far = End(self, client, relay.loop), End(self, server, relay.loop)
        near.other, far.other = far, near
        self.ends = (near, far)
        for end in self.ends:
            end.watch()

    @property
    def to_client(self) -> End:
        return self.ends[0]

    def ready_of(self, end: End) -> Callable[[int], None]:
        def ready(mask: int) -> None:
            if mask & WRITE and self.open:
                self._write(end)
            if mask & READ and self.open and end.reading:
                self._read(end)

        return ready

    def _read(self, end: End) -> None:
        try:
            data, at_ns = receive(end.sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            end.reading = False
            end.watch()
            self.relay.later(self._due(end.other, monotonic_ns()), self.abort)
            return
        if not data:
            end.reading = False
        self._send_on(end.other, data, at_ns)
        end.watch()

    def _send_on(self, end: End, data: bytes, at_ns: int) -> None:
        """What arrived for ``end`` sets out; it overtakes nothing."""
        due_ns = self._due(end, at_ns)
        end.under_way += len(data)
        end.coming.append((due_ns, data))
        self.relay.later(due_ns, lambda: self._arrive(end))

    def _due(self, end: End, at_ns: int) -> int:
        end.last_due_ns = max(end.last_due_ns, at_ns + self.relay.delay_ns())
        return end.last_due_ns

    def _arrive(self, end: End) -> None:
        if not self.open:
            return
        due_ns, data = end.coming.popleft()
        if data:
            end.held += data
        else:
            end.shut = True
        self._write(end)
        self.relay.late.add(monotonic_ns() - due_ns)

    def _write(self, end: End) -> None:
        try:
            sent = end.sock.send(end.held) if end.held else 0
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.abort()
            return
        del end.held[:sent]
        end.under_way -= sent
        if end.shut and not end.held:
            self._half_close(end)
        if self.open:
            end.watch()
            end.other.watch()

    def _half_close(self, end: End) -> None:
        try:
            end.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()
            return
        near, far = self.ends
        if near.shut and far.shut and not near.held and not far.held:
            self._close()

    def abort(self) -> None:
        """A reset on one side is one on the other."""
        for end in self.ends:
            if self.open:
                end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close()

    def _close(self) -> None:
        if not self.open:
            return
        self.open = False
        for end in self.ends:
            self.relay.loop.forget(end.sock)
            end.sock.close()
        self.relay.pairs.discard(self)


class Relay:
    """All connections. ``run`` returns when ``stop`` was called, or stdin is at its end."""

    #: what stands for a connection; a gateway has one of its own
    pair: type[Pair] = Pair

    def __init__(self, setup: Setup, listener: socket.socket) -> None:
        self._delay_ns = setup.delay_ms * 1e6
        self._jitter_ns = setup.jitter_ms * 1e6
        self._upstream = ("127.0.0.1", setup.upstream)
        self._random = random.Random(f"{setup.seed} network")
        self._later: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._listener = listener
        self._stopped = False
        self.late = Lateness()
        self.loop = Loop()
        self.pairs: set[Pair] = set()
        listener.setblocking(False)
        want_stamps(listener)
        self.loop.watch(listener, READ, self._accept)
        self.loop.end_by(self.stop)

    def stop(self) -> None:
        self._stopped = True

    def delay_ns(self) -> int:
        """One way, drawn anew."""
        jitter = self._random.expovariate(1 / self._jitter_ns) if self._jitter_ns else 0.0
        return round(self._delay_ns + jitter)

    def later(self, at_ns: int, act: Callable[[], None]) -> None:
        heappush(self._later, (at_ns, next(self._numbers), act))

    def run(self) -> Report:
        """Relay until stopped; how late it was with what it passed on."""
        while not self._stopped:
            self.loop.wait(self._later[0][0] if self._later else None)
            now_ns = monotonic_ns()
            while self._later and self._later[0][0] <= now_ns:
                heappop(self._later)[2]()
        for pair in list(self.pairs):
            pair.abort()
        self.loop.close()
        return Report(self.late.report())

    def _accept(self, _mask: int) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it is gone again
        if len(self.pairs) >= _MAX_CONNECTIONS:
            client.close()
            return
        server = socket.socket()
        server.settimeout(_CONNECT_S)
        try:
            server.connect(self._upstream)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            server.close()
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            want_stamps(sock)
        self.pairs.add(self.pair(self, client, server))


def main() -> None:
    """A relay process: its Setup as JSON is the argument. See ``process.running``."""
    setup = Setup(**json.loads(sys.argv[1]))
    serve(setup.port, None, lambda listener, _: Relay(setup, listener))


def arguments(setup: Setup) -> str:
    """The argument for ``main``."""
    return json.dumps(asdict(setup))


if __name__ == "__main__":
    main()
