"""The times that replies state, and which of them lie inside which.

Each is a length with ``covers``, as all signals are. Those on one side of the first token are
used: one on both sides says nothing more than the client's own stamps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from latdiag.model.components import COMPONENTS
from latdiag.stacks.signal import HIDDEN, Signal, Stack, of

#: A reply does not say which role its server has: it is taken for one that does all, unless
#: another may have done a part (``meant``).
_ROLE = "unified"
_BEFORE = of("gateway", "frontend", "queue", "prefill")
_BETWEEN, _AFTER = of("interconnect"), of("decode")


@dataclass(slots=True, eq=False)
class Time:
    """A field, what it covers without what is never seen alone, and ns of every request that is
    told. ``inner``: what lies inside of it; ``own``: what these leave of it."""

    stack: Stack
    signal: Signal
    visible: frozenset[str]
    ns: NDArray[np.int64]
    own: NDArray[np.int64]
    inner: list[Time] = field(default_factory=list)

    @property
    def components(self) -> tuple[str, ...]:
        """Whose the own time is: one component, or several that nothing tells apart."""
        left = self.visible.difference(*(each.visible for each in self.inner))
        found = components_of(left)
        if len(found) < 2 and self.signal.rest in self.visible:
            return components_of({self.signal.rest})
        return found or components_of(self.visible)


def components_of(leaves: frozenset[str] | set[str]) -> tuple[str, ...]:
    """The components of these leaves, in time order."""
    found = {leaf.partition(".")[0] for leaf in leaves}
    return tuple(name for name in COMPONENTS if name in found)


def usable(
    times: Mapping[str, NDArray[np.float64]], stacks: Sequence[Stack]
) -> list[tuple[Stack, Signal]]:
    """The durations among ``times`` that lie on one side of the first token."""
    found = [
        (stack, signal)
        for stack in stacks
        for signal in stack.signals
        # Of a stream a header is written before its end: until when its time counts is not said.
        if signal.kind == "reply"
        and signal.foreign in times
        and _ROLE in (signal.roles or (_ROLE,))
        and _is_on_one_side(signal.covers - HIDDEN)
    ]
    # What two stacks understand differently nobody understands.
    means = {(signal.foreign, signal.covers) for _, signal in found}
    once = Counter(foreign for foreign, _ in means)
    return [each for each in found if once[each[1].foreign] == 1]


def _is_on_one_side(visible: frozenset[str]) -> bool:
    return bool(visible) and any(visible <= side for side in (_BEFORE, _BETWEEN, _AFTER))


def meant(stack: Stack, signal: Signal) -> frozenset[str]:
    """All that a field covers, whatever role its server has. Where a stack says it of one role
    alone, servers of the others may state it with a hand-over inside."""
    same = (s for s in stack.signals if s.kind == "reply" and s.foreign == signal.foreign)
    found = signal.covers.union(*(each.covers for each in same))
    alone = signal.roles == (_ROLE,) and bool(stack.roles) and signal.covers - HIDDEN <= _BEFORE
    return found | _BETWEEN if alone else found


@dataclass(frozen=True, slots=True)
class Told:
    """The times that are used, by side of the first token; ``lost``: leaves of those that are not,
    since they overlap with others, and that nothing used holds."""

    early: list[Time]
    late: list[Time]
    lost: frozenset[str]

    def is_whole(self, component: str) -> bool:
        """Whether all of a component lies in what is stated."""
        leaves = of(component) - HIDDEN
        stated = frozenset[str]().union(*(each.visible for each in (*self.early, *self.late)))
        return leaves <= stated and not leaves & self.lost


def told(
    fields: Sequence[tuple[Stack, Signal]], ns: NDArray[np.int64], apart: bool = False
) -> Told:
    """Times with what is inside of each. ``ns``: fields x requests. ``apart``: prefill and decode
    may be on servers of their own, and a reply of either."""
    found = []
    for (stack, signal), row in zip(fields, ns, strict=True):
        covers = meant(stack, signal) if apart else signal.covers
        found.append(Time(stack, signal, covers - HIDDEN, row, row))
    until = [each for each in found if each.signal.first_token]
    # Nothing says on which side of the token a hand-over is, unless a time until it does.
    placed = [each for each in found if until or not each.visible <= _BETWEEN]
    kept = _nested(_parted(placed))
    gone = [each for each in found if each not in kept]
    held = [each for each in gone if not any(each.visible <= k.visible for k in kept)]
    lost = frozenset[str]().union(*(each.visible for each in held))
    late = [each for each in kept if _is_late(each, until)]
    return Told([each for each in kept if each not in late], late, lost)


def _is_late(time: Time, until: Sequence[Time]) -> bool:
    """Whether it is after the first token: decode is, and a hand-over that is not in the time
    until that token."""
    if time.visible <= _BETWEEN:
        return any(not time.visible <= each.visible for each in until)
    return time.visible <= _AFTER


def _parted(said: list[Time]) -> list[Time]:
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


def _nested(said: list[Time]) -> list[Time]:
    """From narrow to wide, each with what is inside of it, and what that leaves. Of two of the
    same leaves the shorter is inside the longer."""
    order = sorted(said, key=lambda t: (len(t.visible), int(t.ns.sum()), t.signal.name))
    for place, time in enumerate(order):
        time.inner = [each for each in order[:place] if each.visible <= time.visible]
        time.own = np.maximum(time.ns - sum(each.own for each in time.inner), 0)
    return order
