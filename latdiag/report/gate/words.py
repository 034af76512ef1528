"""What every face says alike: the sentence of the verdict, figures of checks and components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latdiag.model.units import show_ms

if TYPE_CHECKING:
    from latdiag.gate.result import Component, Outcome, Verdict

#: What statistics are called, where that is not their name.
STATISTICS = {"shift": "shift", "exceed2x": "> 2x twin"}
_WORDS = {"OK": "ok", "IMPROVED": "faster", "INCONCLUSIVE": "not decided"}


@dataclass(frozen=True, slots=True)
class Row:
    """A check as a table shows it. ``decided``: the bound that decided, beside what it was held
    against (``held``). ``short``: the verdict in one or two words."""

    label: str
    base: str
    candidate: str
    change: str
    decided: str
    held: str
    verdict: str
    short: str


def label(outcome: Outcome) -> str:
    """``TTFT p95``, ``TTFT > 2x twin``, ``TTFT p95 [prompt_class=rag]``."""
    words = STATISTICS.get(outcome.statistic, outcome.statistic)
    _, bracket, where = outcome.name.partition("[")
    return f"{outcome.metric.upper()} {words}" + (f" [{where}" if bracket else "")


def change(outcome: Outcome, share: float | None, sign: bool = True) -> str:
    """``+13.6 %``; of requests ``+0.1 pt``; ``-`` where nothing is known."""
    if share is None:
        return "-"
    unit = "pt" if outcome.statistic == "exceed2x" else "%"
    value = 100 * share
    digits = 0 if abs(value) >= 99.95 else 1
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return f"{'+0.0' if text == '-0.0' else text} {unit}"


def limit(outcome: Outcome, share: float) -> str:
    """A setting: ``3 %``, ``2 pt``."""
    return f"{100 * share:g} {'pt' if outcome.statistic == 'exceed2x' else '%'}"


def level_of(outcome: Outcome, value: float | None) -> str:
    """What an arm came to: ``412 ms``, or ``0.3 %`` of requests."""
    if value is None:
        return "-"
    if outcome.statistic == "exceed2x":
        return f"{100 * value:.1f} %"
    return f"{show_ms(value)} ms"


def row(outcome: Outcome, judged: bool) -> Row:
    """A check; ``judged``: False where the whole measurement is void."""
    words = short = _WORDS.get(outcome.verdict, outcome.verdict) if judged else "not judged"
    if judged and outcome.verdict == "INCONCLUSIVE" and outcome.more_pairs:
        short = more_pairs(outcome.more_pairs)
        words += f": {short}"
    if judged and outcome.level == "warn" and outcome.verdict == "REGRESSED":
        words, short = "regressed (warning)", "warning"
    return Row(
        label(outcome),
        level_of(outcome, outcome.base),
        level_of(outcome, outcome.candidate),
        change(outcome, outcome.effect),
        *(_decided(outcome) if judged else ("-", "")),
        words,
        short,
    )


def _decided(outcome: Outcome) -> tuple[str, str]:
    allowed = 0.0 if outcome.statistic == "exceed2x" else outcome.min_effect
    if outcome.verdict == "REGRESSED":
        return f">= {change(outcome, outcome.worse_than)}", f"allowed {limit(outcome, allowed)}"
    if outcome.verdict == "IMPROVED":
        return f"<= {change(outcome, outcome.better_than)}", ""
    if outcome.verdict == "OK" and outcome.safe_below is not None:
        if outcome.safe_below < outcome.tolerance:
            held = f"tolerance {limit(outcome, outcome.tolerance)}"
        else:
            held = f"floor {show_ms(outcome.floor_ns)} ms"
        return f"<= {change(outcome, outcome.safe_below)}", held
    if outcome.lo is None or outcome.hi is None:
        return "-", ""
    unit = "pt" if outcome.statistic == "exceed2x" else "%"
    return f"[{100 * outcome.lo:+.1f}, {100 * outcome.hi:+.1f}] {unit}", ""


def worst(verdict: Verdict) -> Outcome | None:
    """The check that voted red with the largest proved loss; ratios before counts."""
    red = [each for each in verdict.votes if each.verdict == "REGRESSED"]
    return max(red, key=lambda o: (o.statistic != "exceed2x", o.worse_than or 0.0), default=None)


def headline(verdict: Verdict) -> str:
    """``REGRESSED, prefill is the cause``."""
    return f"{verdict.verdict}, {verdict.cause} is the cause" if verdict.cause else verdict.verdict


def sentence(verdict: Verdict) -> str:
    """What the verdict means, in one or two sentences."""
    return " ".join(_sentences(verdict))


def _sentences(verdict: Verdict) -> Iterator[str]:
    stop = verdict.stop
    if verdict.verdict == "INVALID":
        yield "No verdict: " + "; ".join(reason.text for reason in verdict.reasons) + "."
    elif verdict.verdict == "REGRESSED":
        yield _loss(verdict)
    elif verdict.verdict == "INCONCLUSIVE" and stop.why == "cut":
        yield f"The run was cut after {stop.measured} of {stop.planned} pairs: nothing is decided."
    elif verdict.verdict == "INCONCLUSIVE":
        open_ = [each for each in verdict.votes if each.verdict == "INCONCLUSIVE"]
        yield f"{len(open_)} of {len(verdict.votes)} checks are not decided."
        if verdict.more_pairs is None:
            yield "More pairs of this kind would not soon decide them."
        else:
            yield f"About {more_pairs(verdict.more_pairs)} would{_minutes(verdict)}."
    else:
        yield "Every check that votes is proved to lie below its tolerance."
        faster = [label(each) for each in verdict.votes if each.verdict == "IMPROVED"]
        if faster:
            yield f"Faster: {', '.join(faster)}."
    if verdict.verdict != "INVALID" and stop.why == "broken":
        yield f"Stopped after {stop.measured} of {stop.planned} pairs: clearly worse."


def _loss(verdict: Verdict) -> str:
    red = worst(verdict)
    if red is None:
        return "A check regressed."
    if red.statistic == "exceed2x":
        return (
            f"{change(red, red.effect)} more requests take over twice their twin's"
            f" {red.metric.upper()} (at least {change(red, red.worse_than)})."
        )
    what = label(red).removesuffix(" shift")
    return (
        f"{what} is {change(red, red.effect, sign=False)} slower, at least"
        f" {change(red, red.worse_than, sign=False)} ({level_of(red, red.base)} ->"
        f" {level_of(red, red.candidate)}; allowed {limit(red, red.min_effect)})."
    )


def more_pairs(n: int) -> str:
    """``40 more pairs``."""
    return f"{n} more pair{'s' * (n != 1)}"


def _minutes(verdict: Verdict) -> str:
    return f" ({verdict.minutes:g} min)" if verdict.minutes else ""


def cause(verdict: Verdict) -> str:
    """``Of +56 ms a request, prefill takes +53 ms.``; nothing where nothing regressed."""
    if verdict.verdict != "REGRESSED":
        return ""
    if verdict.cause is None:
        return "No component is proved to have taken more time."
    whole = sum(each.candidate_ns - each.base_ns for each in verdict.components)
    own = next(each for each in verdict.components if each.name == verdict.cause)
    return (
        f"Of {_signed(whole / verdict.requests)} ms a request, {verdict.cause} takes"
        f" {_signed((own.candidate_ns - own.base_ns) / verdict.requests)} ms."
    )


def component_cells(each: Component, requests: int) -> tuple[str, str, str, str]:
    """Means a request in ms: base, candidate, difference, its 95 % interval."""
    apart = _signed((each.candidate_ns - each.base_ns) / requests)
    interval = ""
    if each.lo_ns is not None and each.hi_ns is not None:
        interval = f"[{_signed(each.lo_ns)}, {_signed(each.hi_ns)}]"
    return show_ms(each.base_ns / requests), show_ms(each.candidate_ns / requests), apart, interval


def method(verdict: Verdict) -> str:
    """How it was measured, in a line."""
    stop = verdict.stop
    return (
        f"Equal requests and arrivals, {stop.valid} valid of {stop.measured} pairs of"
        f" {verdict.block}, {stop.planned} planned, order drawn (seed {verdict.seed});"
        f" {100 * stop.spent:.2g} % chance of a false red spent."
    )


def checks(verdict: Verdict) -> str:
    """What could have voided it, with the counts behind."""
    counts = verdict.counts
    (failed, other_failed), (late, other_late) = counts.failed, counts.late
    lag, other_lag = (show_ms(each) for each in counts.lag_ns)
    return (
        f"judged {counts.kept} of {counts.twins}; base/candidate: failed"
        f" {failed}/{other_failed}, late {late}/{other_late}, sent late by {lag}/{other_lag} ms;"
        f" outputs longer {counts.longer}, shorter {counts.shorter}"
    )


def _signed(ns: float) -> str:
    text = show_ms(ns)
    if not text.strip("-0."):
        return "0"
    return text if ns < 0 else f"+{text}"
