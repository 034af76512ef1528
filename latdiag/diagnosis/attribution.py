"""Everything that is said of where the time went: rows in, breakdowns and a verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latdiag.attribution import behind
from latdiag.attribution.accounts import Account, Rank, ranked, together
from latdiag.attribution.behind import behind_view
from latdiag.attribution.evidence import MetricEvidence, ServerState
from latdiag.attribution.laws import explain as blackbox
from latdiag.attribution.laws.admission import at_once
from latdiag.diagnosis.breakdown import breakdown, leaves
from latdiag.diagnosis.costs import costs_of
from latdiag.diagnosis.health import Health, health
from latdiag.diagnosis.learned import Learned, learned_from
from latdiag.diagnosis.over_time import first_begin, stretches
from latdiag.diagnosis.result import Breakdown, Claim, Share, Verdict
from latdiag.diagnosis.shares import POPULATIONS
from latdiag.diagnosis.verdict import Case, verdict

if TYPE_CHECKING:
    from latdiag.attribution.laws.laws import Laws
    from latdiag.attribution.parts import Parts
    from latdiag.measurement.course import Course
    from latdiag.measurement.frame import Frame
    from latdiag.measurement.observations import Observations
    from latdiag.model.caveat import Caveat
    from latdiag.stacks.catalogue import Shown


@dataclass(frozen=True, slots=True)
class Attribution:
    """Where the time went, as a ``Result`` holds it. ``learned``: the laws behind it, None without
    a probe. ``parts``: what the breakdowns sum up; ``ranks``: whose accounts are in it;
    ``caveats``: on accounts that exclude each other. ``case``: what the verdict was made from."""

    breakdowns: dict[str, Breakdown]
    leaves: dict[str, dict[str, Share]]
    by: dict[str, dict[str, Breakdown]]
    verdict: Verdict
    learned: Learned | None
    claims: dict[str, tuple[Claim, ...]]
    parts: Parts
    ranks: tuple[Rank, ...]
    caveats: tuple[Caveat, ...]
    case: Case


def attribute(
    whole: Parts,
    seen: Observations | None,
    valid: bool,
    failed: float = 0.0,
    servers: Sequence[Account] = (),
    listened: frozenset[str] = frozenset(),
    requests: int = 0,
    frame: Frame | None = None,
    in_flight: frozenset[int | None] = frozenset(),
    course: Course | None = None,
    stacks: tuple[Shown, ...] = (),
) -> Attribution:
    """``whole``: the workload as any load proves it. ``seen``: all rows of a designed probe.
    ``failed``: share of the workload's requests that failed. ``servers``: their accounts, and
    ``listened``: the channels open to them. ``requests``: those that succeeded. ``frame``: all
    rows, where the workload went to a server behind the target as well. ``in_flight``: the planned
    concurrency of each run, None if not stated. ``course``: of one run. ``stacks``: shown before
    the load.

    The account that ranks first is used, made finer by the others, which are kept as claims.
    """
    through = seen
    if seen is not None and frame is not None:
        seen = behind_view(seen)
    explained = blackbox.explain(seen) if seen is not None else None
    probed, laws = explained if explained is not None else (whole, None)
    laws_account = [_of_probe(probed, frame)] if laws is not None else []
    accounts = [*servers, *laws_account, Account(Rank.CLIENT, whole)]
    union = together(accounts)
    parts = _in_stretches(union.parts, through, course)
    lower = [p for a in ranked(accounts) if (p := a.parts) is not None and p is not union.parts]
    shares = populations(parts, "client_e2e")
    fine = {p: found for p in POPULATIONS if p in shares and (found := leaves(parts, p))}
    others = ("client_ttft", "decode") if parts.interval == "client_e2e" else ()
    own = laws_account[0].parts if laws_account else None
    limit = at_once(seen) if seen is not None else None
    given = frozenset(account.rank for account in (*servers, *laws_account))
    case = Case(
        *(shares, parts, valid, fine, _health(seen, through, laws, own, frame, course), failed),
        *(limit, laws is not None, given, requests, listened, in_flight),
        of_probe=seen is not None,
        backlog=course.overload if course is not None else None,
        one_rate=laws is not None and laws.one_rate,
        stacks=(*stacks, *((name, None) for account in servers for name in account.stacks)),
        costs=costs_of(laws, seen, parts) if laws is not None and seen is not None else None,
        state=_state(servers),
    )
    return Attribution(
        breakdowns=shares,
        leaves=fine,
        by={interval: populations(parts, interval) for interval in others},
        verdict=verdict(case),
        learned=learned_from(laws, seen) if laws is not None and seen is not None else None,
        claims=_claims(shares, [populations(each, "client_e2e") for each in lower]),
        parts=parts,
        ranks=union.ranks,
        caveats=union.caveats,
        case=case,
    )


def _in_stretches(parts: Parts, seen: Observations | None, course: Course | None) -> Parts:
    """With the stretches of a run that changed."""
    if seen is None or course is None:
        return parts
    return replace(parts, stretch=stretches(course, seen, parts.row))


def _health(
    seen: Observations | None,
    through: Observations | None,
    laws: Laws | None,
    own: Parts | None,
    frame: Frame | None,
    course: Course | None,
) -> Health | None:
    """Of what the client waited at the target, whatever is behind it."""
    if seen is None or through is None or laws is None or own is None:
        return None
    changes = course.changes if course is not None else ()
    origin = first_begin(through)
    rows = laws.delivery.visible(seen) if frame is None else through
    shown = laws.delivery.held is None and not (
        laws.at_once or laws.pacing or laws.paced_apart or laws.transfer
    )
    return health(rows, own, changes, origin, laws.step if shown else None)


def _state(servers: Sequence[Account]) -> ServerState | None:
    """How full the engines said they were."""
    found = (each.evidence for each in servers if isinstance(each.evidence, MetricEvidence))
    return next((each.state for each in found if each.state is not None), None)


def _of_probe(probed: Parts, frame: Frame | None) -> Account:
    """What the designed stages teach. ``frame``: as of ``attribute``."""
    if frame is None:
        return Account(Rank.LAWS, probed)
    return Account(Rank.BEHIND, behind.explain(frame, probed))


def populations(parts: Parts, interval: str) -> dict[str, Breakdown]:
    found = {population: breakdown(parts, interval, population) for population in POPULATIONS}
    return {population: entry for population, entry in found.items() if entry is not None}


def _claims(
    best: Mapping[str, Breakdown], bounds: Sequence[Mapping[str, Breakdown]]
) -> dict[str, tuple[Claim, ...]]:
    """Per component every statement that evidence makes of it: the one used, and those that lost.

    What the client alone proves of everything behind the hop holds whatever else is said.
    """
    claims: dict[str, list[Claim]] = {}
    for breakdowns, used in ((best, True), *((each, False) for each in bounds)):
        for population, found in breakdowns.items():
            for name, share in found.shares.items():
                if not used and not share.members and _same(best.get(population), name, share):
                    continue
                for member in share.members or (name,):
                    claims.setdefault(member, []).append(_claim(population, name, share, used))
    return {component: tuple(made) for component, made in claims.items()}


def _claim(population: str, name: str, share: Share, used: bool) -> Claim:
    lost = "weaker evidence: it merges more components" if share.members else "weaker evidence"
    return Claim(
        population=population,
        of=share.members or (name,),
        share=share.share,
        lo=share.lo,
        hi=share.hi,
        grade=share.grade,
        evidence=share.evidence,
        used=used,
        why=None if used else lost,
    )


def _same(best: Breakdown | None, name: str, share: Share) -> bool:
    """Whether a bound says nothing that the used claim does not say."""
    other = best.shares.get(name) if best is not None else None
    # Of another grade it is another witness.
    return other is not None and (other.sum_ns, other.grade) == (share.sum_ns, share.grade)
