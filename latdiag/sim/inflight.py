"""One request inside the engine: how far it is, and where its time went so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from latdiag.sim.kv_blocks import Holding
from latdiag.sim.truth import DECODE, ENGINE_LEAVES, PREFILL, WHOLE, Truth, Visit

#: Places of the leaves in ``Request.spent``.
PARSE, ADMISSION, PREEMPTED, OWN, CONTENTION, RECOMPUTE = range(6)
TRANSFER, HANDOVER, COLLECTIVE, BASE, BATCH, INTERFERENCE = range(6, 12)


class Emission(NamedTuple):
    """One token leaves. ``index`` counts the request's tokens from 0."""

    key: str
    at_ns: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs of a token
    last: bool


class Crossing(NamedTuple):
    """A request leaves its prefill server, with its ``visit`` there, or (None) is scheduled on
    its decode server."""

    key: str
    at_ns: int
    visit: Visit | None


class Account(NamedTuple):
    """Running totals of a step loop as a decoding request sees them, in ns."""

    decode: int  # steps of all decodes alone
    stretched: int  # what prefills added, and steps of prefills only
    comm: int  # collectives of steps with decodes

    def since(self, mark: Account) -> tuple[int, int, int]:
        return (
            self.decode - mark.decode,
            self.stretched - mark.stretched,
            self.comm - mark.comm,
        )


class Request:
    """State of a request. Every instant of its life is booked under one leaf exactly once:
    waits by ``mark_ns``, prefill step by step, decode by the loop's totals since ``mark``.

    Beside that, and independent of it, the instants that the server it is on would stamp:
    ``here_ns`` (there since), ``queued_ns``, ``scheduled_ns``, ``token_ns`` (its first one there;
    -1: not yet).
    """

    __slots__ = ("arrived_ns", "base_ns", "cached", "computed", "first_ns", "first_spent",
                 "generated", "gone", "here_ns", "holding", "isl", "key", "kv_ready", "mark",
                 "mark_ns", "order", "osl", "prompt", "queued_ns", "recompute", "room",
                 "scheduled_ns", "spent", "target", "token_ns", "visits",
                 "wait_leaf")  # fmt: skip

    def __init__(
        self, key: str, arrived_ns: int, isl: int, osl: int, prompt: Sequence[int] | None
    ) -> None:
        self.key = key
        self.arrived_ns = arrived_ns
        self.isl = isl
        self.osl = osl
        self.prompt = prompt
        self.spent = [0] * len(ENGINE_LEAVES)
        self.first_spent: list[int] = []
        self.first_ns = 0
        self.generated = 0  # tokens that left
        self.target = isl  # tokens to compute before the next one can leave
        self.computed = 0
        self.cached = 0
        self.order = 0  # of admission
        self.holding: Holding | None = None
        self.room = 0  # tokens that the blocks held can take
        self.recompute = False
        self.kv_ready = False  # its KV came over the link
        self.gone = False  # finished or cancelled
        self.wait_leaf = ADMISSION
        self.mark_ns = 0
        self.mark = Account(0, 0, 0)
        self.base_ns = 0
        self.here_ns = self.queued_ns = arrived_ns
        self.scheduled_ns = self.token_ns = -1
        self.visits: tuple[Visit, ...] = ()

    def release(self) -> None:
        """Its KV blocks go back to where they came from."""
        if self.holding is not None:
            self.holding.pool.release(self.holding)
            self.holding = None

    def waited(self, until_ns: int) -> None:
        """Books the wait that began at ``mark_ns``."""
        self.spent[self.wait_leaf] += until_ns - self.mark_ns
        self.mark_ns = until_ns

    def scheduled(self, now_ns: int) -> None:
        """It is let in; as in vLLM only the first time on a server counts."""
        if self.scheduled_ns < 0:
            self.scheduled_ns = now_ns

    def leave(self, now_ns: int) -> Visit:
        """Its prefill is over, and the decode server is asked for the rest."""
        self.visits += (self._visit(PREFILL, now_ns, 1),)
        self.here_ns = self.queued_ns = now_ns
        self.scheduled_ns = self.token_ns = -1
        return self.visits[0]

    def _visit(self, part: str, now_ns: int, osl: int) -> Visit:
        token_ns = now_ns if self.token_ns < 0 else self.token_ns
        times = (self.here_ns, self.queued_ns, self.scheduled_ns, token_ns, now_ns)
        return Visit(part, *times, self.isl, osl)

    def enter_decode(self, account: Account) -> None:
        self.mark = account
        self.base_ns = 0

    def leave_decode(self, account: Account) -> None:
        """Books the decode steps since ``enter_decode``, telescoped."""
        decode, stretched, comm = account.since(self.mark)
        self.spent[BASE] += self.base_ns
        self.spent[BATCH] += decode - self.base_ns
        self.spent[INTERFERENCE] += stretched
        self.spent[COLLECTIVE] += comm

    def emit(self, at_ns: int) -> Emission:
        """The next token leaves."""
        index = self.generated
        if not index:
            self.first_ns = at_ns
            self.first_spent = self.spent.copy()
        if self.token_ns < 0:
            self.token_ns = at_ns
        self.generated = index + 1
        return Emission(self.key, at_ns, index, index + 1 == self.osl)

    def truth(self, finished_ns: int, *, split: bool) -> Truth:
        """``split``: prefill and decode are apart."""
        part = WHOLE if not split else DECODE if self.visits else PREFILL
        return Truth(
            key=self.key,
            arrived_ns=self.arrived_ns,
            first_ns=self.first_ns,
            finished_ns=finished_ns,
            isl=self.isl,
            osl=self.osl,
            cached=self.cached,
            leaves=dict(zip(ENGINE_LEAVES, self.spent, strict=True)),
            first_token_leaves=dict(zip(ENGINE_LEAVES, self.first_spent, strict=True)),
            visits=(*self.visits, self._visit(part, finished_ns, self.osl)),
        )
