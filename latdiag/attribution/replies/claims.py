"""The times that replies state, and which of them lie inside which.

Each is a length with ``covers``, as all signals are. Those on one side of the first token are
used: one on both sides says nothing more than the client's own stamps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import HIDDEN_BITS, MASK, bits, components, visible
from latdiag.attribution.nest import Length, nested, remaining, union
from latdiag.stacks.signal import Signal, Stack, of

#: A reply does not say which role its server has: it is taken for one that does all, unless
#: another may have done a part (``meant``).
_ROLE = "unified"
_BEFORE = visible(of("gateway", "frontend", "queue", "prefill"))
_BETWEEN, _AFTER = visible(of("interconnect")), visible(of("decode"))


@dataclass(frozen=True, slots=True, eq=False)
class Time:
    """A field that replies state. ``covers``: its leaves as bits, without what is never seen
    alone; ``leaves``: those that what is left of it may belong to; ``own``: ns of each request
    that what is inside of it leaves."""

    stack: Stack
    signal: Signal
    covers: int
    leaves: int
    own: NDArray[np.int64]

    @property
    def components(self) -> tuple[str, ...]:
        """Whose the own time is: one component, or several that nothing tells apart."""
        return components(self.leaves)

    @property
    def is_leaf(self) -> bool:
        """Whether it is of one leaf, and what is left of it is of that leaf as well."""
        return self.covers == self.leaves and self.covers.bit_count() == 1


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
        and _is_on_one_side(visible(signal.covers))
    ]
    # What two stacks understand differently nobody understands.
    means = {(signal.foreign, signal.covers) for _, signal in found}
    once = Counter(foreign for foreign, _ in means)
    return [each for each in found if once[each[1].foreign] == 1]


def _is_on_one_side(covers: int) -> bool:
    return bool(covers) and any(not covers & ~side for side in (_BEFORE, _BETWEEN, _AFTER))


def meant(stack: Stack, signal: Signal) -> frozenset[str]:
    """All that a field covers, whatever role its server has. Where a stack says it of one role
    alone, servers of the others may state it with a hand-over inside."""
    same = (s for s in stack.signals if s.kind == "reply" and s.foreign == signal.foreign)
    found = signal.covers.union(*(each.covers for each in same))
    alone = signal.roles == (_ROLE,) and bool(stack.roles)
    early = not visible(signal.covers) & ~_BEFORE
    return found | of("interconnect") if alone and early else found


@dataclass(frozen=True, slots=True)
class Told:
    """The times that are used, by side of the first token; ``lost``: leaves of those that are not,
    since they overlap with others, and that nothing used holds."""

    early: list[Time]
    late: list[Time]
    lost: int

    def is_whole(self, component: str) -> bool:
        """Whether all of a component lies in what is stated."""
        leaves = MASK[component] & ~HIDDEN_BITS
        stated = union(each.covers for each in (*self.early, *self.late))
        return not leaves & ~stated and not leaves & self.lost


def told(
    fields: Sequence[tuple[Stack, Signal]], ns: NDArray[np.int64], apart: bool = False
) -> Told:
    """Times with what is inside of each. ``ns``: fields x requests. ``apart``: prefill and decode
    may be on servers of their own, and a reply of either."""
    lengths = []
    for (stack, signal), row in zip(fields, ns, strict=True):
        covers = visible(meant(stack, signal) if apart else signal.covers)
        rest = bits([signal.rest] if signal.rest in signal.covers else [])
        lengths.append(Length(covers, rest, "", int(row.sum()), signal.name))
    until = [one.covers for one, (_, s) in zip(lengths, fields, strict=True) if s.first_token]
    # Nothing says on which side of the token a hand-over is, unless a time until it does.
    placed = [at for at, one in enumerate(lengths) if until or one.covers & ~_BETWEEN]
    nesting = nested([lengths[at] for at in placed])
    own: dict[int, NDArray[np.int64]] = {}
    early: list[Time] = []
    late: list[Time] = []
    for at, within in nesting.inside.items():
        one = lengths[placed[at]]
        own[at] = np.maximum(ns[placed[at]] - sum(own[k] for k in within), 0)
        inside = union(lengths[placed[k]].covers for k in within)
        leaves = remaining(one.covers, inside, one.rest) or one.covers
        time = Time(*fields[placed[at]], one.covers, leaves, own[at])
        (late if _is_late(one.covers, until) else early).append(time)
    used = [time.covers for time in (*early, *late)]
    lost = union(o.covers for o in lengths if all(o.covers & ~covers for covers in used))
    return Told(early, late, lost)


def _is_late(covers: int, until: Sequence[int]) -> bool:
    """Whether it is after the first token: decode is, and a hand-over that is not in the time
    until that token."""
    if not covers & ~_BETWEEN:
        return any(covers & ~each for each in until)
    return not covers & ~_AFTER
