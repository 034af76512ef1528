"""A document of ``--json`` as the ``Result`` that it is of: pages are tested on written examples.

Latdiag itself reads no results. ``result`` raises ValueError for what no result can hold, such as
a null where a field is never None.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from typing import Any

from latdiag.attribution import accounts, evidence, parts
from latdiag.diagnosis import collected, compare, learned, limits
from latdiag.diagnosis import result as results
from latdiag.diagnosis.result import Breakdown, Result, Share, StackFound
from latdiag.measurement import backlog, bursts, changes, course, measurement, slo, validity
from latdiag.measurement.measurement import MetricResult
from latdiag.measurement.slo import Judgement, Slo
from latdiag.model import metrics
from latdiag.model.components import COMPONENTS
from latdiag.stats.estimate import Estimate, refusal
from latdiag.store import run as stored

Document = dict[str, Any]
_ABOUT = ("interval", "total_ns", "n", "segments", "left_out", "insufficient")
_NAMES: dict[str, Any] = {}
for _module in (accounts, backlog, bursts, changes, course, evidence, parts, collected, compare,
                learned, limits, measurement, slo, validity, results, stored):  # fmt: skip
    _NAMES |= vars(_module)


def result(found: Document) -> Result:
    """The result that ``found`` is the document of."""
    keys = {"breakdowns": "breakdown"}
    hints = _hints(Result)
    given = {
        f.name: _of(hints[f.name], found[key])
        for f in fields(Result)
        if (key := keys.get(f.name, f.name)) in found and f.name not in ("compared", "parts")
    }
    if given["verb"] != found["verb"] or found["valid"] != (not given["invalid_because"]):
        raise ValueError("valid, or for a reason")
    return Result(**given, ttft_split=_of(hints["ttft_split"], found["split"]["ttft"]))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, _NAMES)


def _of(hint: Any, value: Any) -> Any:
    """``value`` as the type ``hint``."""
    return _reader(hint)(value)


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """What reads a value as the type ``hint``: types are looked into once."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        known = _reader(next(option for option in options if option is not type(None)))
        return lambda value: None if value is None else known(value)
    read = _READERS.get(hint) or _known(hint, options)

    def known_only(value: Any) -> Any:
        if value is None:
            raise ValueError("null where something is always known")
        return read(value)

    return known_only


def _known(hint: Any, options: tuple[Any, ...]) -> Callable[[Any], Any]:
    if is_dataclass(hint):
        return _dataclass(hint)
    origin = typing.get_origin(hint)
    if origin is tuple:
        return lambda value: tuple(_of(options[0], each) for each in value)
    if origin is Mapping:
        return lambda value: {key: _of(options[1], each) for key, each in value.items()}
    return lambda value: value


def _dataclass(kind: Any) -> Callable[[Document], Any]:
    hints = _hints(kind)
    optional = {f.name for f in fields(kind) if type(None) in typing.get_args(hints[f.name])}
    stated = {f.name for f in fields(kind) if f.default is MISSING} - optional

    def read(found: Document) -> Any:
        given = {name: _of(hint, found[name]) for name, hint in hints.items() if name in found}
        if missing := stated - given.keys():
            raise ValueError(f"{sorted(missing)} are always there")
        return kind(**dict.fromkeys(optional) | given)

    return read


def _breakdown(found: Document) -> Breakdown:
    missing = [key for key in _ABOUT if key not in found and key != "insufficient"]
    if missing:
        raise ValueError(f"{missing} are always there")
    about = {key: found.get(key) for key in _ABOUT}
    if None in (about["n"], about["segments"], about["total_ns"]):
        raise ValueError("counts are always known")
    shares = {name: _of(Share, e) for name, e in found.items() if name in COMPONENTS and e}
    return Breakdown(**about, shares=shares)


def _estimate(found: Document | None) -> Estimate:
    if found is None:
        return refusal("not measured")
    scale = 1e6 if found["unit"] == "ms" else 1
    value, lo, hi = (
        raw * scale if (raw := found.get(key)) is not None else None
        for key in ("value", "lo", "hi")
    )
    n, worth = found.get("n"), found.get("n_effective")
    if n is None or worth is None:
        raise ValueError("an estimate is always of so many")
    method, why = found.get("method") or "", found.get("refused")
    return Estimate(value, lo, hi, n, worth, method, why, found.get("needs"))


def _metric(found: Document | None) -> MetricResult:
    if found is None:
        return MetricResult("", refused="not measured")
    if "value" in found:
        return MetricResult(found["unit"], total=_estimate(found))
    one = {key: each for key, each in found.items() if key not in ("left_out", "refused")}
    if not all(isinstance(each, dict) for each in one.values()):
        raise ValueError("a statistic is always an estimate")
    unit = next((each["unit"] for each in one.values()), "")
    statistics = {key: _estimate(each) for key, each in one.items()}
    return MetricResult(unit, statistics, None, found.get("left_out") or {}, found.get("refused"))


def _judgement(found: Document) -> Judgement:
    reading = found.get("reading")
    unit = reading["unit"] if reading else "ms"
    objective = Slo(found["slo"], replace(metrics.metric("ttft"), unit=unit), "p95", "<", 0.0)
    sure = bool(found.get("sure"))
    return Judgement(objective, found["met"], sure, _estimate(reading), found.get("reason"))


def _stack(found: Document) -> StackFound:
    version = found.get("version")
    return StackFound(found["name"], found.get("grounds"), version, asked="version" in found)


_READERS: dict[Any, Callable[[Any], Any]] = {
    Breakdown: _breakdown,
    MetricResult: _metric,
    Judgement: _judgement,
    StackFound: _stack,
}
