"""Units: the only place with powers of ten.

Inside, time is integer nanoseconds and a name ends in ``_ns``. Conversion happens at the edges.
"""

from __future__ import annotations

import re

from latdiag.model.errors import UsageFault

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
#: Nanoseconds by the name of a unit of time, as servers state their times.
UNIT_NS = {"s": NS_PER_S, "ms": NS_PER_MS, "us": NS_PER_US, "ns": 1}

#: Stands between a number and its unit, so that no line break parts them.
GLUE = "\u00a0"

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s|m|min|h)?\s*$")
_SCALE = {
    **UNIT_NS,
    "µs": NS_PER_US,
    "m": 60 * NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}


def parse_duration(text: str) -> int:
    """Nanoseconds from ``30s``, ``1.5m``, ``250ms``; a bare number is seconds."""
    found = _DURATION.match(text)
    if not found:
        raise UsageFault(f"{text!r} is not a duration", "write for example 30s, 2m or 250ms")
    return round(float(found[1]) * _SCALE[found[2] or "s"])


def ms(ns: float) -> float:
    """Milliseconds from nanoseconds."""
    return ns / NS_PER_MS


def seconds(ns: float) -> float:
    """Seconds from nanoseconds."""
    return ns / NS_PER_S


def show_ms(ns: float) -> str:
    """Nanoseconds for people: three significant digits, in ms, never in exponents."""
    value = ns / NS_PER_MS
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.995 else 3
    return f"{value:,.{digits}f}".replace(",", " ")


def show_duration(ns: float) -> str:
    """A span of time for people: ``850 ms``, ``12.4 s``, ``3 min 20 s``."""
    if ns < NS_PER_S:
        return f"{ns / NS_PER_MS:.0f} ms"
    total = ns / NS_PER_S
    if total < 60:
        return f"{total:.1f} s"
    minutes, rest = divmod(round(total), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def figure(value: float, unit: str) -> str:
    """A number for people, three significant digits, without its unit."""
    if unit == "ms":
        return show_ms(value * NS_PER_MS)
    if unit == "share":
        value *= 100
    size = abs(value)
    digits = 0 if size >= 99.95 or value == 0 else 1 if size >= 9.995 else 2
    return f"{value:,.{digits}f}".replace(",", " ")


def quantity(value: float, unit: str) -> str:
    """A number with its unit, which no line break parts; times of 100 s and more in seconds."""
    if unit == "ms" and abs(value) >= 100_000:
        value, unit = value / 1000, "s"
    label = "%" if unit == "share" else unit
    return f"{figure(value, unit)} {label}".rstrip().replace(" ", GLUE)


def percentile_name(q: float) -> str:
    """``p99`` from 0.99, ``p99.9`` from 0.999."""
    return f"p{round(100 * q, 6):g}"
