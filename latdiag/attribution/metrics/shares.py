"""What servers say of all requests of a window together, as far as it can be handed out to them:
sums of what lies before the first token, each of one component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from latdiag.attribution.leaves import components, visible
from latdiag.attribution.metrics.claims import Aggregates, Claim
from latdiag.attribution.metrics.traffic import Total
from latdiag.attribution.metrics.windows import Edges
from latdiag.model.components import COMPONENTS
from latdiag.model.units import UNIT_NS
from latdiag.stacks.signal import HIDDEN, Signal

#: What lies behind the hop and may be told by its sum, in the order in which it is handed out:
#: what varies most between requests goes first.
HANDED_OUT = ("queue", "prefill", "interconnect", "frontend")
PHASES = ("queue", "prefill")


@dataclass(frozen=True, slots=True)
class Share:
    """What a component took before the first token, of all own requests of a window; ns.

    ``members``: several components that it is the sum of, ``component`` the first of them.
    ``bounds_ns``, ``counts``: a histogram of how it was spread, () where there is none.
    """

    component: str
    leaf: str
    role: str
    foreign: str
    grade: str
    sum_ns: int
    lo_ns: int
    hi_ns: int
    bounds_ns: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What servers say of one window. ``n``: the client's requests that they finished."""

    at: Edges
    n: int
    shares: tuple[Share, ...]


def shares(found: Aggregates, totals: Sequence[Total]) -> tuple[Share, ...]:
    """The claims that can be taken out of what lies behind the hop: those of one component, with
    a sum, before the first token, of as many requests as the servers finished."""
    if found.traffic.verdict != "own":
        return ()
    by_name = {(one.signal.name, one.role): one for one in totals}
    shown = [one.signal.covers for one in totals if one.signal.first_token]
    taken = []
    for claim in found.claims:
        total = by_name[claim.signal, claim.role]
        if claim.sum_ns is not None and _is_early(claim, total.signal, shown):
            if not _is_whole(total, found):
                return ()  # with a phase half told, the rest would be told wrongly
            taken.append(_share(claim, claim.sum_ns, total))
    taken = _at_once(taken)
    claimed = {share.component for share in taken}
    for total in totals:  # what took no time at all is claimed by nothing, and known all the same
        names = components(visible(total.signal.covers))
        phase = len(names) == 1 and names[0] in PHASES
        nothing = not round(total.hi_ns) and _is_whole(total, found)
        if nothing and phase and names[0] not in claimed:
            grade = "C" if total.signal.documented else "B"
            foreign = total.signal.foreign
            taken.append(Share(names[0], _leaf(total), total.role, foreign, grade, 0, 0, 0))
    if not {share.component for share in taken} & set(PHASES):
        taken += _whole_wait(found, by_name)
    return tuple(taken)


def _whole_wait(found: Aggregates, totals: Mapping[tuple[str, str], Total]) -> list[Share]:
    """What the server in front took until the first token, where it does not say what of it was
    queue: a sum of several components bounds all that lies behind a gateway."""
    several = [
        (claim, claim.sum_ns, total)
        for claim in found.claims
        if PHASES[0] in claim.components
        and "decode" not in claim.components
        and claim.sum_ns is not None
        and _is_whole(total := totals[claim.signal, claim.role], found)
    ]
    if len(several) != 1:
        return []
    claim, sum_ns, total = several[0]
    # A router of its own is part of the server here.
    members = tuple(name for name in COMPONENTS if name in {*claim.components} - {"gateway"})
    return [replace(_share(claim, sum_ns, total), component=members[0], leaf="", members=members)]


def _at_once(found: list[Share]) -> list[Share]:
    """With what servers of two roles wait for each other, which may be the same time: sure is no
    more than the longer of the two."""
    sums: dict[str, int] = {}
    for share in found:
        if share.component == "interconnect":
            sums[share.role] = sums.get(share.role, 0) + share.lo_ns
    longest = max(sums, key=lambda role: sums[role], default="")
    return [
        replace(share, lo_ns=0)
        if share.component == "interconnect" and share.role != longest
        else share
        for share in found
    ]


def _is_early(claim: Claim, signal: Signal, shown: Sequence[frozenset[str]]) -> bool:
    """Whether a claim's time lies before the first token that the client sees."""
    if len(claim.components) != 1 or claim.components[0] not in HANDED_OUT:
        return False
    if claim.components[0] in PHASES:
        return True
    leaves = {leaf for leaf in signal.covers if leaf.partition(".")[0] == claim.components[0]}
    after = any(leaf.startswith("decode.") for leaf in signal.covers)
    return not after and any(leaves & covers for covers in shown)


def _is_whole(total: Total, found: Aggregates) -> bool:
    """Whether a histogram saw all requests that the servers of its role finished."""
    finished = found.traffic.finished.get(total.role, 0)
    return total.signal.kind != "histogram" or total.n >= finished - found.traffic.in_flight


def _share(claim: Claim, sum_ns: int, total: Total) -> Share:
    scale = UNIT_NS[total.signal.unit]
    # What is left of an interval is not spread as the interval is.
    whole = abs(total.sum_ns - sum_ns) <= 1
    bounds, counts = total.buckets if whole else ((), ())
    return Share(
        claim.components[0],
        _leaf(total),
        total.role,
        total.signal.foreign,
        claim.grade,
        sum_ns,
        min(claim.lo_ns, sum_ns),
        max(claim.hi_ns, sum_ns),
        tuple(bound * scale for bound in bounds),
        counts,
    )


def _leaf(total: Total) -> str:
    """The only leaf that a signal is of; empty for several, of which it cannot say which."""
    visible = total.signal.covers - HIDDEN
    return min(visible) if len(visible) == 1 else ""
