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
from latdiag.attribute.reply_times import Time, meant, sided, times_of, usual
from latdiag.attribute.whitebox import client_sources
from latdiag.model.components import COMPONENTS
from latdiag.stacks.signal import Stack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


def explain(
    seen: Answered, times: Mapping[str, NDArray[np.float64]], stacks: Sequence[Stack]
) -> tuple[Parts | None, Replied]:
    """(Parts of the requests whose replies state times, None where too few do; what became of
    them). ``times``: ns by the foreign name of the signal, NaN where a reply did not state it.
    """
    import numpy as np

    facts = Replied(requests=seen.n)
    fields = usual(times, stacks, seen.n)
    if not fields:
        return None, facts
    values = np.array([times[signal.foreign] for _, signal in fields])
    known = np.isfinite(values)
    facts.stated = int(known.any(axis=0).sum())
    whole = np.flatnonzero(known.all(axis=0))
    facts.partial = facts.stated - len(whole)
    kept, ns = seen.select(whole), np.rint(values[:, whole]).astype(np.int64)
    early, late = sided(times_of(fields, ns))
    apart = _may_be_apart(kept, early)
    if apart:
        facts.unsure = [s.foreign for stack, s in fields if meant(stack, s) != s.covers]
        early, late = sided(times_of(fields, ns, apart))
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


# ---------------------------------------------------------------------- whose reply it is
def _may_be_apart(kept: Answered, early: Sequence[Time]) -> bool:
    """Whether another server may have computed the prompts, where that changes what a field is.

    One that did took at least a step for each, and the reply's own server, which then computes
    the last token of the prompt alone, states one step as its prefill. So where less is left
    than what is stated as prefill, nobody else did.
    """
    import numpy as np

    if not kept.n or all(meant(e.stack, e.signal) == e.signal.covers for e in early):
        return False
    own = [each for each in early if each.components == ("prefill",)]
    most = float(np.median(_left(kept, early)))
    return not own or most >= float(np.median(_sum(own, kept.n)))


def _left(kept: Answered, early: Sequence[Time]) -> NDArray[np.int64]:
    """ns behind the first hop until the first token that no reply states."""
    return kept.first - kept.begin - kept.client - kept.network - _sum(early, kept.n)


# ---------------------------------------------------------------------- against the client
def _fits(kept: Answered, early: Sequence[Time], late: Sequence[Time]) -> NDArray[np.bool_]:
    """Whether what a reply states has room in what the client waited."""
    import numpy as np

    whole = kept.done - kept.begin
    limit = np.maximum(OVER_NS, (OVER_SHARE * whole).astype(np.int64))
    before, after = _sum(early, kept.n), _sum(late, kept.n)
    room = kept.first - kept.begin - kept.client
    fits: NDArray[np.bool_] = before - room <= limit
    fits &= before + after - (whole - kept.client) <= limit
    return fits


def _sum(times: Sequence[Time], rows: int) -> NDArray[np.int64]:
    import numpy as np

    found = np.zeros(rows, dtype=np.int64)
    for each in times:
        assert each.own is not None
        found += each.own
    return found


# ---------------------------------------------------------------------- the parts
def _parts(
    kept: Answered, early: Sequence[Time], late: Sequence[Time], left_out: int, apart: bool
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
        after["decode"] = np.maximum(stream - _sum(late, kept.n), 0)
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


def _merges(early: Sequence[Time]) -> dict[str, tuple[str, ...]]:
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


def _key(time: Time, merges: Mapping[str, tuple[str, ...]]) -> str:
    first = time.components[0]
    return merges.get(first, (first,))[0]


def _columns(
    times: Sequence[Time], merges: Mapping[str, tuple[str, ...]], rows: int
) -> dict[str, NDArray[np.int64]]:
    import numpy as np

    found: dict[str, NDArray[np.int64]] = {}
    for each in times:
        key = _key(each, merges)
        found[key] = found.get(key, np.zeros(rows, dtype=np.int64)) + _sum([each], rows)
    return found


def _rest(kept: Answered, said: Sequence[Time]) -> tuple[str, tuple[str, ...]]:
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


def _leaves(said: Sequence[Time]) -> dict[str, NDArray[np.int64]]:
    """Times of one leaf and no other, by leaf."""
    found: dict[str, NDArray[np.int64]] = {}
    for each in said:
        if len(each.visible) == 1 and not each.inner and each.own is not None:
            found[next(iter(each.visible))] = each.own
    return found


def _sources(
    kept: Answered,
    early: Sequence[Time],
    late: Sequence[Time],
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
