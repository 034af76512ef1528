"""The demo server: a simulated engine in real time behind OpenAI's API.

The engine runs on a schedule of its own; this shell submits what arrives, with the instant at
which it arrived, and sends each token as soon as the schedule says. What it is late by does not
move the schedule, and is measured.
"""

from __future__ import annotations

import heapq
import json
import random
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import count
from time import monotonic_ns

from latdiag.runtime.children import settle_memory
from latdiag.sim import http, openai, spans
from latdiag.sim.connection import Connection, want_stamps
from latdiag.sim.engine import Crossing, Emission, Engine
from latdiag.sim.exposition import CONTENT_TYPE
from latdiag.sim.loop import READ, Loop
from latdiag.sim.params import Params
from latdiag.sim.process import Books, Report, serve
from latdiag.sim.telemetry import Telemetry
from latdiag.sim.teller import Tellers
from latdiag.sim.truth import DECODE, PREFILL, WHOLE

_MAX_CONNECTIONS = 1024
#: Bytes of a body: so much, and so much for each token of the longest prompt.
_BODY_ROOM, _BODY_PER_TOKEN = 1 << 20, 32
_ID_LIMIT = 200
#: With nothing in flight, memory is tidied up after so many requests.
_TIDY_AFTER = 256


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server is started with; travels as JSON. ``truth``: path, ``otlp``: URL, or None.
    ``timings``: replies state their requests' times."""

    params: Params
    seed: int = 0
    port: int = 0
    model: str = "demo"
    truth: str | None = None
    otlp: str | None = None
    timings: bool = False
    telemetry: Telemetry = field(default_factory=Telemetry)

    def to_json(self) -> str:
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps(own | {n: own[n].to_json() for n in ("params", "telemetry")})

    @classmethod
    def from_json(cls, text: str) -> Setup:
        found = json.loads(text)
        found["params"] = Params.from_json(found["params"])
        found["telemetry"] = Telemetry.from_json(found["telemetry"])
        return cls(**found)


@dataclass(slots=True, eq=False)
class Stream:
    """A request in the engine. ``next_bytes``: of token ``next_index``, if it is streamed.

    ``part``: of the server that it is on, ``here_ns``: since when.
    """

    key: str
    connection: Connection
    request: http.Request
    ask: openai.Ask
    reply: openai.Reply
    context: spans.Context
    reason: str
    osl: int
    part: str
    here_ns: int
    next_index: int = 0
    next_bytes: bytes = b""
    last_ns: int = 0
    late_ns: int = 0

    def prepare(self, index: int) -> None:
        self.next_index, self.next_bytes = index, self.reply.token(index, index + 1 == self.osl)

    def bytes_of(self, emission: Emission) -> bytes:
        """Prepared, unless tokens before it leave at the same moment (short steps, late)."""
        if emission.index != self.next_index:
            return self.reply.token(emission.index, emission.last)
        return self.next_bytes

    @property
    def request_id(self) -> str:
        return self.reply.id.partition("-")[2]

    @property
    def asked(self) -> spans.Asked:
        ask = self.ask
        return spans.Asked(self.reply.id, ask.chat, ask.max_tokens, ask.temperature)


class Server:
    """The shell. ``run`` returns when ``stop`` was called, or stdin is at its end."""

    def __init__(self, setup: Setup, listener: socket.socket, truth: Books | None) -> None:
        params = setup.params
        self._setup, self._params = setup, params
        self._rules = openai.Rules(
            setup.model, params.max_model_len, params.refuses, params.eos_mean
        )
        self._engine = Engine(params, setup.seed)
        self._random = random.Random(f"{setup.seed} lengths")
        self._created_s = time.time()
        self._tellers = Tellers(
            params, setup.model, setup.telemetry, self._engine.gauges, setup.otlp, setup.seed
        )
        self._loop = Loop()
        self._listener = listener
        self._max_body = _BODY_ROOM + _BODY_PER_TOKEN * params.max_model_len
        self._connections: dict[Connection, None] = {}
        self._inbox: deque[tuple[Connection, http.Request, int]] = deque()
        self._later: list[tuple[int, int, Callable[[], None]]] = []
        self._streams: dict[str, Stream] = {}
        self._by_connection: dict[Connection, Stream] = {}
        self._numbers = count()
        self._untidy = 0
        self._stopped = False
        self._truth = truth
        listener.setblocking(False)
        want_stamps(listener)
        self._loop.watch(listener, READ, self._accept)
        self._loop.end_by(self.stop)

    # ------------------------------------------------------------------ its life
    def stop(self) -> None:
        self._stopped = True

    def run(self) -> Report:
        """Serve until stopped; what there was: requests, lateness, spans."""
        while not self._stopped:
            self._loop.wait(self._due_ns())
            self._carry_out(monotonic_ns())
            if self._inbox:
                self._serve(*self._inbox.popleft())
            elif self._untidy > _TIDY_AFTER and not self._streams:
                self._untidy = 0
                settle_memory()
        for connection in list(self._connections):
            connection.drop()
        self._loop.close()
        exported = self._tellers.close()
        return Report(self._tellers.own.late.report(), exported)

    def _due_ns(self) -> int | None:
        """When there is something to do; 0: now."""
        if self._inbox:
            return 0
        due_ns = self._engine.next_ns()
        if self._later and (due_ns is None or self._later[0][0] < due_ns):
            due_ns = self._later[0][0]
        return due_ns

    def _carry_out(self, now_ns: int) -> None:
        """All that is due: first what clients wait for, then the bookkeeping."""
        while self._later and self._later[0][0] <= now_ns:
            heapq.heappop(self._later)[2]()
        emitted = self._engine.advance(now_ns)
        streams, late = self._streams, self._tellers.own.late
        for emission in emitted:
            stream = streams.get(emission.key)  # None: its client went away a moment ago
            if stream is not None and stream.next_bytes:
                stream.connection.send(stream.bytes_of(emission))
                late_ns = monotonic_ns() - emission.at_ns
                late.add(late_ns)
                if late_ns > stream.late_ns:
                    stream.late_ns = late_ns
        for crossing in self._engine.take_crossings():
            if (stream := streams.get(crossing.key)) is not None:
                self._cross(stream, crossing)
        for emission in emitted:
            if (stream := streams.get(emission.key)) is not None:
                self._note(stream, emission)
            elif emission.last:
                self._engine.pop_truth(emission.key)

    # ------------------------------------------------------------------ connections
    def _accept(self, _mask: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # it is gone again, or there is no descriptor left
        if len(self._connections) >= _MAX_CONNECTIONS:
            idle = next((one for one in self._connections if not one.busy), None)
            if idle is None:
                sock.close()
                return
            idle.drop()
        connection = Connection(sock, self._loop, self._max_body, self._arrived, self._gone)
        self._connections[connection] = None

    def _arrived(self, connection: Connection, request: http.Request, at_ns: int) -> None:
        self._inbox.append((connection, request, at_ns))

    def _gone(self, connection: Connection, spoilt: bool) -> None:
        """A client went away, or was dropped: the engine need not go on for it."""
        self._connections.pop(connection, None)
        self._tellers.own.counts["connections_dropped"] += spoilt
        stream = self._by_connection.pop(connection, None)
        if stream is not None:
            del self._streams[stream.key]
            self._engine.cancel(stream.key, monotonic_ns())
            self._tellers[stream.part].metrics.aborted()

    # ------------------------------------------------------------------ requests
    def _serve(self, connection: Connection, request: http.Request, at_ns: int) -> None:
        if connection.closed:
            return
        try:
            self._route(connection, request, at_ns)
        except http.Refusal as refusal:
            self._answer(connection, request, refusal.status, refusal.body)

    def _route(self, connection: Connection, request: http.Request, at_ns: int) -> None:
        path = request.path
        if path in (openai.CHAT, openai.COMPLETIONS):
            request.must_be("POST")
            ask = openai.parse_ask(request.body, chat=path == openai.CHAT, rules=self._rules)
            self._submit(connection, request, ask, at_ns)
            return
        pages = self._tellers.pages()
        if path in pages:
            request.must_be("GET")
            self._answer(connection, request, 200, pages[path]().encode(), CONTENT_TYPE)
            return
        if path not in ("/health", openai.MODELS):
            raise http.Refusal(404, f"nothing here; try {openai.CHAT}, not {path[:100]}")
        request.must_be("GET")
        models = openai.models(self._rules, int(self._created_s))
        kind, body = ("text/plain", b"") if path == "/health" else ("application/json", models)
        self._answer(connection, request, 200, body, kind)

    def _answer(
        self,
        connection: Connection,
        request: http.Request,
        status: int,
        body: bytes,
        kind: str = "application/json",
    ) -> None:
        connection.send(http.reply(status, body, kind, keeps=request.keeps))
        connection.done(keeps=request.keeps)

    def _submit(
        self, connection: Connection, request: http.Request, ask: openai.Ask, at_ns: int
    ) -> None:
        """Hand a request to the engine. Headers leave when it has been parsed, as in vLLM, and so
        does the answer to one that is refused."""
        params = self._params
        parsed_ns = at_ns + round(params.frontend_ms * 1e6 + params.frontend_us * 1e3 * ask.isl)
        key = str(next(self._numbers))
        osl, reason = ask.length(params.eos_mean, self._random.random())
        refusal = ask.refusal
        if refusal is None:
            prompt = ask.prompt if params.prefix_cache else None
            try:
                self._engine.submit(key, at_ns, ask.isl, osl, prompt)
            except ValueError as exc:
                refusal = http.Refusal(400, str(exc), "prompt")
        if refusal is not None:
            self._refuse_at(parsed_ns, connection, request, refusal)
            return
        response_id = f"{'chatcmpl' if ask.chat else 'cmpl'}-{_request_id(request)}"
        self._tellers.request(at_ns)
        chunks = request.chunks
        reply = openai.Reply(ask, response_id, int(time.time()), self._rules.model, reason, chunks)
        context = spans.Context(request.headers.get("traceparent"))
        part = self._tellers.first
        stream = Stream(key, connection, request, ask, reply, context, reason, osl, part, at_ns)
        self._streams[key] = self._by_connection[connection] = stream
        if ask.stream:
            head = http.stream_head(chunks=chunks, keeps=request.keeps)
            self._at(parsed_ns, lambda: connection.send(head))
            stream.prepare(0)

    def _refuse_at(
        self, at_ns: int, connection: Connection, request: http.Request, refusal: http.Refusal
    ) -> None:
        def refuse() -> None:
            self._tellers.own.counts["requests_refused"] += 1
            self._answer(connection, request, refusal.status, refusal.body)

        self._at(at_ns, refuse)

    def _at(self, at_ns: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._later, (at_ns, next(self._numbers), act))

    # ------------------------------------------------------------------ tokens
    def _cross(self, stream: Stream, crossing: Crossing) -> None:
        """A request left the prefill server, or is scheduled on the decode server, where its first
        token is at hand: it came with the cache."""
        teller, at_ns = self._tellers[stream.part], crossing.at_ns
        teller.first_token(stream.here_ns, at_ns, stream.ask.isl)
        stream.last_ns = at_ns
        if crossing.visit is not None:
            teller.finished(crossing.visit, stream.asked, stream.context, "length")
            stream.part, stream.here_ns = DECODE, at_ns

    def _note(self, stream: Stream, emission: Emission) -> None:
        """A token has left: count it, and prepare the next one or finish."""
        index, at_ns = emission.index, emission.at_ns
        teller = self._tellers[stream.part]
        if index:
            teller.token(stream.last_ns, at_ns)
            stream.last_ns = at_ns
        elif stream.part == WHOLE or (stream.part == PREFILL and emission.last):
            teller.first_token(stream.here_ns, at_ns, stream.ask.isl)
            stream.last_ns = at_ns
        if emission.last:
            self._finish(stream)
        elif stream.ask.stream:
            stream.prepare(index + 1)

    def _finish(self, stream: Stream) -> None:
        """The end of the reply, the truth, the span."""
        truth = self._engine.pop_truth(stream.key)
        cached = truth.cached if self._params.prefix_cache else None
        connection, request = stream.connection, stream.request
        teller, visit = self._tellers[stream.part], truth.visits[-1]
        times = teller.in_reply(visit, stream.osl) if self._setup.timings else None
        del self._streams[stream.key], self._by_connection[connection]
        if stream.ask.stream:
            connection.send(stream.reply.end(stream.osl, cached, times))
            connection.done(keeps=request.keeps and request.chunks)
        else:
            stream.late_ns = max(0, monotonic_ns() - truth.finished_ns)
            self._answer(connection, request, 200, stream.reply.whole(stream.osl, cached, times))
        self._untidy += 1
        if self._truth is not None:
            trace_id = stream.context.trace_id
            self._truth.write(truth.line(stream.request_id, trace_id, stream.late_ns))
        teller.finished(visit, stream.asked, stream.context, stream.reason)


def _request_id(request: http.Request) -> str:
    """The x-request-id, if it is one that can be part of a response's id; else a new one."""
    given = request.headers.get("x-request-id", "")
    if 0 < len(given) <= _ID_LIMIT and given.isascii() and given.isprintable():
        return given
    return secrets.token_hex(8)


def _raise_descriptor_limit() -> None:
    """Room for all the connections that are allowed, as far as this process may have it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    """A server process: its Setup as JSON is the argument. See ``process.running``."""
    setup = Setup.from_json(sys.argv[1])

    def opened(listener: socket.socket, truth: Books | None) -> Server:
        _raise_descriptor_limit()
        return Server(setup, listener, truth)

    serve(setup.port, setup.truth, opened)


if __name__ == "__main__":
    main()
