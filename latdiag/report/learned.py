"""What the designed stages of a probe have taught of the server, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latdiag.model.units import figure, quantity
from latdiag.report.numbers import with_interval
from latdiag.report.page import Page

_LABEL, _TABLE_LABEL, _COLUMN, _COLUMNS = 28, 34, 15, 3
_UNKNOWN = "unknown"


def learned(page: Page, result: Mapping[str, Any]) -> None:
    """The laws of a probe, each with its unit, its interval and what it rests on."""
    found = result.get("learned")
    if not found:
        return
    page.gap()
    page.line("What the probe learned of the server, beyond the workload itself")
    _prompts(page, found)
    for label, text in (
        ("opening a connection", _range(found.get("connect_ms"), "no request opened one")),
        ("round trip of TCP", _range(found.get("round_trip_ms"), "no stamps told it")),
        ("path behind the first hop", _path(page, found)),
        ("a decode step alone", _step(found)),
        ("  each further stream", _more(found, "step_per_stream_ms")),
        ("  1 000 tokens of context", _more(found, "step_per_1000_context_ms")),
        ("tokens come", _delivery(found)),
        ("streams let in at once", _let_in(found)),
        ("KV transfer", _transfer(found)),
    ):
        page.paragraph(text, f"  {label:<{_LABEL}}", " " * (_LABEL + 2))
    page.paragraph(_sharing(found), "  ", "    ")


def _prompts(page: Page, found: Mapping[str, Any]) -> None:
    """A table by input length: a prompt alone, and the frontend's part of it."""
    alone = _bands(found.get("alone_ms"))
    if not alone:
        return
    head = "".join(f"{_tokens(band):>{_COLUMN}}" for band in alone)
    page.line(f"  {'tokens of prompt':<{_TABLE_LABEL - 2}}{head}")
    n = found.get("alone_n")
    _row(page, "a prompt alone, ms" + ("" if n is None else f" ({n} requests)"), alone)
    frontend = _bands(found.get("frontend_ms"))
    if frontend:
        _row(page, "  of it the frontend, ms", frontend)
    else:
        page.line("    of it the frontend, ms: unknown, not told apart from prefill")


def _bands(entries: object) -> list[Mapping[str, Any]]:
    """Those values of a law that there are, at most as many as there are columns."""
    if not isinstance(entries, Sequence):
        return []
    known = [e for e in entries if isinstance(e, Mapping) and e.get("value") is not None]
    return known[:_COLUMNS]


def _tokens(band: Mapping[str, Any]) -> str:
    isl = band.get("isl")
    return _UNKNOWN if isl is None else f"{isl:,}".replace(",", " ")


def _row(page: Page, label: str, bands: Sequence[Mapping[str, Any]]) -> None:
    """Two lines: the values, and the interval below each."""
    values = "".join(f"{figure(band['value'], 'ms'):>{_COLUMN}}" for band in bands)
    page.line(f"  {page.fit(label, _TABLE_LABEL - 2):<{_TABLE_LABEL - 2}}{values}")
    bounds = "".join(f"{_bounds(band):>{_COLUMN}}" for band in bands)
    if bounds.strip():
        page.line(f"{'':<{_TABLE_LABEL}}{bounds}")


def _bounds(band: Mapping[str, Any]) -> str:
    """``3.40-3.52``; with a sign in it the hyphen would mislead."""
    lo, hi = band.get("lo"), band.get("hi")
    if lo is None or hi is None:
        return ""
    return f"{figure(lo, 'ms')}{'..' if lo < 0 else '-'}{figure(hi, 'ms')}"


def _range(found: Mapping[str, Any] | None, otherwise: str) -> str:
    """A median with the least and the most that were seen."""
    if not found or found.get("value") is None:
        return f"{_UNKNOWN}: {otherwise}"
    text = quantity(found["value"], "ms")
    least, most, n = (found.get(key) for key in ("least", "most", "n"))
    if least is None or most is None or n is None:
        return text
    return f"{text} (median of {n}, {figure(least, 'ms')} to {quantity(most, 'ms')})"


def _path(page: Page, found: Mapping[str, Any]) -> str:
    path = found.get("path_ms") or {}
    if path.get("value") is None:
        return f"{_UNKNOWN}: no cheap GET was answered"
    text = with_interval(page, {**path, "unit": "ms"})
    if path.get("n") is not None:
        text += f", {path['n']} GETs"
    if path.get("is_way") is None:
        return text
    return f"{text}: {'more than HTTP, a gateway or a way' if path['is_way'] else 'HTTP alone'}"


def _step(found: Mapping[str, Any]) -> str:
    step, blocks = found.get("step_ms"), found.get("step_blocks")
    if step is None:
        return _UNKNOWN
    return quantity(step, "ms") + ("" if blocks is None else f" ({blocks} blocks of gaps)")


def _more(found: Mapping[str, Any], key: str) -> str:
    more = found.get(key)
    return _UNKNOWN if more is None else f"+{quantity(more, 'ms')}"


def _delivery(found: Mapping[str, Any]) -> str:
    bursts = found.get("bursts_ms")
    return "one by one" if bursts is None else f"in bursts, {quantity(bursts, 'ms')} apart"


def _let_in(found: Mapping[str, Any]) -> str:
    """The design stops at the first burst where some had to wait; none: nothing was capped."""
    streams = found.get("let_in")
    return "all that were tried" if streams is None else f"{streams}; further ones wait"


def _transfer(found: Mapping[str, Any]) -> str:
    transfer = found.get("transfer_ms") or {}
    if transfer.get("value") is None:
        return "none seen between the first token and the second"
    text = quantity(transfer["value"], "ms")
    if transfer.get("n") is not None:
        text += f" (median of {transfer['n']} requests)"
    slope = transfer.get("per_1000_tokens")
    text += "" if slope is None else f"; {quantity(slope, 'ms')} per 1 000 tokens"
    return text + ("; it may be something else" if transfer.get("proven") is False else "")


def _sharing(found: Mapping[str, Any]) -> str:
    """What running streams lose to a long prompt, in shares of the prompt's own time."""
    verdict = found.get("prefill_stops_decode")
    if verdict == "separate":
        return "long prompts do not slow running streams: prefill may run elsewhere"
    if verdict != "shared":
        return "whether long prompts slow running streams is not known"
    lost, pause = (found.get(f"prefill_{k}_share") for k in ("stops_decode", "pause"))
    parts = []
    if lost is not None:
        parts.append(f"{100 * lost:.0f} % of their time")
    if pause is not None:
        parts.append(f"at most {100 * pause:.0f} % of it in one pause")
    return "long prompts slow running streams" + (f" ({', '.join(parts)})" if parts else "")
