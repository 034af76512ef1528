"""The rules that make a measurement INVALID, read from the run alone.

The client speaks of its own faults first: each rule gives its reading whether broken or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latdiag.model.units import NS_PER_MS

#: Schedule lag may reach this, or this share of the median TTFT, whichever is more.
SCHEDULE_LAG_NS = 1 * NS_PER_MS
SCHEDULE_LAG_OF_TTFT = 0.01
CENSORED_SHARE = 0.01
READER_CPU = 0.80
RUN_QUEUE_SHARE = 0.02
CLOCK_STEP_SHARE = 0.01
USER_LOOP_LAG_NS = 5 * NS_PER_MS

_UNTOLD = "not told by this system"
#: rule: what it reads, in words, and in which unit
_WORDS = {
    "schedule_lag": ("schedule lag (p99)", "ms"),
    "censored": ("share of intervals with an overwritten stamp", "%"),
    "reader_cpu": ("CPU of a reader in its busiest 5 s", "%"),
    "run_queue": ("time that a reader waited for a core that others held", "%"),
    "rows_lost": ("requests begun whose end was not recorded", "rows"),
    "clock_step": ("share of rows astride a clock step", "%"),
    "loop_lag": ("lag of the event loop (p99)", "ms"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules read. None: does not apply, or is not known. Shares are of 1."""

    schedule_lag_p99_ns: float | None = None
    median_ttft_ns: float | None = None
    censored_share: float | None = None
    reader_cpu_worst_5s: float | None = None
    run_queue_share: float | None = None
    rows_lost: int | None = None
    clock_step_share: float | None = None
    loop_lag_p99_ns: float | None = None
    user_stamps: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One rule's reading, in ``unit``. ``reading`` None means that the rule did not apply:
    ``reason``. Without a ``limit`` it is no rule, only worth knowing."""

    rule: str
    title: str
    unit: str
    reading: float | None
    limit: float | None
    reason: str | None = None

    @property
    def broken(self) -> bool:
        if self.reading is None or self.limit is None:
            return False
        return self.reading > self.limit

    def sentence(self) -> str:
        reading, limit = _number(self.reading or 0.0), _number(self.limit or 0.0)
        return f"{self.title} is {reading} {self.unit}, more than {limit} {self.unit}"

    def to_json(self) -> dict[str, object]:
        return {
            "rule": self.rule,
            "title": self.title,
            "reading": self.reading,
            "limit": self.limit,
            "unit": self.unit,
            "broken": self.broken,
            "reason": self.reason,
        }


def readings(facts: Facts) -> list[Reading]:
    """Every rule of the self-audit with its reading, in a fixed order."""
    lag_limit = float(SCHEDULE_LAG_NS)
    if facts.median_ttft_ns is not None:
        lag_limit = max(lag_limit, SCHEDULE_LAG_OF_TTFT * facts.median_ttft_ns)
    lag, loop_lag = _ms(facts.schedule_lag_p99_ns), _ms(facts.loop_lag_p99_ns)
    lost = None if facts.rows_lost is None else float(facts.rows_lost)
    found = (
        (
            "schedule_lag",
            lag,
            lag_limit / NS_PER_MS,
            "closed loop: no request was due at an instant",
        ),
        (
            "censored",
            _percent(facts.censored_share),
            100 * CENSORED_SHARE,
            "no interval between tokens",
        ),
        ("reader_cpu", _percent(facts.reader_cpu_worst_5s), 100 * READER_CPU, _UNTOLD),
        ("run_queue", _percent(facts.run_queue_share), 100 * RUN_QUEUE_SHARE, _UNTOLD),
        ("rows_lost", lost, 0.0, "a writer left no count"),
        ("clock_step", _percent(facts.clock_step_share), 100 * CLOCK_STEP_SHARE, "no rows"),
        (
            "loop_lag",
            loop_lag if facts.user_stamps else None,
            USER_LOOP_LAG_NS / NS_PER_MS,
            _UNTOLD if facts.user_stamps else "the kernel stamps, so a late loop does no harm",
        ),
    )
    return [
        Reading(rule, *_WORDS[rule], reading, limit, why if reading is None else None)
        for rule, reading, limit, why in found
    ]


def facts_of_writers(writers: Sequence[Mapping[str, object]]) -> Facts:
    """The worst of what the writers of a run say of their readers."""
    audits = [_inside(w, "audit") for w in writers]
    lost = [_inside(w, "counts").get("lost") for w in writers]
    known = [n for n in lost if isinstance(n, int)]
    # A writer that was killed left no count: what the others lost is lost all the same.
    told = bool(known) and (len(known) == len(lost) or sum(known) > 0)
    return Facts(
        reader_cpu_worst_5s=_worst([a.get("reader_cpu_worst_5s") for a in audits]),
        run_queue_share=_worst([a.get("starved_share") for a in audits]),
        loop_lag_p99_ns=_worst([_inside(a, "loop_lag").get("p99_ns") for a in audits]),
        rows_lost=sum(known) if told else None,
    )


def unlimited_readings(writers: Sequence[Mapping[str, object]]) -> list[Reading]:
    """What no rule limits and is worth knowing."""
    audits = [_inside(w, "audit") for w in writers]
    lag = _ms(_worst([_inside(a, "read_lag").get("p99_ns") for a in audits]))
    waited = _percent(_worst([a.get("run_queue_share") for a in audits]))
    return [
        Reading(
            "read_lag",
            "read lag (p99), which the kernel stamps leave out",
            "ms",
            lag,
            None,
            "no kernel stamps" if lag is None else None,
        ),
        Reading(
            "run_queue_total",
            "run-queue delay in all, with what waking an idle core takes",
            "%",
            waited,
            None,
            _UNTOLD if waited is None else None,
        ),
    ]


def _inside(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = document.get(key)
    return found if isinstance(found, Mapping) else {}


def _worst(values: Sequence[object]) -> float | None:
    known = [float(v) for v in values if isinstance(v, int | float)]
    return max(known, default=None)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / NS_PER_MS


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
