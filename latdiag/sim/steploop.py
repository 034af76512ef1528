"""One step loop: admission, the plan of a step, and what the step did to each request."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from latdiag.sim.inflight import (
    COLLECTIVE,
    CONTENTION,
    OWN,
    PREEMPTED,
    RECOMPUTE,
    Account,
    Emission,
    Request,
)
from latdiag.sim.kv_blocks import KvBlocks
from latdiag.sim.law import StepLaw, chunk_work, whole_ns
from latdiag.sim.params import Params

#: Share of the KV blocks that an admission leaves free while others run, so that those can grow.
WATERMARK = 0.01


@dataclass(slots=True)
class Step:
    """A step in flight. Times in ns; ``whole - compute`` are collectives."""

    decodes: list[Request] = field(default_factory=list)
    chunks: list[tuple[Request, int]] = field(default_factory=list)  # tokens of each
    factor: float = 1.0
    decode: int = 0  # the decodes alone
    compute: int = 0
    whole: int = 0


class StepLoop:
    """Continuous batching on one set of KV blocks.

    ``running`` requests are either ``prefilling`` or ``decoding``. With ``hands_over`` a request
    that has more tokens to come leaves after its prefill (list ``handed``) and keeps its blocks
    until the engine releases them. What ended is in ``finished`` until the engine takes it, and
    what came from such a loop and was let in here is in ``resumed``.
    """

    def __init__(
        self, params: Params, law: StepLaw, rng: random.Random, *, hands_over: bool, caching: bool
    ) -> None:
        self.params = params
        self.law = law
        self.rng = rng
        self.hands_over = hands_over
        self.blocks = KvBlocks(params.kv_blocks, params.block_tokens, caching=caching)
        self.spare = int(params.kv_blocks * WATERMARK)
        self.waiting: deque[Request] = deque()
        self.prefilling: list[Request] = []
        self.decoding: list[Request] = []
        self.step: Step | None = None
        self.handed: list[Request] = []
        self.resumed: list[Request] = []
        self.finished: list[Request] = []
        self.steps = self.preemptions = self.admitted = 0
        self.cache_queries = self.cache_hits = 0  # prompt tokens
        self._account = Account(0, 0, 0)

    @property
    def running(self) -> int:
        return len(self.prefilling) + len(self.decoding)

    def drop(self, request: Request) -> None:
        """Forgets a request that was cancelled, if it is here."""
        for group in (self.waiting, self.prefilling, self.decoding):
            if request in group:
                group.remove(request)

    # planning

    def begin(self, now_ns: int, out: list[Emission]) -> int | None:
        """Starts the next step, if there is work; returns the instant of its end."""
        if not (self.waiting or self.prefilling or self.decoding):
            return None
        step = self._mixed(now_ns, out) if self.params.chunked else self._whole(now_ns, out)
        if not (step.decodes or step.chunks):
            return None
        self._time(step)
        self.step = step
        self.steps += 1
        return now_ns + step.whole

    def _mixed(self, now_ns: int, out: list[Emission]) -> Step:
        """Decodes first, then chunks of prompts within the token budget."""
        self._grow(now_ns)
        step = Step()
        left = self.params.token_budget - len(self.decoding)
        for request in self.prefilling:
            left -= self._chunk(step, request, left)
        while left > 0:
            admitted = self._admit(now_ns, out)
            if admitted is None:
                break
            left -= 1 if admitted.kv_ready else self._chunk(step, admitted, left)
            admitted.kv_ready = False
        step.decodes = self.decoding.copy()
        return step

    def _whole(self, now_ns: int, out: list[Emission]) -> Step:
        """Whole prompts first, up to the token budget or a single one; decodes pause for them."""
        step = Step()
        left = self.params.token_budget
        while self.waiting:
            if step.chunks and self.waiting[0].target > left:
                break
            request = self._admit(now_ns, out)
            if request is None:
                break
            if not request.kv_ready:
                left -= self._chunk(step, request, request.target)
            request.kv_ready = False
        if not step.chunks:
            self._grow(now_ns)
            step.decodes = self.decoding.copy()
        return step

    @staticmethod
    def _chunk(step: Step, request: Request, left: int) -> int:
        """Adds the next part of a prompt. It is never empty: seats do not exceed the budget, so
        that decodes leave a token, and the next prompt is let in only behind a finished one."""
        tokens = min(left, request.target - request.computed)
        step.chunks.append((request, tokens))
        return tokens

    def _admit(self, now_ns: int, out: list[Emission]) -> Request | None:
        """Lets the first in the queue in, if there are a seat and blocks for it.

        A request whose KV came over the link decodes at once; the others begin their prefill.
        """
        if not self.waiting or self.running >= self.params.max_seqs:
            return None
        request = self.waiting[0]
        tokens = request.isl + min(1, request.osl - 1) if request.kv_ready else request.target
        needed = self.blocks.needed(tokens)
        found = [] if request.kv_ready else self.blocks.find(request.prompt)
        holding = self.blocks.claim(found, needed, self.spare if self.running else 0)
        if holding is None:
            return None
        self.waiting.popleft()
        request.waited(now_ns)
        request.scheduled(now_ns)
        request.holding = holding
        request.room = needed * self.blocks.size
        self.admitted += 1
        request.order = self.admitted
        if request.kv_ready:
            self._resume(request, now_ns, out)
        else:
            self._start(request, len(found) * self.blocks.size)
        return request

    def _start(self, request: Request, cached: int) -> None:
        request.computed = cached
        if not request.recompute:
            request.cached = cached
            self.cache_queries += request.isl if self.blocks.caching else 0
            self.cache_hits += cached
        self.prefilling.append(request)

    def _resume(self, request: Request, now_ns: int, out: list[Emission]) -> None:
        """Its prefill was elsewhere. A first token that was kept back leaves now."""
        self.resumed.append(request)
        request.token_ns = now_ns
        if not request.generated:
            out.append(request.emit(now_ns))
            if request.osl == 1:
                self._finish(request)
                return
        request.enter_decode(self._account)
        self.decoding.append(request)

    def _grow(self, now_ns: int) -> None:
        """A block for each decode whose next token needs one. When there is none, the latest that
        came loses its blocks and waits at the head of the queue.

        It does not come back in the same step: it needs all that it had, and one of it is taken.
        """
        for request in [one for one in self.decoding if one.isl + one.generated > one.room]:
            while request.holding is not None and not self.blocks.extend(request.holding):
                running = self.decoding + self.prefilling
                self._preempt(max(running, key=lambda one: one.order), now_ns)
            request.room += self.blocks.size

    def _preempt(self, victim: Request, now_ns: int) -> None:
        if victim in self.decoding:
            self.decoding.remove(victim)
            victim.leave_decode(self._account)
        else:
            self.prefilling.remove(victim)
        victim.release()
        victim.recompute = True
        victim.target = victim.isl + victim.generated
        victim.wait_leaf = PREEMPTED
        victim.mark_ns = now_ns
        self.waiting.appendleft(victim)
        self.preemptions += 1

    def _time(self, step: Step) -> None:
        """How long the step takes. One noise factor on all its terms."""
        law, decodes = self.law, len(step.decodes)
        context = sum([one.isl + one.generated for one in step.decodes])
        tokens, work = decodes, 0.0
        for request, chunk in step.chunks:
            tokens += chunk
            work += chunk_work(chunk, request.computed)
        step.factor = factor = law.factor(self.rng)
        compute = law.step(tokens, context, decodes + len(step.chunks), work)
        step.decode = whole_ns(factor * law.step(decodes, context, decodes)) if decodes else 0
        step.compute = whole_ns(factor * compute)
        step.whole = whole_ns(factor * (compute + law.comm(tokens)))

    # what a step did

    def finish(self, now_ns: int, out: list[Emission]) -> None:
        """The step in flight ends now: tokens leave, and its time is booked."""
        step, self.step = self.step, None
        assert step is not None
        decode, stretched, comm = self._account
        if step.decodes:
            self._account = Account(
                decode + step.decode,
                stretched + step.compute - step.decode,
                comm + step.whole - step.compute,
            )
            self._decoded(step, now_ns, out)
        else:
            self._account = Account(decode, stretched + step.whole, comm)
        self._prefilled(step, now_ns, out)

    def _decoded(self, step: Step, now_ns: int, out: list[Emission]) -> None:
        # The operations of StepLaw.step for one token, in its order: never more than the whole.
        alone, kv, seq, factor = self.law.alone, self.law.kv, self.law.seq, step.factor
        ended = False
        for request in step.decodes:
            if request.gone:
                continue
            context = request.isl + request.generated
            request.base_ns += int(factor * (alone + kv * context + seq) + 0.5)
            emission = request.emit(now_ns)
            out.append(emission)
            if emission.last:
                request.leave_decode(self._account)
                self._finish(request)
                ended = True
        if ended:
            self.decoding = [one for one in self.decoding if not one.gone]

    def _prefilled(self, step: Step, now_ns: int, out: list[Emission]) -> None:
        for request, tokens in step.chunks:
            if request.gone:
                continue
            own = self.law.step(tokens, 0, 1, chunk_work(tokens, request.computed))
            own_ns = whole_ns(step.factor * own)
            if request.recompute:
                request.spent[RECOMPUTE] += step.compute
            else:
                request.spent[OWN] += own_ns
                request.spent[CONTENTION] += step.compute - own_ns
            request.spent[COLLECTIVE] += step.whole - step.compute
            request.computed += tokens
            if request.holding is not None:
                self.blocks.share(request.holding, request.prompt, request.computed)
            if request.computed == request.target:
                self._next_token(request, now_ns, out)

    def _next_token(self, request: Request, now_ns: int, out: list[Emission]) -> None:
        """The prefill is complete: its token leaves here, or with the KV for the other side."""
        self.prefilling.remove(request)
        request.recompute = False
        if self.hands_over and self.params.first_token == "decode":
            self.handed.append(request)
            return
        emission = request.emit(now_ns)
        out.append(emission)
        if emission.last:
            self._finish(request)
        elif self.hands_over:
            self.handed.append(request)
        else:
            request.enter_decode(self._account)
            self.decoding.append(request)

    def _finish(self, request: Request) -> None:
        request.gone = True
        request.release()
        self.finished.append(request)
