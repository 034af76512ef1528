"""The top of a screen: what the result is, what to do, how to be sure, what changes that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from latdiag.diagnosis.overloaded import advice
from latdiag.diagnosis.overloaded import sentence as sentence_of
from latdiag.diagnosis.result import Result, Verdict
from latdiag.diagnosis.verdict import invalid_words
from latdiag.measurement.slo import Judgement
from latdiag.model.text import shown
from latdiag.model.units import GLUE, quantity, show_duration
from latdiag.report import notes
from latdiag.report.numbers import with_interval
from latdiag.report.page import Block, Page, Span, rows

#: Colour of the one coloured word.
_STYLES = {"healthy": "bold green", "insufficient": "bold", "ambiguous": "bold"}
_HEADS = {"insufficient": "TOO LITTLE DATA", "ambiguous": "UNDECIDED"}
_OBJECTIVES = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """``head``: the word that is coloured; ``following``: what to do; ``sure``: what would make
    it surer. Each may be empty but for ``head`` and ``sentence``."""

    head: str
    style: str
    sentence: str
    following: str = ""
    sure: str = ""


def blocks(result: Result) -> Iterator[Block]:
    """The answer, the objectives, and the notes that change what is read here."""
    answer = answer_of(result)
    yield from of(answer)
    for limit in result.limits:
        yield Block(_labelled("Limit:", limit.sentence), 2, 3)
    if result.slo:
        yield Block(lambda page, room: _objectives(page, room, result), 2, 6)
    weighty = [] if answer.head == "NOTHING ARRIVED" else notes.weighty(result)
    if weighty:
        yield Block(lambda page, room: notes.short(page, room, weighty), 2, 7)


def of(answer: Answer) -> Iterator[Block]:
    """The blocks of one answer."""

    def sentence(page: Page, room: int) -> None:
        head = Span(f"{page.word(answer.head, 70)}:", answer.style)
        page.clipped(head, page.word(answer.sentence, 900), room)

    yield Block(sentence, 3, 0)
    for label, text, least, rank in (
        ("Next:", answer.following, 2, 1),
        ("To be sure:", answer.sure, 2, 8),
    ):
        if text:
            yield Block(_labelled(label, text, whole=label != "Next:"), least, rank)


def _labelled(label: str, text: str, whole: bool = False) -> Callable[[Page, int], None]:
    """``whole``: rather nothing than a part of a sentence."""

    def draw(page: Page, room: int) -> None:
        page.clipped(Span(label), page.word(text, 900), room, whole=whole)

    return draw


def is_of_servers(result: Result) -> bool:
    """Whether no request of a client is in the run: servers were listened to."""
    heard = result.evidence is not None or result.collected is not None
    heard = heard or result.aggregates is not None or result.imported is not None
    return heard and (result.load is None or not result.load.requests)


def answer_of(result: Result) -> Answer:
    """What the result says first."""
    if not result.valid:
        sentence, following = invalid_words(result.invalid_because)
        return Answer("INVALID", "bold red", sentence, following)
    if is_of_servers(result) and (answer := _of_servers(result)) is not None:
        return answer
    if result.verdict is None:
        return _of_load(result)
    return _of_verdict(result, result.verdict)


def _of_verdict(result: Result, found: Verdict) -> Answer:
    head = _HEADS.get(found.kind) or found.kind
    if found.kind in ("bottleneck", "client_limited"):
        head = _leader(result, found) or found.kind
    style = _STYLES.get(found.kind, "bold yellow")
    head = shown(head.upper().replace("_", " "), 70)
    return Answer(head, style, found.sentence, found.next, found.sure)


def _leader(result: Result, found: Verdict) -> str:
    """The dominant component; of a merged class every member, for any of them may be it."""
    if found.dominant is None:
        return ""
    about = result.breakdowns.get(found.population)
    share = about.shares.get(found.dominant) if about is not None else None
    members = (share.members if share is not None else ()) or (found.dominant,)
    return "+".join(members)


def _of_load(result: Result) -> Answer:
    """A load without the evidence of servers: what was asked of it, or how long it took."""
    if result.slo:
        missed = [judged for judged in result.slo if judged.met is False]
        unknown = [judged for judged in result.slo if judged.met is None]
        n = len(result.slo)
        if missed:
            sentence = f"{len(missed)} of {n} SLOs missed."
            return Answer("SLO MISSED", "bold red", sentence, _NEXT_LOAD)
        if unknown:
            sentence = f"{len(unknown)} of {n} SLOs cannot be judged from this run."
            return Answer("SLO UNKNOWN", "bold yellow", sentence, "Send more requests.")
        return Answer("SLO MET", "bold green", f"{n} of {n} SLOs met.", _NEXT_LOAD)
    if result.course is not None and (more := result.course.overload) is not None:
        return Answer("OVERLOADED", "bold yellow", sentence_of(more), advice(more))
    load = result.load
    ok = load.ok if load is not None else 0
    if not ok:
        sentence = "no request succeeded, so no latency can be stated."
        return Answer("NO RESULT", "bold", sentence, "Read the failures below.")
    times = [
        f"{label} {quantity(value / 1e6, 'ms')}"
        for name, label in (("ttft", "TTFT"), ("e2e", "E2E"))
        if (value := _median(result, name)) is not None
    ]
    middle = f": {' and '.join(times)} at the median" if times else ""
    following = _NOT_HEARD if result.collected is not None else _NEXT_LOAD
    sentence = (
        f"{ok} requests{middle}. A load measures how long requests take, not where the time goes."
    )
    return Answer("MEASURED", "bold", sentence.replace(GLUE, " "), following)


_NEXT_LOAD = (
    "To see where the time goes, run `latdiag probe URL`, or this load with --otlp or"
    " --metrics URL."
)
_NOT_HEARD = (
    "latdiag listened, but no server sent what would show where the time goes: see --notes."
    " `latdiag probe URL` finds it from outside."
)


def _median(result: Result, name: str) -> float | None:
    metric = result.metrics.get(name)
    estimate = metric.statistics.get("p50") if metric is not None else None
    return estimate.value if estimate is not None else None


# ---------------------------------------------------------------------- servers alone
_STACKS = "`latdiag stacks` lists the stacks whose spans latdiag knows."


def _of_servers(result: Result) -> Answer | None:
    """What servers said while others sent them requests; None where a verdict says it."""
    found = result.verdict
    mean = result.breakdown("mean")
    if found is not None and mean is not None and mean.n:
        return None
    counts, read = result.collected, result.imported
    spans = counts.accepted if counts is not None else read.spans if read is not None else 0
    samples = counts.samples if counts is not None else read.samples if read is not None else 0
    if spans or result.evidence is not None:
        return _of_spans(result, spans)
    if samples:
        return Answer(
            "NO VERDICT",
            "bold",
            "metrics alone give only the mean of each time over all requests, listed below.",
            "Turn the servers' spans on (`latdiag stacks URL` names the flag) and send them here.",
        )
    span = counts.duration_ns if counts is not None else None
    during = f" in {show_duration(span)}" if span else ""
    following = (
        "Turn the server's exporter on and point it at this machine (`latdiag stacks URL` names"
        " the flag)."
    )
    if read is not None:
        return Answer("NOTHING READ", "bold", "the capture holds no request, span or scrape.")
    return Answer(
        "NOTHING ARRIVED", "bold", f"no server sent spans or metrics{during}.", following
    )


def _of_spans(result: Result, spans: int) -> Answer:
    """Of servers whose spans bear no breakdown; ``spans``: how many came."""
    evidence = result.evidence
    spans = spans or (evidence.spans if evidence is not None else 0)
    if evidence is None or not any(sender.stack for sender in evidence.senders):
        sentence = f"There are {spans} spans, but none of a known stack."
        return Answer("NO VERDICT", "bold", sentence, _STACKS)
    whole = evidence.joined - evidence.partial - evidence.contradicted
    if whole < evidence.joined:
        sentence = (
            f"There are {spans} spans of {evidence.requests} requests; they are complete for"
            f" {whole}, too few for a verdict."
        )
        return Answer("TOO LITTLE DATA", "bold", sentence, "--notes says what the others lack.")
    sentence = f"There are {spans} spans, but none that says where a request's time went."
    return Answer("NO VERDICT", "bold", sentence, _STACKS)


# ---------------------------------------------------------------------- objectives
def _objectives(page: Page, room: int, result: Result) -> None:
    lines = [_objective(page, judged) for judged in result.slo]
    # The missed ones first, for the others may be cut.
    order = sorted(range(len(lines)), key=lambda n: (result.slo[n].met is not False, n))
    rows(page, min(room, _OBJECTIVES + 1), [lines[n] for n in order], " SLOs")


def _objective(page: Page, judged: Judgement) -> str:
    word = "unknown" if judged.met is None else "met" if judged.met else "MISSED"
    if judged.reading.value is not None:
        why = with_interval(page, judged.reading, judged.slo.metric.unit)
    else:
        why = page.word(judged.reason or judged.reading.refused or "", 160)
    return f"SLO {page.word(judged.slo.text, 40)}: {word}, {why}"
