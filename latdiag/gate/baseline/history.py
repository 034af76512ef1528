"""One run against runs that were recorded earlier: an interval for one more run of the same.

Runs, not requests, are what is counted: what changes from day to day is inside of the interval.
On the scale of logarithms one more run lies within mean ± t s sqrt(1 + 1/n) of n earlier ones,
with t of n - 1 degrees of freedom (Hahn and Meeker, Statistical Intervals, 1991, section 4.8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from latdiag.gate.baseline.record import METRICS, Record
from latdiag.gate.baseline.shelf import LEAST_RUNS, Shelf, comparable, differing
from latdiag.gate.checks import Check, Level
from latdiag.gate.result import EXIT_CODES, Word
from latdiag.gate.settings import Settings
from latdiag.model.errors import UnlikeRuns
from latdiag.stats.distributions import t_quantile

#: One-sided, of the interval that readers see.
_INTERVAL = 0.025
_STATISTICS = ("shift", "p50", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Expected:
    """One check. ``usual_ns``: what the earlier runs came to, ``run_ns`` what this one did;
    ``lo_ns`` to ``hi_ns``: where one more of them lies in 95 of 100. ``effect`` and the bounds are
    shares (0.1 is 10 % slower): more than ``worse_than`` and less than ``safe_below`` are proved
    at the levels of the settings. ``shift`` is of geometric means. None: too few runs."""

    name: str
    metric: str
    statistic: str
    verdict: Word
    usual_ns: float | None
    run_ns: float
    lo_ns: float | None
    hi_ns: float | None
    effect: float | None
    worse_than: float | None
    safe_below: float | None
    min_effect: float
    tolerance: float
    runs: int


@dataclass(frozen=True, slots=True)
class History:
    """``against``: which runs, in words. ``needed``: how many more are needed for a verdict."""

    against: str
    verdict: Word
    runs: int
    needed: int
    checks: tuple[Expected, ...]


def compared(
    record: Record, earlier: Sequence[Record], settings: Settings, against: str
) -> History:
    """``record`` against runs of the same kind; ``settings.alpha`` is that of all its checks."""
    checks = [
        check
        for check in settings.checks
        if check.level == "error"
        and check.statistic in _STATISTICS
        and not check.where
        and check.metric in METRICS
        and check.metric in record.metrics
    ]
    outcomes = tuple(_expected(check, record, earlier, settings, len(checks)) for check in checks)
    words = {each.verdict for each in outcomes}
    order: tuple[Word, ...] = ("REGRESSED", "INCONCLUSIVE", "IMPROVED")
    whole: Word = next(
        (word for word in order if word in words), "OK" if words else "INCONCLUSIVE"
    )
    return History(against, whole, len(earlier), max(0, LEAST_RUNS - len(earlier)), outcomes)


def against_all(
    record: Record,
    shelf: Shelf,
    settings: Settings,
    keep: int,
    where: str,
    anchor: str | None = None,
) -> tuple[History, ...]:
    """``record`` against the latest ``keep`` runs of its kind, and against an anchor (the newest).
    Both share ``settings.alpha``. UnlikeRuns where no run is of its kind, UsageFault for an anchor
    that there is not."""
    may_differ = settings.may_differ
    alike = comparable(record, shelf.runs.values(), may_differ, where)
    sets = [("the latest runs", alike[-keep:])]
    anchor = anchor or shelf.newest_anchor
    if anchor is not None:
        pinned = [
            each
            for each in shelf.pinned(anchor)
            if each.identity != record.identity and not differing(each, record, may_differ)
        ]
        sets.append((f"the runs of anchor {anchor}", pinned))
    shared = replace(settings, alpha=settings.alpha / len(sets))
    return tuple(compared(record, runs, shared, words) for words, runs in sets)


def slower_than(record: Record, shelf: Shelf, settings: Settings, keep: int) -> str | None:
    """What ``record`` is proved to be slower than, in words; None where nothing is, and where no
    run of its kind is recorded."""
    try:
        parts = against_all(record, shelf, settings, keep, "the store")
    except UnlikeRuns:
        return None
    return next((part.against for part in parts if part.verdict == "REGRESSED"), None)


def exit_code(parts: Sequence[History], level: Level, settings: Settings) -> int:
    """0 where the level is ``warn``; else that of the worst part."""
    words = {part.verdict for part in parts}
    if level != "error":
        return 0
    if "REGRESSED" in words:
        return EXIT_CODES["REGRESSED"]
    open_ = "INCONCLUSIVE" in words and settings.on_inconclusive == "fail"
    return EXIT_CODES["INCONCLUSIVE"] if open_ else 0


def _expected(
    check: Check, record: Record, earlier: Sequence[Record], settings: Settings, tests: int
) -> Expected:
    level = record.metrics[check.metric].level(check.statistic)
    levels = np.array(
        [
            each.metrics[check.metric].level(check.statistic)
            for each in earlier
            if check.metric in each.metrics
        ]
    )
    n = len(levels)
    if n < LEAST_RUNS:
        nothing = (None,) * 3
        return Expected(
            check.name, check.metric, check.statistic, "INCONCLUSIVE", None, math.exp(level),
            None, None, *nothing, check.min_effect, check.tolerance, n,
        )  # fmt: skip
    mean, error = float(levels.mean()), float(levels.std(ddof=1)) * math.sqrt(1 + 1 / n)
    away = level - mean
    reach = {
        name: t_quantile(n - 1, 1 - share) * error
        for name, share in (
            ("shown", _INTERVAL),
            ("worse", settings.alpha / tests),
            ("safe", settings.safe_alpha),
        )
    }
    floor = math.log1p(check.floor_ns / math.exp(mean))
    least = max(math.log1p(check.min_effect), floor)
    word: Word = "INCONCLUSIVE"
    if away - reach["worse"] > least:
        word = "REGRESSED"
    elif away + reach["worse"] < -least:
        word = "IMPROVED"
    elif away + reach["safe"] < max(math.log1p(check.tolerance), floor):
        word = "OK"
    return Expected(
        check.name,
        check.metric,
        check.statistic,
        word,
        math.exp(mean),
        math.exp(level),
        math.exp(mean - reach["shown"]),
        math.exp(mean + reach["shown"]),
        math.expm1(away),
        math.expm1(away - reach["worse"]),
        math.expm1(away + reach["safe"]),
        check.min_effect,
        check.tolerance,
        n,
    )
