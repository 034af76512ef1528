"""Objectives that a user states: ``ttft.p95<500ms``, ``errors<1%``, ``mlperf:llama3.1-8b``.

::

    METRIC.STATISTIC < BOUND     ttft tpot itl e2e ...  .  p50 p99 p99.9 mean   <  40ms  2s
    METRIC           < BOUND     errors < 1%
    METRIC           > BOUND     output_throughput > 1000      goodput > 5
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from latdiag.model.errors import UsageFault
from latdiag.model.metrics import SLO_PRESETS, Metric, metric
from latdiag.model.units import parse_duration, percentile_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latdiag.stats.estimate import Estimate

_SHAPE = re.compile(r"^\s*([a-z_0-9]+)(?:\.([a-z0-9.]+))?\s*(<=|>=|<|>)\s*(\S+(?:\s*\S+)?)\s*$")
_PERCENTILE = re.compile(r"^p(\d{1,2}(?:\.\d+)?)$")
_NUMBER = re.compile(r"^(\d+(?:\.\d+)?)\s*(tok/s|req/s|%)?$")
_COMPARISONS: dict[str, Callable[[Any, float], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EXAMPLES = "write for example ttft.p95<500ms, tpot.p99<40ms, errors<1%, output_throughput>1000"


class Readings(Protocol):
    """What an objective is judged by: a ``Measurement``."""

    def reading(self, name: str, statistic: str) -> Estimate: ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """``met`` is None where the reading is refused; ``reason`` then says why.

    ``sure``: the whole 95 % interval lies on the side of the verdict.
    """

    slo: Slo
    met: bool | None
    sure: bool
    reading: Estimate
    reason: str | None = None

    def to_json(self) -> dict[str, object]:
        shown: dict[str, object] = {
            "slo": self.slo.text,
            "met": self.met,
            "sure": self.sure,
            "reading": self.reading.to_json(self.slo.metric.unit),
        }
        if self.reason is not None:
            shown["reason"] = self.reason
        return shown


@dataclass(frozen=True, slots=True)
class Slo:
    """One bound. ``statistic`` is ``p95`` or ``mean``, "" for metrics of the whole run.

    ``bound`` is in raw units: nanoseconds, tokens/s, requests/s, a share of 1.
    """

    text: str
    metric: Metric
    statistic: str
    sign: str
    bound: float

    @property
    def quantile(self) -> float | None:
        """0.95 for p95; None for a mean and for metrics of the run."""
        found = _PERCENTILE.match(self.statistic)
        return round(float(found[1]) / 100, 9) if found else None

    @property
    def per_request(self) -> bool:
        """Whether each request keeps or breaks it by itself, so that goodput counts it."""
        return self.metric.per == "request"

    def holds(self, value: float) -> bool:
        """Whether ``value``, in raw units, is on the right side of the bound."""
        return bool(_COMPARISONS[self.sign](value, self.bound))

    def holds_for(self, values: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The same for a column."""
        found: NDArray[np.bool_] = _COMPARISONS[self.sign](values, self.bound)
        return found

    def judge(self, measured: Readings) -> Judgement:
        """By the point estimate; None where there is none, never a guess."""
        reading = measured.reading(self.metric.name, self.statistic)
        if reading.value is None:
            return Judgement(self, None, False, reading, reading.refused or "not measured")
        met = self.holds(reading.value)
        ends = (reading.lo, reading.hi)
        sure = all(end is not None and self.holds(end) == met for end in ends)
        return Judgement(self, met, sure, reading)


def parse_slos(texts: Iterable[str]) -> tuple[Slo, ...]:
    """Objectives from texts, named presets unfolded; what is said twice counts once."""
    found: dict[str, Slo] = {}
    for text in texts:
        name = text.strip()
        if ":" in name and name not in SLO_PRESETS:
            raise UsageFault(
                f"there is no SLO preset called {name!r}",
                f"choose from {', '.join(SLO_PRESETS)}",
            )
        for one in SLO_PRESETS.get(name, (name,)):
            slo = parse_slo(one)
            found[slo.text] = slo
    return tuple(found.values())


def parse_slo(text: str) -> Slo:
    """One objective; UsageFault says what is wrong with the text and what to write."""
    shape = _SHAPE.match(text)
    if not shape:
        raise UsageFault(f"{text!r} is not an objective", _EXAMPLES)
    name, statistic, sign, bound = shape[1], shape[2] or "", shape[3], shape[4]
    of = metric(name)
    statistic = _checked_statistic(text, of, statistic)
    _check_sign(text, of, sign)
    limit = _bound(text, of, bound)
    if sign == "<" and limit == 0:
        raise UsageFault(f"{text!r} can never hold: nothing is less than 0", "write <= or a bound")
    return Slo("".join(text.split()), of, statistic, sign, limit)


def _checked_statistic(text: str, of: Metric, statistic: str) -> str:
    """``statistic`` as measurements call it: p99.9 for p99.90."""
    if of.per == "run":
        if statistic:
            raise UsageFault(
                f"{text!r}: {of.name} is one number for the whole run and has no {statistic}",
                f"write {of.name} without .{statistic}",
            )
        return ""
    if not statistic:
        raise UsageFault(
            f"{text!r} names no statistic of {of.name}",
            f"write {of.name}.p95, {of.name}.p99 or {of.name}.mean",
        )
    if statistic == "mean":
        return statistic
    found = _PERCENTILE.match(statistic)
    if found is None or float(found[1]) == 0.0:
        raise UsageFault(
            f"{text!r}: {statistic!r} is not a statistic",
            "write mean, or a percentile from p1 to p99.9",
        )
    return percentile_name(float(found[1]) / 100)


def _check_sign(text: str, of: Metric, sign: str) -> None:
    wanted = "<" if of.better == "lower" else ">"
    if sign[0] != wanted:
        raise UsageFault(
            f"{text!r} would forbid a good {of.name}: {of.better} is better",
            f"write {wanted} instead of {sign}",
        )


def _bound(text: str, of: Metric, bound: str) -> float:
    """The number behind the sign, in raw units."""
    if of.unit == "ms":
        if bound[-1].isdigit():
            raise UsageFault(f"{text!r} has no unit", f"write {bound}ms or {bound}s")
        return float(parse_duration(bound))
    found = _NUMBER.match(bound)
    allowed = "%" if of.unit == "share" else of.unit
    if not found or (found[2] and found[2] != allowed):
        example = "1% or 0.01" if of.unit == "share" else f"1000 or 1000{of.unit}"
        raise UsageFault(f"{text!r}: {bound!r} is not a bound of {of.name}", f"write {example}")
    number = float(found[1]) / (100 if found[2] == "%" else 1)
    if of.unit == "share" and number > 1:
        raise UsageFault(f"{text!r}: a share is at most 100 %", f"did you mean {number:g}%?")
    return number
