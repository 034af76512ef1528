"""End-to-end latency in components, as replies themselves state them of each request.

No span and no clock of another machine: durations alone, each beside the very request that it is
of. The client knows what lies behind the first hop until the first token, and how long the stream
took; replies say what of it was queue, prefill, decode::

    before the first token   what is stated; what is left belongs to those that state nothing
    after it                 what is stated; what is left is unattributed
    after it, nothing stated the stream as the client's stamps have it

A server may decode before the client sees a token (hidden reasoning, a proxy that gathers): what
does not fit into the stream is decode before it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution import client_only
from latdiag.attribution.leaves import MASK
from latdiag.attribution.ledger import (
    OVER_NS,
    OVER_SHARE,
    Claim,
    Ledger,
    Merges,
    Move,
    Origin,
    client_claims,
    mask_of,
    united,
)
from latdiag.attribution.parts import Parts
from latdiag.attribution.replies.claims import Time, Told, meant, told, usable
from latdiag.attribution.settle import Whole, settle
from latdiag.measurement.frame import Frame
from latdiag.model.components import COMPONENTS
from latdiag.stacks.signal import Stack

#: A server that is given the KV cache computes the last token of the prompt alone: one step, or
#: two where it schedules ahead. One that takes more computed the prompt itself.
_STEPS = 3
#: And where less than this is left of the wait, no other did: a request to it, a step there that
#: reads all weights, and the way of the cache take longer.
_ELSEWHERE_NS = 2_000_000
#: Nor where less is left than this of a step here, which reads the same weights: no server beside
#: it is so much faster.
_ELSEWHERE_STEPS = 1 / 8
#: So many of the requests have to show it.
_MOST = 0.95
#: A server's decode and the client's stream are both durations: clocks differ by less than this.
_DRIFT = 0.001
#: Of so few nothing is said of how they differ.
_FEW = 10


@dataclass(slots=True)
class Replied:
    """What became of the times in replies. ``stated``: answered requests whose replies state any;
    ``partial``: of these, those that lack one that most state; ``told``: those that bear the
    parts. ``used``: (stack, its field) of every time that is; ``unsure``: fields that may be of
    two components, as nothing says which role the server has. ``ahead``: requests of which the
    server decoded noticeably before the client saw a token. ``told_ns``, ``left_ns``: median end
    to end of those told and those not, 0 where these are few."""

    requests: int = 0
    stated: int = 0
    told: int = 0
    partial: int = 0
    contradicted: int = 0
    ahead: int = 0
    ahead_ns: float = 0.0
    stacks: tuple[str, ...] = ()
    used: list[tuple[str, str]] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    told_ns: float = 0.0
    left_ns: float = 0.0


@dataclass(slots=True)
class _Book:
    """Requests whose replies state all that is usual. ``ahead``: ns of decode before the first
    token; ``apart``: another server may have computed the prompts."""

    seen: Frame
    told: Told
    ahead: NDArray[np.int64]
    apart: bool = False

    @property
    def early(self) -> list[Time]:
        return self.told.early

    @property
    def late(self) -> list[Time]:
        return self.told.late

    @property
    def left(self) -> NDArray[np.int64]:
        """ns behind the first hop until the first token that no reply states."""
        seen = self.seen
        behind_hop = seen.first - seen.begin - seen.client - seen.network
        return behind_hop - _sum(self.early, seen.n) - self.ahead

    def select(self, rows: NDArray[np.bool_]) -> _Book:
        early, late = (
            [replace(each, own=each.own[rows]) for each in times]
            for times in (self.early, self.late)
        )
        told = Told(early, late, self.told.lost)
        return _Book(self.seen.select(rows), told, self.ahead[rows], self.apart)


def explain(
    seen: Frame,
    times: Mapping[str, NDArray[np.float64]],
    stacks: Sequence[Stack],
    chunks: NDArray[np.int64],
) -> tuple[Parts | None, Replied]:
    """(Parts of the requests whose replies state times, None where these are less than half of all
    or as many state what cannot be; what became of them).

    ``times``: ns by the foreign name of the signal, NaN where a reply did not state it;
    ``chunks``: pieces with tokens that each reply came in, 0 if unknown.
    """
    facts = Replied(requests=seen.n)
    fields = usable(times, stacks)
    values = np.array([times[s.foreign] for _, s in fields]).reshape(len(fields), seen.n)
    known = np.isfinite(values)
    facts.stated = int(known.any(axis=0).sum())
    if not facts.stated:
        return None, facts
    usual = 2 * known.sum(axis=1) >= facts.stated
    fields = [each for each, is_usual in zip(fields, usual.tolist(), strict=True) if is_usual]
    values, known = values[usual], known[usual]
    whole = np.flatnonzero(known.all(axis=0)) if fields else np.zeros(0, dtype=np.int64)
    facts.partial = facts.stated - len(whole)
    ns = np.rint(values[:, whole]).astype(np.int64)
    book = _book(seen.select(whole), told(fields, ns))
    if _may_be_apart(book, chunks[whole]):
        facts.unsure = [s.foreign for stack, s in fields if meant(stack, s) != s.covers]
        book = _book(book.seen, told(fields, ns, apart=True), apart=True)
    said = [*book.early, *book.late]
    good = _fits(book)
    facts.contradicted, facts.told = int((~good).sum()), int(good.sum())
    facts.stacks = tuple(dict.fromkeys(each.stack.name for each in said))
    facts.used = [(each.stack.name, each.signal.foreign) for each in said]
    _note_left(facts, seen, whole[good])
    if not facts.told or 2 * facts.told < seen.n or facts.contradicted > facts.told:
        return None, facts
    book = book.select(good)
    facts.ahead = int((book.ahead > 0).sum())
    facts.ahead_ns = float(np.median(book.ahead[book.ahead > 0])) if facts.ahead else 0.0
    return _parts(book, seen.n - facts.told), facts


def _note_left(facts: Replied, seen: Frame, keep: NDArray[np.int64]) -> None:
    took = seen.done - seen.begin
    left = np.delete(took, keep)
    if min(len(left), len(keep)) >= _FEW:
        facts.told_ns, facts.left_ns = float(np.median(took[keep])), float(np.median(left))


# ---------------------------------------------------------------------- against the client
def _book(seen: Frame, said: Told, apart: bool = False) -> _Book:
    stated, stream = _sum(said.late, seen.n), seen.last - seen.first
    decode = _sum([t for t in said.late if t.components == ("decode",)], seen.n)
    over = stated - stream
    beyond = over > _beyond(stated)
    return _Book(seen, said, np.where(beyond, np.minimum(over, decode), 0), apart)


def _beyond(ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """By how much two measures of one duration may differ."""
    return OVER_NS + (_DRIFT * ns).astype("int64")


def _limit(ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """By how much two ends of one event may differ in this time."""
    return np.maximum(OVER_NS, (OVER_SHARE * ns).astype(np.int64))


def _fits(book: _Book) -> NDArray[np.bool_]:
    """Whether what a reply states has room in what the client waited."""
    seen = book.seen
    ttft, whole = seen.first - seen.begin, seen.done - seen.begin
    before, after = _sum(book.early, seen.n), _sum(book.late, seen.n)
    fits: NDArray[np.bool_] = before + book.ahead - (ttft - seen.client) <= _limit(ttft)
    fits &= before + after - (whole - seen.client) <= _limit(whole)
    fits &= after - book.ahead - (seen.last - seen.first) <= _beyond(after)
    return fits


def _may_be_apart(book: _Book, chunks: NDArray[np.int64]) -> bool:
    """Whether another server may have computed the prompts, where that changes what a field is.

    Not where a request's own prefill took several steps: then its server computed the prompt. Nor
    where hardly anything is left of its wait: then nobody else did. A step makes one chunk, which
    is several tokens where the server guesses ahead; a proxy may make one of several.
    """
    if not book.seen.n or all(meant(e.stack, e.signal) == e.signal.covers for e in book.early):
        return False
    own = _sum([each for each in book.early if each.components == ("prefill",)], book.seen.n)
    decode = _sum([e for e in book.late if e.components == ("decode",)], book.seen.n)
    known = (chunks > 1) & (decode > 0)
    step = np.where(known, decode / np.maximum(chunks - 1, 1), np.nan)
    least = np.fmax(_ELSEWHERE_NS, _ELSEWHERE_STEPS * step)
    shows = ((own > _STEPS * step) | (book.left < least))[_fits(book)]
    return bool(np.count_nonzero(shows) < _MOST * len(shows))


def _sum(times: Sequence[Time], rows: int) -> NDArray[np.int64]:
    return sum((each.own for each in times), np.zeros(rows, dtype=np.int64))


# ---------------------------------------------------------------------- the parts
def _parts(book: _Book, left_out: int) -> Parts:
    seen, late = book.seen, book.late
    rest = _rest(book)
    merges = united([rest, *(_told_as(each) for each in book.early)])
    key = merges.get(rest[0], rest)[0]
    # A client that stamps in user space may have made what is left itself.
    left = np.where(seen.kernel, np.maximum(book.left, 0), 0)
    claims = client_claims(seen)
    claims += [_claim(each, merges) for each in book.early]
    behind = "from the first hop to the first token, minus what replies state"
    claims.append(Claim(mask_of(rest), left, (Origin("E" if key in merges else "D", behind),)))
    claims += [_claim(each, merges, late=True) for each in late]
    decode = [o for each in late if _key(each, merges) == "decode" for o in _origin(each, merges)]
    if not decode:
        stamps = "kernel" if seen.kernel.all() else "user"
        decode = [Origin("A", f"{stamps} receive stamps, first to last token")]
    nothing = np.zeros(seen.n, dtype=np.int64)
    if book.ahead.any():
        claims.append(Claim(MASK["decode"], nothing, tuple(decode), before=book.ahead))
    if not book.told.is_whole("decode"):  # the client knows better how long it took
        more = np.maximum(seen.last - seen.first - _sum(late, seen.n), 0)
        claims.append(Claim(MASK["decode"], more, tuple(decode), late=True))
    keys = {_key(each, merges) for each in book.early}
    ledger = Ledger(
        claims,
        remainder=Origin("A", "the total minus everything that is stated or stamped"),
        leaf_origin=Origin(
            max((_grade(t) for t in book.early + late if t.is_leaf), default="A"),
            "times in replies that cover only this",
        ),
        merges=merges,
        moves=_moves(book, key, left, keys - {key} if book.apart else set()),
        limits={key: left.astype(float)},
    )
    return settle(Whole.of(seen), ledger, left_out)


def _claim(time: Time, merges: Merges, late: bool = False) -> Claim:
    leaves = time.leaves if time.is_leaf else mask_of(_told_as(time))
    return Claim(leaves, time.own, _origin(time, merges), late=late, stated=time.is_leaf)


def _origin(time: Time, merges: Merges) -> tuple[Origin]:
    grade = "E" if _key(time, merges) in merges else _grade(time)
    name = f"{time.stack.title}: {time.signal.foreign}"
    return (Origin(grade, "stated in replies: ", name),)


def _moves(
    book: _Book, rest: str, left: NDArray[np.int64], elsewhere: Collection[str]
) -> list[Move]:
    """What the client's stamps leave open between the network and what is left; and where another
    server may have had some of these phases (``elsewhere``), between that and them."""
    seen = book.seen
    room = left.astype(float)
    nobody = np.maximum(book.left - left, 0).astype(float)
    return [
        Move("network", rest, (seen.network - seen.network_lo).astype(float)),
        Move(rest, "network", np.minimum((seen.network_hi - seen.network).astype(float), room)),
        # Where the client stamps in user space, what nothing accounts for may be anything's.
        Move("unattributed", rest, np.where(seen.kernel, 0.0, nobody)),
        *(Move(rest, name, room) for name in COMPONENTS if name in elsewhere),
    ]


def _told_as(time: Time) -> tuple[str, ...]:
    """The components that a time is of. A server's own router is told with what is behind it:
    gateway is what stands before the server, of which no server speaks."""
    if time.stack.layer == "gateway":
        return time.components
    return tuple(n for n in time.components if n != "gateway") or time.components


def _may_be_spoken(component: str) -> bool:
    return component in (*client_only.BEHIND_THE_HOP, "interconnect")


def _rest(book: _Book) -> tuple[str, ...]:
    """What may have had the time before the first token that nobody states.

    A gateway always: no reply is of it. A frontend, unless a time is stated that holds more than
    it and so all of it. Where a stack may be several servers, their hand-over is in the words of
    none. And where another may have computed the prompt, that as well; if what is left is more
    than what is stated beside it, or what is stated may be after the token, anything.
    """
    front = MASK["frontend"]
    spoken = {name for name in COMPONENTS if _may_be_spoken(name) and book.told.is_whole(name)}
    if not any(each.covers & front and each.covers & ~front for each in book.early):
        spoken.discard("frontend")
    open_ = {name for name in client_only.BEHIND_THE_HOP if name not in spoken} | {"gateway"}
    several = any(each.stack.roles for each in (*book.early, *book.late))
    if several and "interconnect" not in spoken:
        open_.add("interconnect")
    if book.apart:
        own = [each for each in book.early if each.components == ("prefill",)]
        others = [each for each in book.early if each not in own]
        open_.add("prefill")
        stated = int(_sum(others, book.seen.n).sum())
        stream = book.seen.last - book.seen.first
        later = int(np.maximum(stream - _sum(book.late, book.seen.n), 0).sum())
        if max(int((book.left + _sum(own, book.seen.n)).sum()), later) > stated:
            open_ |= {*client_only.BEHIND_THE_HOP, "interconnect"}
    return tuple(name for name in COMPONENTS if name in open_)


def _key(time: Time, merges: Merges) -> str:
    first = _told_as(time)[0]
    return merges.get(first, (first,))[0]


def _grade(time: Time) -> str:
    proven = time.stack.provenance == "captured" and not time.signal.documented
    return "A" if proven else "B"
