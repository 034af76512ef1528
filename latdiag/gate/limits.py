"""Absolute limits (``ttft.p95<500ms``), judged by the end of an interval and not by a point."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from latdiag.gate.settings import OnInconclusive
from latdiag.model.errors import UsageFault

if TYPE_CHECKING:
    from latdiag.measurement.slo import Judgement

LimitWord = Literal["KEPT", "BROKEN", "INCONCLUSIVE", "INVALID"]
_EXIT: dict[LimitWord, int] = {"KEPT": 0, "BROKEN": 14, "INCONCLUSIVE": 11, "INVALID": 12}


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit, and what was measured (raw units: ns, a share, a rate) with its 95 % interval.
    ``bound``: the end of it that decides, the worse one for KEPT and the better one for BROKEN; of
    INCONCLUSIVE none does. ``why``: what is missing for a verdict, None where nothing is."""

    limit: str
    unit: str
    verdict: LimitWord
    value: float | None
    lo: float | None
    hi: float | None
    bound: float | None
    n: int
    why: str | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one or several runs together. ``reasons``: why their figures are those of the client."""

    runs: tuple[str, ...]
    verdict: LimitWord
    exit_code: int
    reasons: tuple[str, ...]
    limits: tuple[Limit, ...]


def limits_of(
    runs: tuple[str, ...],
    judgements: Iterable[Judgement],
    reasons: Iterable[str],
    on_inconclusive: OnInconclusive,
) -> Limits:
    """UsageFault for no limits at all."""
    limits = tuple(_limit(each) for each in judgements)
    broken = tuple(reasons)
    if not limits:
        raise UsageFault(
            "no limit is given", "add --slo 'ttft.p95<500ms', or --slo mlperf:llama3.1-8b"
        )
    words = {each.verdict for each in limits}
    order: tuple[LimitWord, ...] = ("BROKEN", "INCONCLUSIVE", "KEPT")
    word: LimitWord = "INVALID" if broken else next(each for each in order if each in words)
    passes = word == "INCONCLUSIVE" and on_inconclusive != "fail"
    return Limits(runs, word, 0 if passes else _EXIT[word], broken, limits)


def _limit(judged: Judgement) -> Limit:
    reading, slo = judged.reading, judged.slo
    ends = (reading.lo, reading.hi)
    word: LimitWord
    if judged.met is None:
        word, bound, why = "INCONCLUSIVE", None, judged.reason or "not measured"
    elif None in ends:
        word, bound, why = "INCONCLUSIVE", None, f"no interval: {reading.method}"
    elif not judged.sure:
        word, bound, why = "INCONCLUSIVE", None, "the limit lies within its interval"
    else:
        lower_is_better = slo.sign.startswith("<")
        word = "KEPT" if judged.met else "BROKEN"
        bound, why = (reading.hi if lower_is_better == judged.met else reading.lo), None
    return Limit(slo.text, slo.metric.unit, word, reading.value, *ends, bound, reading.n, why)
