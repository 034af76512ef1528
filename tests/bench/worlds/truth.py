"""Where the time of one request really went, and what of it could be taken for something else.

A ``Cause`` is a way in which one piece of a world takes time. Beside its leaf it states in which
of a probe's experiments that time shows (``shows``). ``COULD`` says which components may make
time show there, in any server: that is knowledge about experiments, not about one world. What a
component is from outside follows from both: a cause can be told from a component if one of the
experiments in which it shows excludes that component.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from latdiag.model.components import COMPONENTS, LEAVES

_LEAVES = frozenset(leaf.name for leaf in LEAVES)
_ALL = frozenset(COMPONENTS)

#: Experiment: the components that may take time that shows in it. Each line says why others
#: may not.
COULD: Mapping[str, frozenset[str]] = {
    # Stamped by this client before the kernel sends, or after it has received.
    "own-stamps": frozenset({"client"}),
    # The kernel's ACK of the request and TCP_INFO: only the first hop answers these.
    "ack": frozenset({"network"}),
    # A cheap GET on an idle server, behind the ACK: no prompt, no batch, no model. A hop that
    # TCP does not see and a proxy are the same to it.
    "get": frozenset({"network", "gateway"}),
    # A refused POST on an idle server, beyond a GET: no model has run.
    "refused": frozenset({"gateway", "frontend"}),
    # The same while other requests run.
    "refused-loaded": frozenset({"gateway", "frontend"}),
    # Accepted requests alone, beyond what a refused one takes: the same for every prompt.
    "constant": frozenset({"gateway", "frontend", "queue", "prefill", "interconnect"}),
    # Accepted requests alone: grows with the prompt, and refused ones come back too early to tell.
    "slope": frozenset({"gateway", "frontend", "prefill", "interconnect"}),
    # The same, where a refused one was read to its end and does not grow as much.
    "slope-behind": frozenset({"prefill", "interconnect"}),
    # Running streams lose as much as the prompt takes: it is computed where they are.
    "stretches": frozenset({"prefill"}),
    # From the first token to the second, alone, and grows with the prompt.
    "second-gap-slope": frozenset({"interconnect"}),
    "second-gap": frozenset({"interconnect", "decode"}),
    # Of a burst so many begin at once, and each of the rest when one has ended.
    "slots": frozenset({"queue", "gateway"}),
    # The same, and a refused POST that went as far passed at once while they waited.
    "slots-behind": frozenset({"queue"}),
    # A prompt takes longer beside others than alone, and no place becomes free when it begins.
    "beside-others": frozenset({"queue", "prefill"}),
    # Waiting before the first token that no experiment tells more of.
    "any-wait": frozenset({"gateway", "frontend", "queue", "prefill"}),
    # The pace of a stream, alone and in a batch.
    "pace": frozenset({"decode"}),
    # Tokens came late or at once although others before or after have a pace: of steps that were
    # not shown, or of a prompt that took longer.
    "unseen-steps": frozenset({"decode", "prefill"}),
    # The stream comes at a pace that does not depend on what a step takes.
    "paced": frozenset({"decode", "gateway", "frontend"}),
    # All own streams are silent together and no prompt of ours is in flight.
    "common-silence": frozenset({"decode"}),
    # One stream alone is silent.
    "lone-silence": frozenset({"queue", "prefill", "decode"}),
    # Many tokens at once, at equal times: only what stands between steps and us keeps a period.
    "bursts": frozenset({"gateway"}),
    # From the last token to the end of the reply.
    "end": frozenset({"gateway", "frontend"}),
    # Requests of one kind have two prices, whatever their length and the load.
    "two-prices": frozenset({"queue", "prefill", "frontend", "gateway"}),
}


@dataclass(frozen=True, slots=True)
class Cause:
    """``leaf``: of latdiag.model.components. ``piece``: what takes the time. ``load``: an idle
    server would not take it."""

    leaf: str
    piece: str
    shows: tuple[str, ...]
    load: bool = False

    def __post_init__(self) -> None:
        if self.leaf not in _LEAVES or not self.shows or not set(self.shows) <= COULD.keys():
            raise ValueError(f"{self} names what there is not")

    @property
    def component(self) -> str:
        return self.leaf.partition(".")[0]

    @property
    def could(self) -> frozenset[str]:
        """The components that no experiment excludes."""
        return _ALL.intersection(*(COULD[name] for name in self.shows))


#: What every world has.
SEND = Cause("client.schedule_lag", "client", ("own-stamps",))


class Ledger:
    """The time of one request, from ``begin`` on: each ns has one cause."""

    __slots__ = ("at", "spent")

    def __init__(self, begin: int) -> None:
        self.at = begin
        self.spent: dict[Cause, int] = {}

    def book(self, until: int, cause: Cause) -> None:
        """Everything since the last entry."""
        took = until - self.at
        if took < 0:
            raise ValueError(f"{cause.piece} ends {-took} ns before it began")
        if took:
            self.spent[cause] = self.spent.get(cause, 0) + took
            self.at = until

    def book_parts(self, until: int, rest: Cause, *parts: tuple[Cause, int]) -> None:
        """The same, of several causes: each what it says, as far as there is time; the rest is
        of ``rest``."""
        for cause, took in parts:
            if took > 0:
                self.book(min(self.at + took, until), cause)
        self.book(until, rest)


@dataclass(slots=True)
class Truth:
    """Of one request that was served whole. ``spent`` adds up to ``done - begin``."""

    begin: int
    done: int
    spent: Mapping[Cause, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.done - self.begin

    @property
    def alone(self) -> int:
        """Without what others' requests, stalls and queues cost."""
        return sum(took for cause, took in self.spent.items() if not cause.load)


def by_component(truths: Iterable[Truth]) -> dict[str, int]:
    """Sums over requests, ns."""
    found: dict[str, int] = {}
    for truth in truths:
        for cause, took in truth.spent.items():
            found[cause.component] = found.get(cause.component, 0) + took
    return found


def by_cause(truths: Iterable[Truth]) -> dict[Cause, int]:
    found: dict[Cause, int] = {}
    for truth in truths:
        for cause, took in truth.spent.items():
            found[cause] = found.get(cause, 0) + took
    return found


#: Less than this share of the time may be taken for another component without harm.
TRIFLE = 0.02


def partable(component: str, truths: list[Truth]) -> bool:
    """Whether a probe of this world can tell ``component`` from all others.

    Its own time must show where no other component's could, and no other cause's time of any
    size may be taken for it.
    """
    spent = by_cause(truths)
    total = sum(spent.values())
    doubtful = 0
    for cause, took in spent.items():
        if cause.component == component:
            doubtful += took if cause.could != {component} else 0
        elif component in cause.could:
            doubtful += took
    return total > 0 and doubtful <= TRIFLE * total
