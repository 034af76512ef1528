"""What the designed stages of a probe have taught of the server, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from latdiag.model.units import figure, quantity
from latdiag.report.numbers import interval
from latdiag.report.page import Page

if TYPE_CHECKING:
    from latdiag.diagnosis.learned import Learned, LengthBand, PathBand, Range, TransferTime
    from latdiag.diagnosis.result import Result

_LABEL, _TABLE_LABEL, _COLUMN, _COLUMNS = 28, 34, 15, 3
_UNKNOWN = "unknown"


def learned(page: Page, result: Result) -> None:
    """The laws of a probe, each with its unit, its interval and what it rests on."""
    found = result.learned
    if found is None:
        return
    page.gap()
    page.line("What the probe learned about the server, apart from the workload")
    _prompts(page, found)
    for label, text in (
        ("opening a connection", _range(found.connect_ms, "no request opened a connection")),
        ("round trip of TCP", _range(found.round_trip_ms, "no time stamps")),
        ("path behind the first hop", _path(page, found.path_ms)),
        ("a decode step alone", _step(found)),
        ("  each further request", f"+{quantity(found.step_per_stream_ms, 'ms')}"),
        ("  1 000 tokens of context", f"+{quantity(found.step_per_1000_context_ms, 'ms')}"),
        ("tokens arrive", _delivery(found.bursts_ms)),
        ("requests admitted at once", _admitted(found)),
        ("KV transfer", _transfer(found.transfer_ms)),
    ):
        page.paragraph(text, f"  {label:<{_LABEL}}", " " * (_LABEL + 2))
    page.paragraph(_sharing(found), "  ", "    ")


def _prompts(page: Page, found: Learned) -> None:
    """A table by input length: a prompt alone, and the frontend's part of it."""
    alone = found.alone_ms[:_COLUMNS]
    if not alone:
        return
    head = "".join(f"{_tokens(band.isl):>{_COLUMN}}" for band in alone)
    page.line(f"  {'tokens of prompt':<{_TABLE_LABEL - 2}}{head}")
    _row(page, f"a prompt alone, ms ({found.alone_n} requests)", alone)
    if found.frontend_ms:
        _row(page, "  of it the frontend, ms", found.frontend_ms[:_COLUMNS])
    else:
        page.line("    of it the frontend, ms: unknown, not separate from prefill")


def _tokens(isl: int) -> str:
    return f"{isl:,}".replace(",", " ")


def _row(page: Page, label: str, bands: Sequence[LengthBand]) -> None:
    """Two lines: the values, and the interval below each."""
    values = "".join(f"{figure(band.value, 'ms'):>{_COLUMN}}" for band in bands)
    page.line(f"  {page.fit(label, _TABLE_LABEL - 2):<{_TABLE_LABEL - 2}}{values}")
    bounds = "".join(f"{_bounds(band):>{_COLUMN}}" for band in bands)
    page.line(f"{'':<{_TABLE_LABEL}}{bounds}")


def _bounds(band: LengthBand) -> str:
    """``3.40-3.52``; with a sign in it the hyphen would mislead."""
    return f"{figure(band.lo, 'ms')}{'..' if band.lo < 0 else '-'}{figure(band.hi, 'ms')}"


def _range(found: Range | None, otherwise: str) -> str:
    """A median with the least and the most that were seen."""
    if found is None:
        return f"{_UNKNOWN}: {otherwise}"
    least, most = figure(found.least, "ms"), quantity(found.most, "ms")
    return f"{quantity(found.value, 'ms')} (median of {found.n}, {least} to {most})"


def _path(page: Page, path: PathBand | None) -> str:
    if path is None:
        return f"{_UNKNOWN}: no cheap GET was answered"
    text = f"{interval(page, path.value, path.lo, path.hi, 'ms')}, {path.n} GETs"
    what = "more than HTTP takes: a gateway or a longer path" if path.is_way else "normal for HTTP"
    return f"{text}: {what}"


def _step(found: Learned) -> str:
    return f"{quantity(found.step_ms, 'ms')} (from {found.step_blocks} runs of tokens)"


def _delivery(bursts_ms: float | None) -> str:
    return (
        "one at a time" if bursts_ms is None else f"in bursts, {quantity(bursts_ms, 'ms')} apart"
    )


def _admitted(found: Learned) -> str:
    """Never more than was tried."""
    if found.let_in is not None:
        return f"{found.let_in}; others wait"
    return (
        f"all {found.tried} that were tried" if found.tried else f"{_UNKNOWN}: no burst was sent"
    )


def _transfer(transfer: TransferTime | None) -> str:
    if transfer is None:
        return "none seen between the first and the second token"
    text = f"{quantity(transfer.value, 'ms')} (median of {transfer.n} requests)"
    text += f"; {quantity(transfer.per_1000_tokens, 'ms')} per 1 000 tokens"
    return text + ("" if transfer.proven else "; it may be something else")


def _sharing(found: Learned) -> str:
    """What running streams lose to a long prompt, in shares of the prompt's own time."""
    verdict = found.prefill_stops_decode
    if verdict == "separate":
        return "Long prompts do not slow running requests down: prefill may run on another server."
    if verdict != "shared":
        return "Whether long prompts slow running requests down was not measured."
    lost, pause = found.prefill_stops_decode_share, found.prefill_pause_share
    parts = []
    if lost is not None:
        parts.append(f"{100 * lost:.0f} % of their time")
    if pause is not None:
        parts.append(f"at most {100 * pause:.0f} % of it in one pause")
    return "Long prompts slow running requests down" + (f" ({', '.join(parts)})" if parts else "")
