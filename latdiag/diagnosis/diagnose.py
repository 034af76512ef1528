"""The result of a run: what the client saw, what servers said, where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latdiag.attribution import reading
from latdiag.attribution.client_only import partition
from latdiag.attribution.metrics.source import Scraped, doubtful
from latdiag.attribution.replies.source import Stated
from latdiag.attribution.spans.source import Spoken
from latdiag.diagnosis import attribution, client, flags
from latdiag.diagnosis.attribution import Attribution
from latdiag.diagnosis.caveats import caveats
from latdiag.diagnosis.collected import caveats as caveats_of_receiver
from latdiag.diagnosis.collected import collected
from latdiag.diagnosis.header import stacks_of, target_of
from latdiag.diagnosis.result import Result, StackFound
from latdiag.measurement.digest import Digest
from latdiag.measurement.slo import Slo
from latdiag.measurement.validity import readings
from latdiag.model.errors import UsageFault

if TYPE_CHECKING:
    from latdiag.attribution.parts import Parts
    from latdiag.model.caveat import Caveat
    from latdiag.store.run import Reader, Run


@dataclass(frozen=True, slots=True)
class _Servers:
    """What servers said of a run, by kind of evidence; None where they said nothing of it."""

    spans: Spoken | None
    replies: Stated | None
    metrics: Scraped | None

    @property
    def told(self) -> bool:
        """Whether any of it is about single requests."""
        metrics = self.metrics is not None and self.metrics.parts is not None
        return self.spans is not None or self.replies is not None or metrics

    def tell(self, parts: Parts) -> bool:
        """Whether ``parts`` are out of their words."""
        kinds = (self.spans, self.replies, self.metrics)
        return any(each is not None and each.parts is parts for each in kinds)

    def own(self, parts: Parts) -> tuple[Parts, str] | None:
        """``parts`` and whose words they are, where these are of each request."""
        kinds = ((self.spans, "the spans"), (self.replies, "the replies"))
        return next(((parts, who) for each, who in kinds if each and each.parts is parts), None)


def result_of(run: Run, verb: str, slos: Sequence[Slo] = (), *also: Reader) -> Result:
    """Everything that is said of ``run``. ``verb``: load, probe or diagnose; of the latter two
    breakdowns are always a part. Its ``parts``, where nothing is broken down: as any load proves
    them. ``also``: who else takes the run's rows as they go by."""
    read = reading.read(run, slos, *also)
    found = read.digest
    _check_clocks(run, found)
    servers = _Servers(read.spoken(), read.stated(), read.scraped())
    result = _of_client(run, verb, found, slos)
    receivers = collected(run.writers)
    said = [each for one in receivers for each in caveats_of_receiver(one)]
    if receivers:
        result = replace(result, collected=receivers[0].brief())
    if servers.told or verb in ("probe", "diagnose"):
        result = _with_attribution(result, _attribute(result, found, servers))
        said += _caveats_of_servers(servers, result)
    result = _with_evidence(result, servers)
    if servers.metrics is not None and result.parts is not None:
        said += doubtful(servers.metrics, servers.own(result.parts))
    said += caveats(result, found, run)
    return replace(result, caveats=tuple(said))


def _check_clocks(run: Run, found: Digest) -> None:
    """UsageFault for several probes whose streams' instants cannot be set against each other."""
    if len(run.paths) > 1 and found.designed and len(found.frame.clocks) > 1:
        raise UsageFault(
            "these probes were made on different machines or across a reboot, and their clocks"
            " cannot be compared",
            "diagnose them apart",
        )


def _of_client(run: Run, verb: str, found: Digest, slos: Sequence[Slo]) -> Result:
    """What the client knows without any server's words."""
    # What gathers beside the load counts spans, and audits nobody.
    writers = [writer for writer in run.writers if writer.get("kind") != "otlp"]
    audit = readings(client.facts_of(found, writers))
    return Result(
        verb=verb,
        run=run.paths[0],
        invalid_because=client.invalid_because(audit),
        target=target_of(run.header),
        stacks=stacks_of(run.header),
        load=client.load_of(found, run.header),
        self_audit=client.self_audit(found, audit, run.header, writers),
        metrics=found.measurement.metrics(),
        ttft_split=client.split_of(found),
        slo=tuple(slo.judge(found.measurement) for slo in slos),
        errors=client.outcomes_of(found),
        parts=partition(found.frame),
    )


# ---------------------------------------------------------------------- where the time went
def _attribute(result: Result, found: Digest, servers: _Servers) -> Attribution:
    """A probe's designed stages teach the laws; any other load is explained without. Servers
    that spoke of the requests know best, and then what their replies state."""
    counts = found.measurement.counts
    failed = sum(counts.failed.values()) / counts.requests if counts.requests else 0.0
    spans, replies, metrics = servers.spans, servers.replies, servers.metrics
    rungs = attribution.Rungs(
        spans.parts if spans is not None else None,
        replies.parts if replies is not None else None,
        metrics.parts if metrics is not None else None,
    )
    whole = result.parts
    assert whole is not None
    if metrics is not None and metrics.evidence.of == "traffic":
        whole = replace(whole, interval="server")  # no client was there
    return attribution.attribute(whole, found.observations, result.valid, failed, rungs)


def _with_attribution(result: Result, said: Attribution) -> Result:
    return replace(
        result,
        breakdowns=said.breakdowns,
        leaves=said.leaves,
        by=said.by,
        verdict=said.verdict,
        learned=said.learned,
        claims=said.claims,
        parts=said.parts,
    )


def _caveats_of_servers(servers: _Servers, result: Result) -> list[Caveat]:
    """What is to be said of spans and replies where the time was attributed."""
    spans, replies = servers.spans, servers.replies
    said = list(spans.caveats) if spans is not None else []
    # What is left out of replies matters where the breakdown rests on them, or might have.
    alone = spans is None or spans.parts is None
    if replies is not None and alone and (replies.parts is None or replies.parts is result.parts):
        said += replies.caveats
    return said


def _with_evidence(result: Result, servers: _Servers) -> Result:
    """With what became of the servers' words, their stacks, and the flag that would measure."""
    spans, replies, metrics = servers.spans, servers.replies, servers.metrics
    if spans is not None:
        result = _naming(result, spans.stacks, "its spans")
    verdict = result.verdict
    if verdict is not None and result.parts is not None and not servers.tell(result.parts):
        names = [stack.name for stack in result.stacks]
        if flag := flags.to_measure(names, verdict, result.breakdowns):
            verdict = replace(verdict, next=f"{verdict.next} {flag}")
    if replies is not None:
        result = _naming(result, replies.stacks, "its replies")
    if metrics is not None:
        result = _naming(result, metrics.stacks, "its metrics")
    return replace(
        result,
        verdict=verdict,
        evidence=spans.evidence if spans is not None else None,
        replies=replies.evidence if replies is not None else None,
        aggregates=metrics.evidence if metrics is not None else None,
    )


def _naming(result: Result, names: Sequence[str], grounds: str) -> Result:
    """With the stacks that are not named yet."""
    known = {stack.name for stack in result.stacks}
    new = (StackFound(name, grounds) for name in names if name not in known)
    return replace(result, stacks=(*result.stacks, *new))
