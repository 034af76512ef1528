"""A continuous-batching engine as a pure state machine on injected time.

It has no clock and no randomness but its seed: the same calls give the same tokens and the same
truth, however finely time is advanced. Instants are integer nanoseconds of the caller's clock.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

from latdiag.sim.inflight import HANDOVER, PARSE, Crossing, Emission, Request
from latdiag.sim.kv_link import Link
from latdiag.sim.law import StepLaw
from latdiag.sim.params import Params
from latdiag.sim.steploop import StepLoop
from latdiag.sim.truth import DECODE, PREFILL, WHOLE, Truth

__all__ = ["Crossing", "Emission", "Engine"]

# Kinds of events, in the order in which they count at one instant. Steps begin after all.
_CANCEL, _READY, _STEP, _SETUP, _LINK = range(5)


class Engine:
    """One server: a step loop, or with ``params.disaggregated`` a prefill loop, a link and a
    decode loop.

    Call ``submit`` and ``cancel`` before ``advance`` reaches their instant. Later ones are taken
    note of at the present; the time from ``at_ns`` to there counts as the request's wait.
    """

    def __init__(self, params: Params, seed: int) -> None:
        law = StepLaw(params)
        split = params.disaggregated

        def loop(role: str, *, hands_over: bool = False, caching: bool = False) -> StepLoop:
            rng = random.Random(f"{seed} {role}")
            return StepLoop(params, law, rng, hands_over=hands_over, caching=caching)

        first = loop("first", hands_over=split, caching=params.prefix_cache)
        self._first, self._last = first, loop("last") if split else first
        self._loops = [first, self._last] if split else [first]
        self._link = Link(params)
        self._params = params
        self._frontend_ns = params.frontend_ms * 1e6
        self._frontend_token_ns = params.frontend_us * 1e3
        self._events: list[tuple[int, int, int, Request | StepLoop | None]] = []
        self._serial = 0
        self._now_ns = 0
        self._live: dict[str, Request] = {}
        self._truths: dict[str, Truth] = {}
        self._in_frontend = 0
        self._crossing: set[Request] = set()  # between the two loops
        self._crossings: list[Crossing] = []
        self._prompt_tokens = self._tokens = 0

    def submit(
        self, key: str, at_ns: int, isl: int, osl: int, prompt: Sequence[int] | None = None
    ) -> None:
        """The server has read a request at ``at_ns``. ``prompt``: what the prefix cache compares.

        Raises ValueError for a key in use (until its truth is popped), for lengths below 1, a
        prompt longer than ``isl``, and for a request that the KV cache can never hold.
        """
        if key in self._live or key in self._truths:
            raise ValueError(f"request {key!r} is there already")
        if isl < 1 or osl < 1 or (prompt is not None and len(prompt) > isl):
            raise ValueError(f"request {key!r} asks for {isl} tokens in and {osl} out")
        if self._first.blocks.needed(isl + osl - 1) > self._params.kv_blocks:
            raise ValueError(f"request {key!r} of {isl}+{osl} tokens exceeds the KV cache")
        request = Request(key, at_ns, isl, osl, prompt)
        parse_ns = round(self._frontend_ns + self._frontend_token_ns * isl)
        request.spent[PARSE] = parse_ns
        request.mark_ns = request.queued_ns = at_ns + parse_ns
        self._live[key] = request
        self._in_frontend += 1
        self._push(at_ns + parse_ns, _READY, request)

    def cancel(self, key: str, at_ns: int) -> None:
        """The client went away: no more tokens, no truth. Nothing happens to one that is done.

        A step in flight is not shortened; a KV transfer in flight goes on to its end.
        """
        request = self._live.get(key)
        if request is not None:
            self._push(at_ns, _CANCEL, request)

    def next_ns(self) -> int | None:
        """The next instant at which something happens; None when all is idle."""
        return self._events[0][0] if self._events else None

    def advance(self, now_ns: int) -> list[Emission]:
        """All that happens up to and including ``now_ns``, in order."""
        out: list[Emission] = []
        events = self._events
        while events and events[0][0] <= now_ns:
            self._now_ns = at_ns = events[0][0]
            while events and events[0][0] == at_ns:
                _, kind, _, subject = heapq.heappop(events)
                self._handle(kind, subject, at_ns, out)
            for loop in self._loops:
                if loop.step is None:
                    end_ns = loop.begin(at_ns, out)
                    self._collect(loop, at_ns)
                    if end_ns is not None:
                        self._push(end_ns, _STEP, loop)
        self._now_ns = max(self._now_ns, now_ns)
        self._tokens += len(out)
        return out

    def pop_truth(self, key: str) -> Truth:
        """Truth of a finished request, once. Raises KeyError for any other."""
        return self._truths.pop(key)

    def take_crossings(self) -> list[Crossing]:
        """What went from one server to the other since this was last asked, in order."""
        found, self._crossings = self._crossings, []
        return found

    def gauges(self, part: str = WHOLE) -> dict[str, float]:
        """State now (running, waiting, transferring, kv_usage) and counts since the start.

        ``part``: of the prefill or the decode server alone, where they are apart. Who waits for
        a transfer is with the decode server.
        """
        loops = {PREFILL: [self._first], DECODE: [self._last]}.get(part, self._loops)
        cache = None if part == DECODE else self._first
        return {
            "running": sum(loop.running for loop in loops),
            "waiting": sum(len(loop.waiting) for loop in loops),
            "in_frontend": self._in_frontend,
            "transferring": 0 if part == PREFILL else len(self._crossing),
            "kv_usage": sum(loop.blocks.usage for loop in loops) / len(loops),
            "steps": sum(loop.steps for loop in loops),
            "preemptions": sum(loop.preemptions for loop in loops),
            "prefix_queries": cache.cache_queries if cache else 0,
            "prefix_hits": cache.cache_hits if cache else 0,
            "prompt_tokens": self._prompt_tokens,
            "generation_tokens": self._tokens,
            "transfers": self._link.transfers,
        }

    # events

    def _push(self, at_ns: int, kind: int, subject: Request | StepLoop | None) -> None:
        self._serial += 1
        heapq.heappush(self._events, (max(at_ns, self._now_ns), kind, self._serial, subject))

    def _handle(
        self, kind: int, subject: Request | StepLoop | None, at_ns: int, out: list[Emission]
    ) -> None:
        if isinstance(subject, StepLoop):
            subject.finish(at_ns, out)
            self._collect(subject, at_ns)
        elif subject is None:
            self._arrive(at_ns)
        elif kind == _CANCEL:
            self._forget(subject)
        elif kind == _READY:
            self._in_frontend -= 1
            if not subject.gone:
                self._prompt_tokens += subject.isl
                self._first.waiting.append(subject)
        elif not subject.gone:  # _SETUP
            self._transfer(self._link.offer(subject, at_ns))

    def _forget(self, request: Request) -> None:
        if not request.gone:
            request.gone = True
            del self._live[request.key]
            for loop in self._loops:
                loop.drop(request)
            request.release()
            self._crossing.discard(request)

    def _collect(self, loop: StepLoop, at_ns: int) -> None:
        """Takes what a loop is done with, and notes what it let in from the other one."""
        split = len(self._loops) > 1
        for request in loop.resumed:
            self._crossings.append(Crossing(request.key, at_ns, None))
        loop.resumed.clear()
        for request in loop.finished:
            del self._live[request.key]
            self._truths[request.key] = request.truth(at_ns, split=split)
        loop.finished.clear()
        for request in loop.handed:
            self._crossing.add(request)
            self._crossings.append(Crossing(request.key, at_ns, request.leave(at_ns)))
            self._push(at_ns + self._link.setup_ns, _SETUP, request)
        loop.handed.clear()

    def _transfer(self, end_ns: int | None) -> None:
        if end_ns is not None:
            self._push(end_ns, _LINK, None)

    def _arrive(self, at_ns: int) -> None:
        """A KV cache is on the decode side, and its blocks on the prefill side are free."""
        request, end_ns = self._link.arrived(at_ns)
        self._transfer(end_ns)
        self._crossing.discard(request)
        if not request.gone:
            request.release()
            request.kv_ready = True
            request.wait_leaf = HANDOVER
            self._last.waiting.append(request)
