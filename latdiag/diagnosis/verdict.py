"""One sentence on where the time goes, from breakdowns; "I cannot tell" is an answer.

A sentence holds the figures that decide it, with their interval, and how sure it is. Advice never
asks for what the run has: ``Case.given`` says what that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from latdiag.diagnosis.advice import advice, following, has_changed
from latdiag.diagnosis.breakdown import TAIL_ROWS, UNEXPLAINED, leads, unattributed
from latdiag.diagnosis.case import Case as Case
from latdiag.diagnosis.health import Health
from latdiag.diagnosis.overloaded import overloaded
from latdiag.diagnosis.result import Breakdown, InvalidBecause, Share, Verdict
from latdiag.diagnosis.verdict_words import (
    amount,
    confidence_of,
    mean_of,
    ms,
    noun,
    subject,
    takes,
    who,
    whole_of,
)
from latdiag.model.terms import AUDIT_RULES
from latdiag.model.units import GLUE, quantity

if TYPE_CHECKING:
    from latdiag.attribution.parts import Parts

_MIN_ROWS = TAIL_ROWS
#: A leader leads beyond doubt where 95 of 100 repetitions would say so.
_BEYOND_DOUBT = 0.95
#: And holds at least this share at the lower end of its interval.
_LEAST = 0.2
#: With more requests failed nothing is called healthy.
_FAILED = 0.01

_LEAVES = {
    "queue.admission": "waiting for a place in the running batch",
    "decode.base": "the model's own step",
    "decode.batch": "steps made longer by other requests in the batch",
    "decode.interference": "steps stretched by the prefill of other requests",
    "decode.stall": "pauses that no step explains",
    "interconnect.wait": "the hand-over between the servers, and not the transfer",
}


def verdict(case: Case) -> Verdict:
    """Where the time goes. The tail speaks where it holds enough rows."""
    mean, tail = case.breakdowns.get("mean"), case.breakdowns.get("p95_tail")
    if mean is None or mean.n < _MIN_ROWS or mean.total_ns <= 0:
        explained = 0 if mean is None or mean.total_ns <= 0 else mean.n
        return _too_few(explained, case)
    speaking = tail if tail is not None and tail.insufficient is None else None
    population = "p95_tail" if speaking else "mean"
    if not case.valid:
        return _limited_by_client(population)
    about = speaking or mean
    chosen = about.shares
    first, second, *_ = sorted(chosen, key=lambda name: -chosen[name].sum_ns)
    ahead = leads(case.parts, first, population)
    clear = clearly(first, ahead, chosen[first])
    if case.backlog is not None:
        if not clear:
            return overloaded(case.backlog, population, one_rate=case.one_rate)
        where, _, leaf = _where(case, about, population, first)
        remedy = advice(case, about, first, leaf)
        return overloaded(case.backlog, population, first, where, remedy, case.one_rate)
    whole = unattributed(chosen) < UNEXPLAINED and case.failed <= _FAILED
    if whole and case.health is not None and first == "decode" and case.health.good(chosen):
        return _healthy(case.health, population, confidence_of(chosen[first]))
    paced = "decode" in (chosen[first].members or (first,))
    if whole and case.health is not None and paced and case.health.open(chosen):
        return _perhaps_healthy(case, about, population, case.health)
    if not clear:
        return _ambiguous(case, about, population, first, second)
    return _bottleneck(case, about, population, first)


def clearly(first: str, ahead: float | None, share: Share) -> bool:
    """Whether the largest part leads beyond doubt. ``ahead``: in which share of repetitions."""
    if first == "unattributed" or ahead is None or share.lo is None:
        return False
    return ahead >= _BEYOND_DOUBT and share.lo >= _LEAST


def within_limits(found: Verdict, refuses: bool) -> Verdict:
    """``refuses``: the server was seen to refuse what is beyond its limit, so that more load shows
    that limit and nothing else."""
    if found.kind != "healthy" or not refuses:
        return found
    return replace(
        found,
        next="The server refuses what is beyond its limit: raise that before you raise --rate or"
        " --concurrency.",
    )


def with_reason(found: Verdict, broken: Sequence[InvalidBecause]) -> Verdict:
    """A verdict that the client's own faults forbid, with what broke and what mends it."""
    if found.kind != "client_limited" or found.dominant is not None or not broken:
        return found
    sentence, following = invalid_words(broken)
    return Verdict(None, found.population, found.confidence, found.kind, sentence, following)


def invalid_words(broken: Sequence[InvalidBecause]) -> tuple[str, str]:
    """(Which rule the client broke and what that does, what mends it); of several rules the
    first is told, the others are named."""
    rules = {rule.name: rule for rule in AUDIT_RULES}
    first = broken[0]
    rule = rules.get(first.rule)
    reading, limit = (_reading(value, first.unit) for value in (first.reading, first.limit))
    title = rule.title if rule is not None else first.rule
    sentence = f"{title}: {reading} (limit {limit})."
    sentence += f" {rule.meaning}" if rule is not None else ""
    others = dict.fromkeys(b.rule for b in broken if b.rule != first.rule)
    if others:
        named = [rules[name].title if name in rules else name for name in others]
        sentence += f" Also over the limit: {', '.join(named)}."
    mended = rule.remedy if rule is not None else "Measure again on an idle machine."
    return sentence[0].upper() + sentence[1:], mended


def _reading(value: float | None, unit: str) -> str:
    if value is None:
        return "not known"
    # Rows are counted, not measured.
    return f"{value:,.0f} rows" if unit == "rows" else quantity(value, unit).replace(GLUE, " ")


def _limited_by_client(population: str) -> Verdict:
    return Verdict(
        None,
        population,
        "insufficient",
        "client_limited",
        "The client broke a rule of its self-audit, so these figures may describe the client and"
        " not the server.",
        "Close other programs, or run the client on another machine, then measure again.",
    )


def _where(
    case: Case, about: Breakdown, population: str, first: str
) -> tuple[str, str, str | None]:
    """Who takes how much of the time, in a sentence; how sure that is; the leaf that leads."""
    chosen = about.shares
    fine = case.leaves.get(population) or {}
    leaf = _top_leaf(fine, first, chosen[first].sum_ns)
    if first == "decode" and has_changed(case):
        leaf = None  # its laws were learned of a server that is another by now
    confidence, unknown = confidence_of(chosen[first]), unattributed(chosen)
    if unknown > UNEXPLAINED:
        confidence = "bounded"
    weaker = leaf is not None and confidence == "measured" and fine[leaf].grade not in ("A", "B")
    borrowed = weaker and leaf in case.parts.borrowed
    if weaker and not borrowed:
        # A sentence is as sure as the weakest of what it says.
        confidence = "inferred"
    sentence = (
        f"{subject(first, chosen)} {takes(chosen[first])} {amount(chosen[first], about)} of"
        f" the {whole_of(about)} of {who(population)} ({mean_of(chosen[first], about)},"
        f" {confidence})"
    )
    if leaf is not None:
        sentence += f"; most of it is {_LEAVES[leaf]}{' (inferred)' if borrowed else ''}"
    sentence += "."
    if unknown > UNEXPLAINED:
        sentence += f" No evidence explains {100 * unknown:.0f} % of the time."
    return sentence, confidence, leaf


def _bottleneck(case: Case, about: Breakdown, population: str, first: str) -> Verdict:
    sentence, confidence, leaf = _where(case, about, population, first)
    if case.failed > _FAILED:
        sentence += (
            f" {100 * case.failed:.0f} % of the requests failed and are not in these figures."
        )
    kind = "client_limited" if first == "client" else "bottleneck"
    return Verdict(first, population, confidence, kind, sentence, advice(case, about, first, leaf))


def _too_few(n: int, case: Case) -> Verdict:
    sentence = (
        f"The time of {n} requests could be explained; a verdict needs {_MIN_ROWS} requests."
    )
    more = (
        "Send more requests (a longer --duration of `latdiag load`, a larger --budget of"
        " `latdiag probe`), and check whether requests failed."
    )
    if case.parts.interval == "server":
        more = "Import the traces of more requests."
        if case.listened:
            more = (
                "Collect for longer (`latdiag collect --duration`), and check that spans arrive."
            )
    elif case.requests >= _MIN_ROWS:
        # More of the same would not help.
        sentence = f"Fewer than {_MIN_ROWS} of {case.requests} requests could be explained."
        more = "--notes says which evidence the others lack, and how to get it."
    return Verdict(
        None,
        "mean",
        "insufficient",
        "insufficient",
        sentence,
        more,
    )


def _healthy(health: Health, population: str, confidence: str) -> Verdict:
    return Verdict(
        None,
        population,
        "inferred" if confidence == "measured" else confidence,
        "healthy",
        f"No bottleneck at this load: {health.sentence()}.",
        "Raise --rate or --concurrency to find the load at which that ends.",
    )


def _perhaps_healthy(case: Case, about: Breakdown, population: str, health: Health) -> Verdict:
    """Nobody waits, and what could be wrong all the same cannot be seen from here."""
    chosen = about.shares
    classes = health.doubtful(chosen)
    if not classes:
        sentence = (
            f"Nothing looks slow at this load: 95 % of {health.n} requests met {health.limits()}."
            " They were faster than the same requests alone in the designed stages, so what load"
            " costs is not known."
        )
        return Verdict(
            None,
            population,
            "bounded",
            "ambiguous",
            sentence,
            "Probe again: the server may have changed while it was probed.",
        )
    first = classes[0]
    named = health.avoidable(chosen[first].members)
    sentence = (
        f"Nothing looks slow at this load: {health.sentence()}. But {noun(first, chosen)}"
        f" {takes(chosen[first])} {amount(chosen[first], about)} of the {whole_of(about)}, and how"
        f" much of that is {' or '.join(named)} is not known."
    )
    return Verdict(
        None,
        population,
        confidence_of(chosen[first]),
        "ambiguous",
        sentence,
        following(case, about, first, None),
    )


def _ambiguous(case: Case, about: Breakdown, population: str, first: str, second: str) -> Verdict:
    chosen = about.shares
    one, other = (noun(name, chosen) for name in (first, second))
    sentence = (
        f"The two largest parts are {one} with {amount(chosen[first], about)} and {other} with"
        f" {amount(chosen[second], about)} of the {whole_of(about)} of {who(population)} (mean"
        f" {ms(about.total_ns, about)}, {confidence_of(chosen[first])})."
    )
    # Of a probe it is known what a longer one would decide: see ``longer``.
    chance = not (case.probed or case.of_probe) and not _is_open(case.parts, first, chosen[first])
    sure = "A longer measurement narrows the intervals." if chance else ""
    if first == "unattributed" and (chosen[first].share or 0.0) > 0.5:
        sentence = (
            f"No evidence explains {amount(chosen[first], about)} of the {whole_of(about)} of"
        )
        sentence += f" {who(population)} ({mean_of(chosen[first], about)})."
        sure = ""
    return Verdict(
        None,
        population,
        confidence_of(chosen[first]),
        "ambiguous",
        sentence,
        following(case, about, first, None),
        sure,
    )


def _is_open(parts: Parts, name: str, share: Share) -> bool:
    """Whether evidence leaves open most of what its interval holds: no more requests narrow it."""
    whole = int(parts.total.sum())
    if name not in parts.slack or share.lo is None or share.hi is None or whole <= 0:
        return False
    slack = sum(float(side.sum()) for side in parts.slack[name]) / whole
    return slack > (share.hi - share.lo) / 2


def _top_leaf(leaves: Mapping[str, Share], component: str, whole: int) -> str | None:
    """The leaf that holds more than half of a component, of those that advice differs by."""
    mine = {name: leaves[name].sum_ns for name in _LEAVES if name in leaves}
    mine = {name: ns for name, ns in mine.items() if name.startswith(f"{component}.")}
    top = max(mine, key=lambda name: mine[name], default=None)
    return top if top is not None and whole > 0 and mine[top] > whole / 2 else None
