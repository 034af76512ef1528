"""What each kind of evidence makes of the same run, and which of them is to be believed first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum

from latdiag.attribution.bounds import bounded
from latdiag.attribution.combine import Combined, Disagreement, combined
from latdiag.attribution.evidence import MetricEvidence, ReplyEvidence, SpanEvidence
from latdiag.attribution.parts import Parts
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.units import show_ms


class Rank(IntEnum):
    """The order in which accounts are believed.

    What an earlier export states was settled then.
    Servers come before a probe, and a probe before the client alone. Metrics come after a probe,
    since those that were scraped around one are not of the workload; and so do replies that do
    not tell queue from prefill. Totals come before it: they bound all that lies behind a gateway,
    which a probe cannot tell from its servers; so does a probe of the server behind it. What
    gateways state of themselves is the least that they took, of whatever the others say.
    """

    EXPORTED = -1
    SPANS = 0
    REPLIES = 1
    TOTALS = 2
    BEHIND = 3
    LAWS = 4
    METRICS = 5
    MERGED_REPLIES = 6
    CLIENT = 7
    LEAST = 8


#: What an account rests on, for a sentence.
NAMES = {
    Rank.EXPORTED: "what traces of an earlier export state",
    Rank.SPANS: "the servers' spans",
    Rank.REPLIES: "the times in replies",
    Rank.TOTALS: "the servers' metrics",
    Rank.BEHIND: "the same workload at the server behind the target",
    Rank.LAWS: "the probe's own stages",
    Rank.METRICS: "the servers' metrics",
    Rank.MERGED_REPLIES: "the times in replies",
    Rank.CLIENT: "the client's stamps",
    Rank.LEAST: "the headers of gateways",
}


@dataclass(frozen=True)
class Account:
    """One kind of evidence on a run. ``parts``: None where it does not divide the requests' time.
    ``evidence``: what became of it. ``caveats``: on how far it holds. ``stacks``: those that it
    comes from, by name."""

    rank: Rank
    parts: Parts | None
    evidence: SpanEvidence | ReplyEvidence | MetricEvidence | None = None
    caveats: tuple[Caveat, ...] = ()
    stacks: tuple[str, ...] = ()

    @property
    def is_of_single_requests(self) -> bool:
        """Whether servers speak of each request, or of all in a way that divides each."""
        if self.rank is Rank.LEAST:
            return False
        return self.parts is not None or not isinstance(self.evidence, MetricEvidence)


@dataclass(frozen=True)
class Together:
    """All accounts of a run as one. ``ranks``: of those that are in ``parts``, the first to be
    believed first. ``caveats``: on those that exclude each other."""

    parts: Parts
    ranks: tuple[Rank, ...]
    caveats: tuple[Caveat, ...] = ()


def ranked(accounts: Iterable[Account]) -> list[Account]:
    """The accounts that divide the requests' time, the first to be believed first."""
    order = sorted(accounts, key=lambda account: account.rank)
    return [account for account in order if account.parts is not None]


def together(accounts: Iterable[Account]) -> Together:
    """The account that is believed first, made finer by each of the others; at least one has to
    divide the requests' time."""
    first, *others = ranked(accounts)
    parts, ranks, caveats = first.parts, [first.rank], []
    agreed: list[Account] = []
    assert parts is not None
    for other in others:
        if other.rank is Rank.CLIENT or other.parts is None:
            continue
        if other.rank is Rank.LEAST:
            low = bounded(parts, other.parts)
            caveats += [_too_little(each, NAMES[ranks[0]]) for each in low.against]
            parts, ranks = low.parts, [*ranks, *((other.rank,) if low.used else ())]
            continue
        probed = other.rank in (Rank.BEHIND, Rank.LAWS)
        one = combined(parts, other.parts, is_of_all=probed)
        # A probe cannot tell a gateway from its servers: what it books to either excludes nothing.
        if one.against and (ranks[0], other.rank) != (Rank.TOTALS, Rank.LAWS):
            caveats.append(_excluded(one, NAMES[ranks[0]], NAMES[other.rank]))
        parts = one.parts
        ranks = [*(ranks if one.stands[0] else ()), *((other.rank,) if one.stands[1] else ())]
        agreed += [other] if one.stands[0] and not one.against else []
    if agreed and ranks[0] is first.rank and Rank.LEAST not in ranks:
        parts, more = _again(parts, agreed)
        ranks += [rank for rank in more if rank not in ranks]
    for each in (first, *others):
        if each.rank in ranks and each.parts is not None and each.parts.no_tail:
            parts = replace(parts, no_tail=each.parts.no_tail)
    return Together(parts, tuple(ranks), tuple(caveats))


def _again(parts: Parts, agreed: list[Account]) -> tuple[Parts, list[Rank]]:
    """What one account could not split it may, now that another has split something else."""
    ranks: list[Rank] = []
    while True:
        known = len(parts.parts)
        for other in agreed:
            assert other.parts is not None
            one = combined(parts, other.parts)
            if len(one.parts.parts) > len(parts.parts) and not one.against:
                parts, ranks = one.parts, [*ranks, other.rank]
        if len(parts.parts) == known:
            return parts, ranks


def _too_little(each: Disagreement, other: str) -> Caveat:
    """Where a gateway took more than other evidence leaves it."""
    least = show_ms(each.strong_ns / each.rows)
    what = f"{' + '.join(each.members)} at least {least} ms, not {_between(each)}"
    return caveat("LD430", what=what, used=NAMES[Rank.LEAST], other=other)


def _excluded(one: Combined, strong: str, weak: str) -> Caveat:
    """Where two accounts cannot both be right, and which of them is used."""
    first = one.stands[0]
    # What is less than nothing is what the weaker account has booked elsewhere, where it shows.
    shown = [each for each in one.against if each.weak_ns + each.room_ns > 0] or one.against
    pieces = []
    for each in shown:
        sides = (f"{show_ms(each.strong_ns / each.rows)} ms", _between(each))
        ours, theirs = sides if first else reversed(sides)
        pieces.append(f"{' + '.join(each.members)} {ours}, not {theirs}")
    used, other = (strong, weak) if first else (weak, strong)
    return caveat("LD430", what="; ".join(pieces), used=used, other=other)


def _between(each: Disagreement) -> str:
    """What the weaker account allows, ms of a request: no time is below zero."""
    ends = (each.weak_ns - each.room_ns, each.weak_ns + each.room_ns)
    lo, hi = (show_ms(ns / each.rows) if ns > 0 else "0" for ns in ends)
    return f"{lo} to {hi} ms" if lo != hi else f"{lo} ms"
