"""End-to-end latency in components, as replies themselves state them of each request.

No span and no clock of another machine: durations alone, each beside the very request that it is
of. The client knows what lies behind the first hop until the first token, and how long the stream
took; replies say what of it was queue, prefill, decode::

    before the first token   what is stated; what is left belongs to those that state nothing
    after it                 what is stated; what is left is unattributed
    after it, nothing stated the stream as the client's stamps have it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from latdiag.attribute import behind
from latdiag.attribute.answered import Answered
from latdiag.attribute.completeness import LEAST
from latdiag.attribute.ownership import OVER_NS, OVER_SHARE
from latdiag.attribute.parts import Parts, Source
from latdiag.attribute.whitebox import client_sources
from latdiag.model.components import COMPONENTS
from latdiag.stacks.signal import HIDDEN, Signal, Stack, of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: A reply does not say which role its server has: it is taken for one that does all, unless
#: another may have done a part (``_may_be_apart``).
_ROLE = "unified"
_BEFORE = of("gateway", "frontend", "queue", "prefill")
_BETWEEN, _AFTER = of("interconnect"), of("decode")
#: Times without these leave it open who had the rest, whatever the client's stamps are.
_PHASES = ("queue", "prefill")


@dataclass(slots=True)
class Replied:
    """What became of the times in replies. ``stated``: answered requests whose replies state any;
    ``told``: those in the breakdown. ``used``: (stack, its field) of every time that is;
    ``unsure``: fields that mean something else where prefill and decode are apart."""

    requests: int = 0
    stated: int = 0
    told: int = 0
    partial: int = 0
    contradicted: int = 0
    stacks: tuple[str, ...] = ()
    used: list[tuple[str, str]] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Time:
    """A field, what it covers without what is never seen alone, and ns of every request that is
    told. ``inner``: what lies inside of it; ``own``: what these leave of it."""

    stack: Stack
    signal: Signal
    visible: frozenset[str]
    ns: NDArray[np.int64]
    inner: list[_Time] = field(default_factory=list)
    own: NDArray[np.int64] | None = None

    @property
    def components(self) -> tuple[str, ...]:
        """Whose the own time is: one component, or several that nothing tells apart."""
        left = self.visible.difference(*(each.visible for each in self.inner))
        found = {leaf.partition(".")[0] for leaf in left}
        if len(found) < 2 and self.signal.rest:
            found = {self.signal.rest.partition(".")[0]}
        found = found or {leaf.partition(".")[0] for leaf in self.visible}
        return tuple(name for name in COMPONENTS if name in found)


def explain(
    seen: Answered, times: Mapping[str, NDArray[np.float64]], stacks: Sequence[Stack]
) -> tuple[Parts | None, Replied]:
    """(Parts of the requests whose replies state times, None where too few do; what became of
    them). ``times``: ns by the foreign name of the signal, NaN where a reply did not state it.
    """
    import numpy as np

    facts = Replied(requests=seen.n)
    fields = _usual(times, stacks, seen.n)
    if not fields:
        return None, facts
    values = np.array([times[signal.foreign] for _, signal in fields])
    known = np.isfinite(values)
    facts.stated = int(known.any(axis=0).sum())
    whole = np.flatnonzero(known.all(axis=0))
    facts.partial = facts.stated - len(whole)
    kept, ns = seen.select(whole), np.rint(values[:, whole]).astype(np.int64)
    early, late = _sided(_times(fields, ns))
    apart = _may_be_apart(kept, early)
    if apart:
        facts.unsure = [s.foreign for stack, s in fields if _meant(stack, s) != s.covers]
        early, late = _sided(_times(fields, ns, apart))
        if int(_left(kept, early).sum()) > int(_sum(early, kept.n).sum()):
            early = []  # the other server may have had most of it, in any phase
    said = [*early, *late]
    good = _fits(kept, early, late)
    facts.contradicted = int((~good).sum())
    facts.told = int(good.sum())
    facts.stacks = tuple(dict.fromkeys(each.stack.name for each in said))
    facts.used = [(each.stack.name, each.signal.foreign) for each in said]
    if not said or not facts.told or (facts.told < LEAST and 2 * facts.told < seen.n):
        return None, facts
    for each in said:
        assert each.own is not None
        each.ns, each.own = each.ns[good], each.own[good]
    return _parts(kept.select(good), early, late, seen.n - facts.told, apart), facts


# ---------------------------------------------------------------------- which times, of what
def _usual(
    times: Mapping[str, NDArray[np.float64]], stacks: Sequence[Stack], rows: int
) -> list[tuple[Stack, Signal]]:
    """The durations that most of the replies state which state any."""
    import numpy as np

    found = [
        (stack, signal)
        for stack in stacks
        for signal in stack.signals
        # Of a stream a header is written before its end: until when its time counts is not said.
        if signal.kind == "reply"
        and signal.foreign in times
        and _ROLE in (signal.roles or (_ROLE,))
        and _is_sided(signal.covers - HIDDEN)
    ]
    if not found or not rows:
        return []
    known = np.array([np.isfinite(times[signal.foreign]) for _, signal in found])
    usual = 2 * known.sum(axis=1) > known.any(axis=0).sum()
    return [each for each, is_usual in zip(found, usual.tolist(), strict=True) if is_usual]


def _is_sided(visible: frozenset[str]) -> bool:
    """Whether an interval lies on one side of the first token; one on both says nothing more than
    the client's own stamps."""
    return bool(visible) and any(visible <= side for side in (_BEFORE, _BETWEEN, _AFTER))


def _meant(stack: Stack, signal: Signal) -> frozenset[str]:
    """All that a field covers, whatever role its server has."""
    same = (s for s in stack.signals if s.kind == "reply" and s.foreign == signal.foreign)
    return signal.covers.union(*(each.covers for each in same))


def _times(
    fields: Sequence[tuple[Stack, Signal]], ns: NDArray[np.int64], apart: bool = False
) -> list[_Time]:
    """``apart``: prefill and decode may be on servers of their own, and a reply of either."""
    found = []
    for (stack, signal), row in zip(fields, ns, strict=True):
        covers = _meant(stack, signal) if apart else signal.covers
        found.append(_Time(stack, signal, covers - HIDDEN, row))
    return _nested(_parted(found))


def _sided(said: Sequence[_Time]) -> tuple[list[_Time], list[_Time]]:
    """(Those before the first token, those after it)."""
    late = [each for each in said if _is_late(each, said)]
    return [each for each in said if each not in late], late


def _may_be_apart(kept: Answered, early: Sequence[_Time]) -> bool:
    """Whether another server may have computed the prompts, where that changes what a field is.

    One that did took at least a step for each, and the reply's own server, which then computes
    the last token of the prompt alone, states one step as its prefill. So where less is left
    than what is stated as prefill, nobody else did.
    """
    import numpy as np

    if not kept.n or all(_meant(e.stack, e.signal) == e.signal.covers for e in early):
        return False
    own = [each for each in early if each.components == ("prefill",)]
    most = float(np.median(_left(kept, early)))
    return not own or most >= float(np.median(_sum(own, kept.n)))


def _left(kept: Answered, early: Sequence[_Time]) -> NDArray[np.int64]:
    """ns behind the first hop until the first token that no reply states."""
    return kept.first - kept.begin - kept.client - kept.network - _sum(early, kept.n)


def _parted(said: list[_Time]) -> list[_Time]:
    """Without those that overlap, neither inside the other: what holds both stands for them, and
    where nothing does, the narrower."""
    gone: set[int] = set()
    for a in said:
        for b in said:
            crossing = a.visible & b.visible and not (
                a.visible <= b.visible or b.visible <= a.visible
            )
            if not crossing or len(a.visible) > len(b.visible) or id(a) in gone:
                continue
            both = a.visible | b.visible
            gone.add(id(b))
            if any(both <= each.visible for each in said):
                gone.add(id(a))
    return [each for each in said if id(each) not in gone]


def _nested(said: list[_Time]) -> list[_Time]:
    """From narrow to wide, each with what is inside of it, and what that leaves. Of two of the
    same leaves the shorter is inside the longer."""
    import numpy as np

    order = sorted(said, key=lambda t: (len(t.visible), int(t.ns.sum()), t.signal.name))
    for place, time in enumerate(order):
        time.inner = [each for each in order[:place] if each.visible <= time.visible]
        left = time.ns.copy()
        for each in time.inner:
            assert each.own is not None
            left -= each.own
        time.own = np.maximum(left, 0)
    return order


def _is_late(time: _Time, said: Sequence[_Time]) -> bool:
    """Whether it is after the first token: decode is, and a hand-over that is not in the time
    until that token."""
    until = [each for each in said if each.signal.first_token]
    if time.visible <= _BETWEEN:
        return any(not time.visible <= each.visible for each in until)
    return time.visible <= _AFTER


# ---------------------------------------------------------------------- against the client
def _fits(kept: Answered, early: Sequence[_Time], late: Sequence[_Time]) -> NDArray[np.bool_]:
    """Whether what a reply states has room in what the client waited."""
    import numpy as np

    whole = kept.done - kept.begin
    limit = np.maximum(OVER_NS, (OVER_SHARE * whole).astype(np.int64))
    before, after = _sum(early, kept.n), _sum(late, kept.n)
    room = kept.first - kept.begin - kept.client
    fits: NDArray[np.bool_] = before - room <= limit
    fits &= before + after - (whole - kept.client) <= limit
    return fits


def _sum(times: Sequence[_Time], rows: int) -> NDArray[np.int64]:
    import numpy as np

    found = np.zeros(rows, dtype=np.int64)
    for each in times:
        assert each.own is not None
        found += each.own
    return found


# ---------------------------------------------------------------------- the parts
def _parts(
    kept: Answered, early: Sequence[_Time], late: Sequence[_Time], left_out: int, apart: bool
) -> Parts:
    import numpy as np

    merges = _merges(early)
    before = _columns(early, merges, kept.n)
    elsewhere = list(before) if apart else []
    left = _left(kept, early)
    rest, members = _rest(kept, [*early, *late])
    if rest != "unattributed":
        before[rest] = before.get(rest, np.zeros(kept.n, np.int64)) + np.maximum(left, 0)
        left = np.minimum(left, 0)
    before |= {"client": kept.client, "network": kept.network, "unattributed": left}
    after = _columns(late, {}, kept.n)
    stream = kept.last - kept.first
    if "decode" not in after:
        after["decode"] = stream - _sum(late, kept.n)
    after["unattributed"] = stream - sum(after.values(), np.zeros(kept.n, np.int64))
    nothing = np.zeros(kept.n, dtype=np.int64)
    order = [name for name in COMPONENTS if name in before or name in after]
    found = {name: before.get(name, nothing) + after.get(name, nothing) for name in order}
    found["unattributed"] = found["unattributed"] + kept.done - kept.last
    return Parts(
        total=kept.done - kept.begin,
        ttft=kept.first - kept.begin,
        parts=found,
        delayed=kept.delayed & kept.kernel,
        left_out=left_out,
        sources=_sources(kept, early, late, merges, rest, members),
        slack=_slack(kept, rest, found[rest], elsewhere),
        leaves=_leaves([*early, *late]),
        leaf_source=Source("A", "times in replies of nothing but it"),
        segment=np.unique(kept.scenario.astype(str), return_inverse=True)[1],
        within={
            "client_ttft": {name: before[name] for name in order if name in before},
            "decode": {name: after[name] for name in order if name in after},
        },
    )


def _merges(early: Sequence[_Time]) -> dict[str, tuple[str, ...]]:
    """Components that a time is of together, by each of them."""
    sets: list[set[str]] = []
    for each in early:
        names = set(each.components)
        if len(names) > 1:
            touching = [s for s in sets if s & names]
            sets = [s for s in sets if not s & names] + [names.union(*touching)]
    found: dict[str, tuple[str, ...]] = {}
    for each_set in sets:
        members = tuple(name for name in COMPONENTS if name in each_set)
        found |= dict.fromkeys(members, members)
    return found


def _key(time: _Time, merges: Mapping[str, tuple[str, ...]]) -> str:
    first = time.components[0]
    return merges.get(first, (first,))[0]


def _columns(
    times: Sequence[_Time], merges: Mapping[str, tuple[str, ...]], rows: int
) -> dict[str, NDArray[np.int64]]:
    import numpy as np

    found: dict[str, NDArray[np.int64]] = {}
    for each in times:
        key = _key(each, merges)
        found[key] = found.get(key, np.zeros(rows, dtype=np.int64)) + _sum([each], rows)
    return found


def _rest(kept: Answered, said: Sequence[_Time]) -> tuple[str, tuple[str, ...]]:
    """What the time left before the first token belongs to, with all that is merged in it.

    Whatever is stated of is not in it. Where a stack may be several servers, their hand-over is
    never in the words of one of them. A client that stamps in user space may have made the rest
    itself: then it is nobody's, as long as both phases are stated.
    """
    spoken = {leaf.partition(".")[0] for each in said for leaf in each.visible}
    if not kept.kernel.all() and spoken.issuperset(_PHASES):
        return "unattributed", ()
    open_ = [name for name in behind.BEHIND_THE_HOP if name not in spoken]
    if "interconnect" not in spoken and any(each.stack.roles for each in said):
        open_.append("interconnect")
    members = tuple(name for name in COMPONENTS if name in open_)
    if not members:
        return "unattributed", ()
    return members[0], members if len(members) > 1 else ()


def _slack(
    kept: Answered, rest: str, left: NDArray[np.int64], elsewhere: Sequence[str]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """What the client's stamps leave open between the network and what is left; and where another
    server may have had some of these phases (``elsewhere``), between that and them."""
    import numpy as np

    less = (kept.network - kept.network_lo).astype(float)
    room = np.maximum(left, 0).astype(float)
    more = np.where(
        kept.kernel, np.minimum((kept.network_hi - kept.network).astype(float), room), room
    )
    fewer = np.maximum(more, room) if elsewhere else more
    found = {"network": (less, more), rest: (fewer, less)}
    return found | dict.fromkeys(elsewhere, (np.zeros(kept.n), room))


def _leaves(said: Sequence[_Time]) -> dict[str, NDArray[np.int64]]:
    """Times of one leaf and no other, by leaf."""
    found: dict[str, NDArray[np.int64]] = {}
    for each in said:
        if len(each.visible) == 1 and not each.inner and each.own is not None:
            found[next(iter(each.visible))] = each.own
    return found


def _sources(
    kept: Answered,
    early: Sequence[_Time],
    late: Sequence[_Time],
    merges: Mapping[str, tuple[str, ...]],
    rest: str,
    members: tuple[str, ...],
) -> dict[str, Source]:
    found = client_sources(kept)
    found["unattributed"] = Source("A", "the whole less everything that is stated or stamped")
    stamps = "kernel" if kept.kernel.all() else "user"
    found["decode"] = Source("A", f"{stamps} receive stamps, first to last token")
    if rest != "unattributed":
        words = "behind the first hop until the first token, less what the replies state"
        found[rest] = Source("E" if members else "D", words, members)
    for each in (*early, *late):
        key = _key(each, merges)
        same = [t for t in (*early, *late) if _key(t, merges) == key]
        words = ", ".join(f"{t.stack.title}: {t.signal.foreign}" for t in same)
        proven = all(t.stack.provenance == "captured" and not t.signal.documented for t in same)
        together = merges.get(key, ())
        grade = "E" if together else "A" if proven else "B"
        found[key] = Source(grade, f"stated in replies: {words}", together)
    return found
