"""What latdiag says of runs: typed, as programs, pages and ``--json`` take it.

``Result.to_json`` writes the document of ``schema.json``: every key of it is a field here, or
stands in a ``to_json`` here. Fields ending in ``_ns``, ``_ms`` and ``_s`` say their unit, shares
are of 1, ``lo`` and ``hi`` are the ends of a 95 % interval in the unit of what they bound. None is
not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from latdiag.diagnosis.face import FACE, Drawing, plain
from latdiag.diagnosis.shares import Breakdown as Breakdown
from latdiag.diagnosis.shares import Share as Share
from latdiag.model.caveat import Caveat
from latdiag.model.components import in_time_order
from latdiag.model.document import OPTIONAL, Document, document
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown

if TYPE_CHECKING:
    import pandas as pd

    from latdiag.attribution.accounts import Rank
    from latdiag.attribution.evidence import MetricEvidence, ReplyEvidence, SpanEvidence
    from latdiag.attribution.parts import Parts
    from latdiag.diagnosis.collected import Collected
    from latdiag.diagnosis.learned import Learned
    from latdiag.diagnosis.limits import Limit
    from latdiag.measurement.bursts import Bursts
    from latdiag.measurement.course import Course
    from latdiag.measurement.measurement import MetricResult
    from latdiag.measurement.slo import Judgement
    from latdiag.measurement.validity import Reading
    from latdiag.store.run import Run

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence on where the time goes. ``dominant``: the component that leads, None where
    none does. ``population``: mean or p95_tail. ``next``: what to do, one sentence or two;
    ``sure``: what would make it surer, empty where nothing would. JSON has both as ``next``."""

    dominant: str | None
    population: str
    confidence: str
    kind: str
    sentence: str
    next: str
    sure: str = ""

    def to_json(self) -> dict[str, object]:
        return {
            "dominant": self.dominant,
            "population": self.population,
            "confidence": self.confidence,
            "kind": self.kind,
            "sentence": self.sentence,
            "next": f"{self.next} {self.sure}".rstrip(),
        }


@dataclass(frozen=True, slots=True)
class Claim:
    """What one kind of evidence states of the components ``of``. ``why``: it is not used."""

    population: str
    of: tuple[str, ...]
    share: float | None
    lo: float | None
    hi: float | None
    grade: str
    evidence: str
    used: bool
    why: str | None


@dataclass(frozen=True, slots=True)
class InvalidBecause:
    """A rule of the self-audit that the client broke."""

    rule: str
    text: str
    reading: float | None
    limit: float | None
    unit: str


@dataclass(frozen=True, slots=True)
class Target:
    """What was asked. ``captures``: names of the imported recordings. ``api_key_env``: the
    variable that the API key was taken from. ``behind``: URL of the server behind it, which got
    the same workload."""

    url: str | None
    model: str | None
    dialect: str | None
    peer: str | None
    captures: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    api_key_env: str | None = field(default=None, metadata=OPTIONAL)
    behind: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class StackFound:
    """A serving stack that showed itself, and by what. ``asked``: whether by replies to GETs
    before the load, which may state a version; else by evidence of its own."""

    name: str
    grounds: str | None
    version: str | None = None
    asked: bool = False

    def to_json(self) -> dict[str, object]:
        version = {"version": self.version} if self.asked else {}
        return {"name": self.name, **version, "grounds": self.grounds}


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time, in steps of ``step_s``; None for a step without requests."""

    step_s: float
    ttft_p50_ms: tuple[float | None, ...]
    output_tok_s: tuple[float | None, ...] = field(default=(), metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class Load:
    """What was sent, as planned and as it came: rates in requests/s, lengths in tokens.

    ``failed``: requests by outcome. ``isl_mean``, ``osl_mean``: as they came, by the count of
    ``token_source``. ``duration_s``: from the first request to the last end, without the pauses
    between several runs.
    """

    requests: int
    ok: int
    failed: Mapping[str, int]
    offered_rate: float | None
    sent_rate: float | None
    warmup: int
    duration_s: float | None
    concurrency: int | None
    arrivals: str | None
    isl: float | None
    osl: float | None
    prompts: int | None
    isl_mean: float | None
    osl_mean: float | None
    connections: str | None
    workers: int | None
    seed: int | None
    token_source: str | None
    series: Series | None


@dataclass(frozen=True, slots=True)
class SelfAudit:
    """What the client measured of itself."""

    priority: str | None
    stamp_source: str | None
    stamp_reason: str | None
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class SplitPart:
    """One part of TTFT. ``lo``, ``hi``: ms, the median of what the stamps prove at each end.
    A percentile is None where there are too few requests for it."""

    p50_ms: float | None
    p95_ms: float | None
    mean_ms: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class TtftSplit:
    """TTFT as the client alone can prove it. ``reason``: why no part is known. ``bounded``:
    requests whose ACK was delayed, so that their network is an interval."""

    n: int
    bounded: int
    client: SplitPart | None = None
    network: SplitPart | None = None
    server: SplitPart | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, object]:
        parts = {"client": self.client, "network": self.network, "server": self.server}
        if self.reason is not None:
            return {"n": self.n, **parts, "reason": self.reason, "bounded": self.bounded}
        return {"n": self.n, "bounded": self.bounded, **parts}


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """Attempts that ended in one outcome, with the words of the first."""

    outcome: str
    count: int
    status: int | None
    example: str | None


@dataclass(frozen=True, slots=True)
class Imported:
    """What was read of captures: counts by name of scenario, sender, reason, other scenario."""

    requests: int
    scenarios: Mapping[str, int]
    spans: int
    senders: Mapping[str, int]
    scrapes: int
    samples: int
    skipped: Mapping[str, int]
    left_out: Mapping[str, int]
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """What stdout holds with ``--json`` when there is no result."""

    code: str
    text: str
    remedy: str
    run: str | None

    def to_json(self) -> dict[str, object]:
        error = {"code": self.code, "text": self.text, "remedy": self.remedy}
        return {"schema": SCHEMA_VERSION, "error": error, "run": self.run}


@dataclass(frozen=True, slots=True)
class StageResult:
    """One run of several, or one scenario of a capture.

    ``scenario``: empty where the capture names none; None where there are no scenarios.
    ``failed``: requests by outcome. ``concurrency``: requests in flight, ``offered_rate``:
    requests/s, as planned; None where that is not known. ``metrics``: ttft, tpot and e2e, as a
    result has them. ``verdict`` and ``breakdowns``: by the rules of the whole result, None and
    empty unless servers state the times of each request.
    """

    name: str
    run: str
    scenario: str | None
    requests: int
    ok: int
    failed: Mapping[str, int]
    concurrency: int | None
    offered_rate: float | None
    metrics: Mapping[str, MetricResult]
    verdict: Verdict | None = None
    breakdowns: Mapping[str, Breakdown] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "breakdowns"}
        return {**told, "breakdown": self.breakdowns}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that ``verb`` says. What it does not speak of is None or empty.

    ``run``: where it lies; ``runs``: all of them where they are several. ``breakdowns`` and
    ``leaves``: by population, mean or p95_tail; ``by``: breakdowns of other intervals than end
    to end, by interval and population. ``claims``: by component. ``limits``: those that the server
    has shown. ``stages``: the runs or scenarios one by one, where there are several. ``course``:
    what is to be said of the run over time. ``parts``: the requests that the breakdowns sum up,
    one by one, and ``source``: the run itself; neither is in JSON.
    """

    verb: str
    run: str | None = None
    invalid_because: tuple[InvalidBecause, ...] = ()
    target: Target | None = None
    stacks: tuple[StackFound, ...] = ()
    load: Load | None = None
    self_audit: SelfAudit | None = None
    metrics: Mapping[str, MetricResult] = field(default_factory=dict)
    ttft_split: TtftSplit | None = None
    slo: tuple[Judgement, ...] = ()
    errors: tuple[OutcomeCount, ...] = ()
    breakdowns: Mapping[str, Breakdown] = field(default_factory=dict)
    leaves: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)
    by: Mapping[str, Mapping[str, Breakdown]] = field(default_factory=dict)
    verdict: Verdict | None = None
    learned: Learned | None = None
    claims: Mapping[str, tuple[Claim, ...]] = field(default_factory=dict)
    evidence: SpanEvidence | None = None
    imported: Imported | None = None
    collected: Collected | None = None
    compared: Document | None = None
    caveats: tuple[Caveat, ...] = ()
    replies: ReplyEvidence | None = None
    aggregates: MetricEvidence | None = None
    runs: tuple[str, ...] = ()
    bursts: Bursts | None = None
    course: Course | None = None
    limits: tuple[Limit, ...] = ()
    stages: tuple[StageResult, ...] = ()
    parts: Parts | None = field(default=None, repr=False, compare=False)
    rests_on: tuple[Rank, ...] = field(default=(), repr=False, compare=False)
    source: Run | None = field(default=None, repr=False, compare=False)

    @property
    def valid(self) -> bool:
        return not self.invalid_because

    def breakdown(self, population: str = "mean") -> Breakdown | None:
        """The breakdown of ``mean`` (all requests) or ``p95_tail``; None where there is none."""
        return self.breakdowns.get(population)

    def requests(self, interval: str = "client_e2e") -> pd.DataFrame:
        """A row for each request of the workload, read from the run again: when it was sent
        (UTC), its ids, outcome, lengths, times, and the components of ``interval``: client_e2e,
        client_ttft or decode; see ``requests.request_table``.

        UsageFault for another interval and where the result is of no diagnosis, RunFault where
        the run has changed.
        """
        from latdiag.attribution.parts import INSIDE
        from latdiag.diagnosis.requests import request_table

        if interval not in INSIDE:
            text = f"there is no interval {shown(interval, 60)!r}"
            raise UsageFault(text, f"choose from {', '.join(INSIDE)}")
        if self.source is None:
            raise UsageFault(f"a result of {self.verb} has no requests", "diagnose a run")
        return request_table(self.source, self.parts, interval)

    def plot(self) -> Drawing:
        """Where the time goes, and the median request and the slowest ones taken apart, as one
        SVG image. UsageFault for a result that no function of ``latdiag`` has returned."""
        if FACE.drawing is None:
            raise UsageFault("nothing draws this result", "import latdiag, and diagnose a run")
        if self.load is None:
            raise UsageFault(f"a result of {self.verb} has no requests", "diagnose a run")
        return FACE.drawing(self)

    def _repr_html_(self) -> str:
        """The first screen of ``latdiag report``, as a notebook shows it."""
        if FACE.html is not None and self.load is not None:
            return FACE.html(self)
        return plain(self.verb, self.verdict.sentence if self.verdict else str(self.run))

    def to_json(self) -> dict[str, object]:
        """The document that ``--json`` prints, in the types of JSON."""
        told = {
            "evidence": self.evidence,
            "imported": self.imported,
            "collected": self.collected,
            "compared": self.compared,
        }
        more = {"replies": self.replies, "aggregates": self.aggregates}
        found: dict[str, object] = document(
            {
                "schema": SCHEMA_VERSION,
                "verb": self.verb,
                "run": self.run,
                "valid": self.valid,
                "invalid_because": self.invalid_because,
                "target": self.target or {"url": None, "model": None},
                "stacks": self.stacks,
                "load": self.load or {"requests": 0, "ok": 0, "failed": {}},
                "self_audit": self.self_audit or {"stamp_source": None, "readings": []},
                "metrics": self.metrics,
                "split": {"ttft": self.ttft_split},
                "slo": self.slo,
                "errors": self.errors,
                "breakdown": self.breakdowns,
                "leaves": {p: in_time_order(leaves) for p, leaves in self.leaves.items()},
                "by": self.by,
                "verdict": self.verdict,
                "learned": self.learned,
                "claims": in_time_order(self.claims),
                **{key: value for key, value in told.items() if value is not None},
                "caveats": self.caveats,
                **{key: value for key, value in more.items() if value is not None},
                **({"runs": self.runs} if self.runs else {}),
                **({"bursts": self.bursts} if self.bursts is not None else {}),
                **({"course": self.course} if self.course is not None else {}),
                **({"limits": self.limits} if self.limits else {}),
                **({"stages": self.stages} if self.stages else {}),
            }
        )
        return found
