"""What ``latdiag watch`` says in JSON: a line for each half minute, and one at the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from latdiag.model.units import NS_PER_S, ms
from latdiag.report.watch_screen import words_of
from latdiag.watch.bins import BIN_NS

if TYPE_CHECKING:
    from latdiag.watch.change import Change
    from latdiag.watch.live import Live
    from latdiag.watch.state import Report
    from latdiag.watch.windows import Window


def line_of(live: Live, report: Report, last: bool = False) -> str:
    """The line of a report. ``last``: it is the end, with what is still open."""
    tally = live.watch.tally
    document = {
        "kind": "end" if last else "window",
        "time": time_of(report.until * BIN_NS),
        "interval": "server",
        "gateway_seen": live.watch.gateways,
        "sampled": live.plan.sampled,
        "windows": {name: _window(one) for name, one in report.windows.items()},
        "models": {name: _window(one) for name, one in report.models.items()},
        "changes": [_change(change) for change in report.changes],
        "active_changes": [_change(change) for change in report.active],
        "spans": {
            "received": tally.received,
            "attributed": tally.attributed,
            "open": tally.open,
            "dropped": dict(tally.dropped),
        },
        "labels_other": {name: one.folded for name, one in live.watch.names.items()},
        "came_back": live.looped,
    }
    return json.dumps(document, allow_nan=False)


def time_of(ns: int) -> str:
    return datetime.fromtimestamp(ns / NS_PER_S, UTC).isoformat(timespec="seconds")


def _window(window: Window) -> dict[str, object]:
    found: dict[str, object] = {
        "requests": window.n,
        "seen": window.seen,
        "seconds": window.seconds,
        "mean_ms": ms(window.mean_ns),
        "shares": window.shares,
        "ttft_shares": window.ttft_shares,
        "tail_shares": window.tail,
    }
    for name in ("ttft_p50", "ttft_p95", "tpot_p50", "e2e_p95"):
        value = getattr(window, name)
        found[f"{name}_ms"] = None if value is None else ms(value)
    verdict = window.verdict
    found["verdict"] = None if verdict is None else {
        "kind": verdict.kind,
        "dominant": verdict.dominant,
        "population": verdict.population,
        "confidence": verdict.confidence,
        "sentence": verdict.sentence,
        "next": verdict.next,
    }  # fmt: skip
    return found


def _change(change: Change) -> dict[str, object]:
    return {
        "metric": change.metric,
        "component": change.component,
        "model": change.model,
        "replica": change.replica,
        "cause": change.cause,
        "delta_ms": ms(change.delta_ns),
        "before_ms": ms(change.before_ns),
        "since": time_of(change.since * BIN_NS),
        "until": None if change.until is None else time_of(change.until * BIN_NS),
        "sentence": words_of(change),
    }
