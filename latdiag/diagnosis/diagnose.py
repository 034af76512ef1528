"""The result of a run: what the client saw, what servers said, where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from latdiag.attribution import reading
from latdiag.attribution.accounts import Account, Rank
from latdiag.attribution.behind import is_behind
from latdiag.attribution.client_only import partition
from latdiag.attribution.evidence import MetricEvidence, ReplyEvidence, SpanEvidence
from latdiag.attribution.metrics.source import MetricAccount, doubts
from latdiag.attribution.replies import overheads
from latdiag.diagnosis import attribution, client, flags, held_back, unsent
from latdiag.diagnosis.attribution import Attribution
from latdiag.diagnosis.by_stage import by_stage
from latdiag.diagnosis.caveats import caveats
from latdiag.diagnosis.collected import caveats as caveats_of_receiver
from latdiag.diagnosis.collected import collected
from latdiag.diagnosis.header import known, number, section, stacks_of, target_of
from latdiag.diagnosis.limits import Asked, limits_of
from latdiag.diagnosis.longer import longer
from latdiag.diagnosis.over_time import with_stretches
from latdiag.diagnosis.result import Result, StackFound
from latdiag.diagnosis.verdict import with_reason, within_limits
from latdiag.measurement.course import Course, course_of
from latdiag.measurement.digest import Digest
from latdiag.measurement.slo import Slo
from latdiag.measurement.validity import readings
from latdiag.model.errors import UsageFault

if TYPE_CHECKING:
    from latdiag.model.caveat import Caveat
    from latdiag.store.run import Reader, Run


#: By what way an account came.
_CHANNEL = {Rank.SPANS: "spans", Rank.REPLIES: "replies", Rank.MERGED_REPLIES: "replies",
            Rank.TOTALS: "metrics", Rank.METRICS: "metrics"}  # fmt: skip
#: Whose account is on each request alone, in words.
_WHOSE = {Rank.SPANS: "the spans", Rank.REPLIES: "the replies", Rank.MERGED_REPLIES: "the replies"}


def result_of(run: Run, verb: str, slos: Sequence[Slo] = (), *also: Reader) -> Result:
    """Everything that is said of ``run``. ``verb``: load, probe or diagnose; of the latter two
    breakdowns are always a part. Its ``parts``, where nothing is broken down: as any load proves
    them. ``also``: who else takes the run's rows as they go by."""
    read = reading.read(run, slos, *also)
    found = read.digest
    _check_clocks(run, found)
    accounts = read.accounts()
    result = _of_client(run, verb, found, slos)
    result = _naming(result, read.gateways, "headers of its replies")
    receivers = collected(run.writers)
    said = [each for one in receivers for each in caveats_of_receiver(one)]
    listened = frozenset().union(*(one.channels for one in receivers))
    if receivers:
        result = replace(result, collected=receivers[0].brief())
    attributed = None
    spoken = any(account.is_of_single_requests for account in accounts)
    if spoken or verb in ("probe", "diagnose"):
        attributed = _attribute(run, result, found, accounts, listened)
        result = _with_attribution(result, attributed)
        if result.course is not None:
            course = with_stretches(result.course, found.frame, result.parts)
            result = replace(result, course=course)
        said += [*_caveats_of_requests(accounts, result), *attributed.caveats]
    refused = {name: of.refused for name, of in result.metrics.items() if of.refused}
    result = replace(result, stages=by_stage(run, found, refused, attributed))
    result = _with_evidence(result, accounts)
    names = [stack.name or "" for stack in result.stacks]
    shown = [(stack.name or "", stack.version) for stack in result.stacks]
    result = replace(result, limits=limits_of(found, _asked(run), shown))
    if result.verdict is not None:
        refuses = any(limit.refused for limit in result.limits)
        result = replace(result, verdict=within_limits(result.verdict, refuses))
        result = _with_longer(run, result)
    said += _caveats_of_metrics(accounts, result)
    said += caveats(result, found, run)
    said += overheads.caveats(read.overheads())
    said += held_back.caveats(found.bursts, names, said)
    return replace(result, caveats=tuple(said))


def _asked(run: Run) -> Asked:
    asked = section(section(run.header, "plan"), "limits")
    rate, slots = known(asked, "rate", int), known(asked, "concurrency", int)
    return Asked(rate if rate is not None else known(asked, "rate", float), slots)


def _check_clocks(run: Run, found: Digest) -> None:
    """UsageFault for several probes whose streams' instants cannot be set against each other."""
    if len(run.paths) > 1 and found.designed and len(found.frame.clocks) > 1:
        raise UsageFault(
            "these probes were made on different machines or across a reboot, and their clocks"
            " cannot be compared",
            "diagnose them separately",
        )


def _of_client(run: Run, verb: str, found: Digest, slos: Sequence[Slo]) -> Result:
    """What the client knows without any server's words."""
    # What gathers beside the load counts spans, and audits nobody.
    writers = [writer for writer in run.writers if writer.get("kind") != "otlp"]
    audit = readings(client.facts_of(found, writers))
    refused = client.refused(audit) | held_back.refusals(found.bursts) | unsent.refusals(found)
    measurement = found.measurement.without(refused)
    return Result(
        verb=verb,
        run=run.paths[0],
        invalid_because=client.invalid_because(audit),
        target=target_of(run.header),
        stacks=stacks_of(run.header),
        load=client.load_of(found, run.headers),
        self_audit=client.self_audit(found, audit, run.header, writers),
        metrics=measurement.metrics(),
        ttft_split=client.split_of(found),
        slo=tuple(slo.judge(measurement) for slo in slos),
        errors=client.outcomes_of(found),
        parts=partition(found.frame),
        bursts=found.bursts if found.bursts is not None and found.bursts.held else None,
        course=_course(run, found),
        source=run,
    )


def _course(run: Run, found: Digest) -> Course | None:
    """Of one run: several have no common time."""
    if len(run.paths) > 1:
        return None
    plan = section(run.header, "plan")
    planned = number(plan, "rate") or number(section(plan, "limits"), "rate")
    return course_of(found.frame, len(found.lags) > 0, planned)


# ---------------------------------------------------------------------- where the time went
def _attribute(
    run: Run,
    result: Result,
    found: Digest,
    accounts: Sequence[Account],
    listened: frozenset[str],
) -> Attribution:
    """A probe's designed stages teach the laws; any other load is explained without."""
    counts = found.measurement.counts
    failed = sum(counts.failed.values()) / counts.requests if counts.requests else 0.0
    whole = result.parts
    assert whole is not None
    for account in accounts:
        if isinstance(account.evidence, MetricEvidence) and account.evidence.of == "traffic":
            whole = replace(whole, interval="server")  # no client was there
    planned = {known(section(header, "plan"), "concurrency", int) for header in run.headers}
    return attribution.attribute(
        *(whole, found.observations, result.valid, failed, accounts, listened, counts.ok),
        found.frame if is_behind(found.frame) else None,
        frozenset(planned),
        result.course,
        tuple((stack.name, stack.version) for stack in result.stacks),
    )


def _with_attribution(result: Result, said: Attribution) -> Result:
    return replace(
        result,
        breakdowns=said.breakdowns,
        leaves=said.leaves,
        by=said.by,
        verdict=with_reason(said.verdict, result.invalid_because),
        learned=said.learned,
        claims=said.claims,
        parts=said.parts,
        rests_on=said.ranks,
    )


def _caveats_of_requests(accounts: Sequence[Account], result: Result) -> list[Caveat]:
    """What is to be said of spans and replies where the time was attributed."""
    said: list[Caveat] = []
    better = False
    for account in accounts:
        # What a lower account leaves out matters where the breakdown rests on it, or might have.
        rests = account.parts is None or account.rank in result.rests_on
        if account.rank is Rank.SPANS or (account.rank in _WHOSE and not better and rests):
            said += account.caveats
        better |= account.parts is not None
    return said


def _caveats_of_metrics(accounts: Sequence[Account], result: Result) -> list[Caveat]:
    used = [each for each in accounts if each.rank in result.rests_on[:1]]
    whose = next(((a.parts, _WHOSE[a.rank]) for a in used if a.parts and a.rank in _WHOSE), None)
    said: list[Caveat] = []
    for account in accounts:
        if isinstance(account, MetricAccount) and result.parts is not None:
            said += [*account.caveats, *doubts(account, whose)]
    return said


def _with_evidence(result: Result, accounts: Sequence[Account]) -> Result:
    """With what became of the servers' words, their stacks, and the flag that would measure."""
    spans = [account for account in accounts if account.rank is Rank.SPANS]
    for account in spans:
        result = _naming(result, account.stacks, "its spans")
    verdict = result.verdict
    measured = any(account.rank in result.rests_on for account in accounts)
    if verdict is not None and result.parts is not None and not measured and result.valid:
        names = [(stack.name, stack.version) for stack in result.stacks]
        given = {_CHANNEL[account.rank] for account in accounts if account.rank in _CHANNEL}
        heard = result.collected.channels if result.collected is not None else ()
        if flag := flags.to_measure(names, verdict, result.breakdowns, given, heard):
            verdict = replace(verdict, sure=f"{verdict.sure} {flag}".lstrip())
    result = replace(result, verdict=verdict)
    for account in accounts:
        if isinstance(account.evidence, SpanEvidence):
            result = replace(result, evidence=account.evidence)
        elif isinstance(account.evidence, ReplyEvidence):
            result = _naming(result, account.stacks, "its replies")
            result = replace(result, replies=account.evidence)
        elif isinstance(account.evidence, MetricEvidence):
            result = _naming(result, account.stacks, "its metrics")
            result = replace(result, aggregates=account.evidence)
    return result


def _with_longer(run: Run, result: Result) -> Result:
    """Of one probe, with what a larger budget would state besides."""
    verdict = result.verdict
    if verdict is None or len(run.paths) > 1 or not (more := longer(result, run.header)):
        return result
    return replace(result, verdict=replace(verdict, sure=f"{verdict.sure} {more}".lstrip()))


def _naming(result: Result, names: Sequence[str], grounds: str) -> Result:
    """With the stacks that are not named yet."""
    known = {stack.name for stack in result.stacks}
    new = (StackFound(name, grounds) for name in names if name not in known)
    return replace(result, stacks=(*result.stacks, *new))
