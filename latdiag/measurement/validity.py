"""The rules of the self-audit, read from the run alone.

The client speaks of its own faults first: each rule gives its reading whether broken or not. A
rule is about what a fault does to a number that is printed, not about the fault: with the kernel's
stamps a reader that had to wait for its core has read late and stamped nothing wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latdiag.model.units import NS_PER_MS
from latdiag.stats.estimate import Estimate

#: Late sending may move a statistic of TTFT by this, by this share of it, or by half its interval,
#: whichever is most.
SCHEDULE_LAG_NS = 1 * NS_PER_MS
SCHEDULE_LAG_OF_TTFT = 0.01
CENSORED_SHARE = 0.01
#: So many first tokens may lack a stamp of their own: they are left out, and were read at busy
#: moments.
FIRST_CENSORED_SHARE = 0.1
#: The metrics of gaps between arrivals, and those that a closed loop decides by how soon it sends.
GAPS = ("itl", "icl")
RATES = ("output_throughput", "request_rate", "goodput")
READER_CPU = 0.80
RUN_QUEUE_SHARE = 0.02
CLOCK_STEP_SHARE = 0.01
USER_LOOP_LAG_NS = 5 * NS_PER_MS

_UNTOLD = "not available on this system"
#: rule: what it reads, in words, and in which unit
_WORDS = {
    "schedule_lag": ("the effect of late sending on TTFT", "ms"),
    "censored": ("share of intervals with an overwritten stamp", "%"),
    "first_censored": ("share of first tokens with an overwritten stamp", "%"),
    "reader_cpu": ("CPU of a reader in its busiest 5 s", "%"),
    "run_queue": ("time that a reader waited for a core used by other programs", "%"),
    "rows_lost": ("number of requests without a recorded end", "rows"),
    "clock_step": ("share of requests during a clock step", "%"),
    "loop_lag": ("lag of the event loop (p99)", "ms"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules read. None: does not apply, or is not known. Shares are of 1.

    ``lag_ns``: by how much a statistic of TTFT is longer from when requests were due than from
    when they were sent; ``lag_limit_ns``: by how much it may be. ``closed``: nothing was due, so a
    reader that waits sends later and no lag tells.
    """

    lag_ns: float | None = None
    lag_limit_ns: float = float(SCHEDULE_LAG_NS)
    censored_share: float | None = None
    first_censored_share: float | None = None
    reader_cpu_worst_5s: float | None = None
    run_queue_share: float | None = None
    rows_lost: int | None = None
    clock_step_share: float | None = None
    loop_lag_p99_ns: float | None = None
    user_stamps: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One rule's reading, in ``unit``. ``reading`` None means that the rule did not apply:
    ``reason``. Without a ``limit`` it is no rule, only worth knowing. ``refuses``: the metrics
    that are not stated where it is broken; without any, the whole measurement is INVALID."""

    rule: str
    title: str
    unit: str
    reading: float | None
    limit: float | None
    reason: str | None = None
    refuses: tuple[str, ...] = ()

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
    lag, loop_lag = _ms(facts.lag_ns), _ms(facts.loop_lag_p99_ns)
    lost = None if facts.rows_lost is None else float(facts.rows_lost)
    found = (
        (
            "schedule_lag",
            lag,
            facts.lag_limit_ns / NS_PER_MS,
            "no answered request had a due time",
        ),
        (
            "censored",
            _percent(facts.censored_share),
            100 * CENSORED_SHARE,
            "no gaps between tokens",
        ),
        (
            "first_censored",
            _percent(facts.first_censored_share),
            100 * FIRST_CENSORED_SHARE,
            "no first token",
        ),
        ("reader_cpu", _percent(facts.reader_cpu_worst_5s), 100 * READER_CPU, _UNTOLD),
        # With kernel stamps, what a late reader does to an open loop shows in the rules above.
        (
            "run_queue",
            _percent(facts.run_queue_share),
            100 * RUN_QUEUE_SHARE if facts.user_stamps or facts.closed else None,
            _UNTOLD,
        ),
        ("rows_lost", lost, 0.0, "a writer process left no count"),
        ("clock_step", _percent(facts.clock_step_share), 100 * CLOCK_STEP_SHARE, "no rows"),
        (
            "loop_lag",
            loop_lag if facts.user_stamps else None,
            USER_LOOP_LAG_NS / NS_PER_MS,
            _UNTOLD if facts.user_stamps else "does no harm with kernel stamps",
        ),
    )
    refused: dict[str, tuple[str, ...]] = {"censored": GAPS}
    if not facts.user_stamps:
        # Every instant is right all the same; the next request left late.
        refused["run_queue"] = RATES
    return [
        Reading(
            rule,
            *_WORDS[rule],
            reading,
            limit,
            why if reading is None else None,
            refused.get(rule, ()),
        )
        for rule, reading, limit, why in found
    ]


def facts_of_writers(writers: Sequence[Mapping[str, object]]) -> Facts:
    """What the writers of a run say of their readers: the worst, but shares of time are of all
    their time together, so that a reader of a tenth of a second does not speak for all."""
    audits = [_inside(w, "audit") for w in writers]
    lost = [_inside(w, "counts").get("lost") for w in writers]
    known = [n for n in lost if isinstance(n, int)]
    # A writer that was killed left no count: what the others lost is lost all the same.
    told = bool(known) and (len(known) == len(lost) or sum(known) > 0)
    return Facts(
        reader_cpu_worst_5s=_worst([a.get("reader_cpu_worst_5s") for a in audits]),
        run_queue_share=_weighted(audits, "starved_share"),
        loop_lag_p99_ns=_worst([_inside(a, "loop_lag").get("p99_ns") for a in audits]),
        rows_lost=sum(known) if told else None,
    )


def unlimited_readings(writers: Sequence[Mapping[str, object]]) -> list[Reading]:
    """What no rule limits and is worth knowing."""
    audits = [_inside(w, "audit") for w in writers]
    lag = _ms(_worst([_inside(a, "read_lag").get("p99_ns") for a in audits]))
    waited = _percent(_weighted(audits, "run_queue_share"))
    return [
        Reading(
            "read_lag",
            "read lag p99 (kernel stamps exclude it)",
            "ms",
            lag,
            None,
            "no kernel stamps" if lag is None else None,
        ),
        Reading(
            "run_queue_total",
            "run-queue delay in total, including wake-ups of an idle core",
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


def _weighted(audits: Sequence[Mapping[str, object]], name: str) -> float | None:
    """A share of the readers' time, over the time of all that know it."""
    known = [
        (float(share), float(wall))
        for audit in audits
        if isinstance(share := audit.get(name), int | float)
        and isinstance(wall := audit.get("wall_ns"), int | float)
        and wall > 0
    ]
    whole = sum(wall for _, wall in known)
    return sum(share * wall for share, wall in known) / whole if whole else None


def lag_effect(pairs: Sequence[tuple[Estimate, Estimate]]) -> tuple[float | None, float]:
    """(What late sending adds to TTFT, ns, None where nothing was due; what it may add): of the
    statistic that bears it worst. ``pairs``: each statistic from when a request was sent, and from
    when it was due."""
    worst: tuple[float | None, float] = (None, float(SCHEDULE_LAG_NS))
    for sent, due in pairs:
        if sent.value is None or due.value is None:
            continue
        half = (sent.hi - sent.lo) / 2 if sent.lo is not None and sent.hi is not None else 0.0
        limit = max(SCHEDULE_LAG_NS, SCHEDULE_LAG_OF_TTFT * sent.value, half)
        added = max(0.0, due.value - sent.value)
        if worst[0] is None or added / limit > worst[0] / worst[1]:
            worst = (added, limit)
    return worst


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / NS_PER_MS


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
