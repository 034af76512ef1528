"""The screen of ``latdiag watch``: where the time goes now, against the last hour; what changed.

At most 24 lines of 79 columns, whatever comes: names are cut, and lists say how much they leave
out.
"""

from __future__ import annotations

import time
from textwrap import wrap
from typing import TYPE_CHECKING

from latdiag.model.components import COMPONENTS
from latdiag.model.text import shown
from latdiag.model.units import NS_PER_S, show_ms
from latdiag.report.page import HEIGHT, WIDTH
from latdiag.watch.bins import BIN_NS

if TYPE_CHECKING:
    from latdiag.watch.change import Change
    from latdiag.watch.live import Live
    from latdiag.watch.state import Report
    from latdiag.watch.windows import Window

_BAR = 22
_CHANGES, _MODELS = 4, 4
_METRICS = {"ttft": "TTFT", "tpot": "TPOT"}


def screen(live: Live, report: Report | None) -> list[str]:
    """All lines of the terminal."""
    lines = [_head(live)]
    if report is None or not report.windows["60m"].n:
        lines += ["", *_waiting(live)]
        return [*lines[: HEIGHT - 1], account(live)]
    now, hour = report.windows["5m"], report.windows["60m"]
    lines += [_rates(report.windows["1m"], now, hour), ""]
    lines += verdict_lines(now)
    lines += ["", *_table(now, hour)]
    lines += ["", *_changed(live, report)]
    models = _models(report)
    if len(lines) + len(models) + 1 < HEIGHT:
        lines += models
    return [*(line[:WIDTH] for line in lines[: HEIGHT - 1]), account(live)]


def clock_of(ns: int) -> str:
    """HH:MM by this machine's clock."""
    return time.strftime("%H:%M", time.localtime(ns / NS_PER_S))


def _head(live: Live) -> str:
    names = [shown(name, 20) for name in live.watch.stacks]
    who = ", ".join(names) or "no spans of a known stack yet"
    until = clock_of(live.now_ns())
    return f"latdiag watch  {until}  {who}"[:WIDTH]


def _waiting(live: Live) -> list[str]:
    doors = [f"{address} ({kind})" for address, kind in
             ((live.grpc, "gRPC"), (live.http, "HTTP")) if address]  # fmt: skip
    words = f"Waiting for spans at {' and '.join(doors)}. " if doors else ""
    words += "A request counts 10 s after its last span, in half minutes."
    lines = wrap(words, WIDTH)
    unknown = live.watch.tally.dropped.get("unknown", 0)
    if unknown:
        names = [
            shown(next(iter(one.names), "?"), 40)
            for one in live.intake.rows.senders.seen.values()
            if not one.known
        ]
        words = f"{unknown} spans came whose names no stack knows: {', '.join(names[:3])}"
        lines += wrap(words, WIDTH)
    return lines


def _rates(minute: Window, now: Window, hour: Window) -> str:
    ttft = [show_ms(v) if v is not None else "-" for v in (now.ttft_p95, hour.ttft_p95)]
    rate = minute.n / minute.seconds
    line = f"{rate:.1f} req/s   TTFT p95 {ttft[0]} ms (hour {ttft[1]})"
    if now.tpot_p50 is not None:
        line += f"   TPOT p50 {show_ms(now.tpot_p50)} ms"
    if now.coverage is not None and now.coverage < 0.99:
        line += f"   explained {now.coverage:.0%}"
    return line[:WIDTH]


def verdict_lines(window: Window) -> list[str]:
    """The verdict of a window, in at most three lines."""
    if window.verdict is None:
        return [f"No request in the last {_words(window.name)}."]
    lines = wrap(f"Last {_words(window.name)}: {window.verdict.sentence}", WIDTH)
    return lines if len(lines) <= 3 else [*lines[:2], lines[2][: WIDTH - 3] + "..."]


def _words(name: str) -> str:
    return {"1m": "minute", "5m": "5 minutes", "60m": "hour"}[name]


def _table(now: Window, hour: Window) -> list[str]:
    """A line for each class of components: now, the hour, the slow ones."""
    lines = [f"{'Where time goes':<30} {'ms':>8} {'5 min':>7} {'hour':>7} {'slow 5%':>8}"]
    names = dict.fromkeys([*_ordered(now.shares), *_ordered(hour.shares)])
    for name in names:
        share, before = now.shares.get(name), hour.shares.get(name)
        if max(abs(share or 0), abs(before or 0)) < 0.005:
            continue
        mean = show_ms(share * now.mean_ns) if share is not None else "-"
        cells = [_percent(share), _percent(before), _percent(now.tail.get(name))]
        bar = "█" * round(_BAR * max(0.0, share or 0.0)) if len(name) <= 28 else ""
        line = f"{name[:30]:<30} {mean:>8} {cells[0]:>7} {cells[1]:>7} {cells[2]:>8}"
        lines.append(f"{line}  {bar[: WIDTH - len(line) - 2]}".rstrip())
    return lines


def _ordered(shares: dict[str, float]) -> list[str]:
    return sorted(shares, key=lambda name: COMPONENTS.index(name.partition("+")[0]))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _changed(live: Live, report: Report) -> list[str]:
    if not report.active:
        held = (report.until * BIN_NS - live.begun_ns) / NS_PER_S / 60
        if held < 10:
            return ["Changes: told after 10 minutes of traffic."]
        return ["No change against the last hour."]
    newest = sorted(report.active, key=lambda change: -change.since)
    lines = [line for change in newest[:_CHANGES] for line in wrap(words_of(change), WIDTH)]
    if len(newest) > _CHANGES:
        lines.append(f"and {len(newest) - _CHANGES} more changes")
    return lines


def words_of(change: Change) -> str:
    """A change in one sentence: what moved, since when, and why."""
    metric = _METRICS[change.metric]
    who = f", replica {shown(change.replica, 40)}" if change.replica else ""
    model = f" ({shown(change.model, 40)})" if change.model else ""
    since = clock_of(change.since * BIN_NS)
    if change.until is not None:
        return (
            f"{metric}{model}: {change.component}{who} is back since"
            f" {clock_of(change.until * BIN_NS)}; it was {_signed(change.delta_ns)} ms from"
            f" {since}."
        )
    share = f" ({change.delta_ns / change.before_ns:+.0%})" if change.before_ns > 0 else ""
    what = f"{change.component} {_signed(change.delta_ns)} ms{share}{who}"
    cause = {
        "component": "",
        "load": f"; requests that run at once: {change.load_ratio - 1:+.0%}, so it is load",
        "prompts": "; prompts got longer or shorter, which explains it",
    }.get(change.cause, f"; it follows {change.cause}")
    if change.p95_before is not None and change.p95_after is not None:
        moved = change.p95_after - change.p95_before
        return f"{metric} p95{model} {_signed(moved)} ms since {since}: {what}{cause}."
    return f"{metric}{model} since {since}: {what}{cause}."


def _signed(ns: float) -> str:
    return f"{'+' if ns >= 0 else '-'}{show_ms(abs(ns))}"


def _models(report: Report) -> list[str]:
    named = {name: one for name, one in report.models.items() if name}
    if len(named) < 2:
        return []
    lines = [""]
    for name, one in list(named.items())[:_MODELS]:
        top = max(one.shares, key=lambda each: one.shares[each], default="-")
        ttft = show_ms(one.ttft_p95) if one.ttft_p95 is not None else "-"
        rate = one.n / one.seconds
        share = _percent(one.shares.get(top))
        lines.append(f"{shown(name, 28):<28} {rate:7.1f} req/s  TTFT p95 {ttft} ms  {top} {share}")
    return [line[:WIDTH] for line in lines]


def account(live: Live) -> str:
    """What became of all spans, in one line."""
    tally = live.watch.tally
    parts = [f"{tally.received:,} spans: {tally.attributed:,} used, {tally.open:,} open"]
    dropped = sum(tally.dropped.values())
    if dropped:
        reasons = sorted(tally.dropped, key=lambda reason: -tally.dropped[reason])
        parts.append(f"{dropped:,} not ({', '.join(reasons[:3])})")
    if live.plan.sampled is not None:
        parts.append(f"{live.plan.sampled:.3g} sampled")
    if live.looped:
        parts.append(f"{live.looped} exports in a loop")
    elif live.forwarding is not None and live.forwarding.failed:
        parts.append(f"{live.forwarding.failed} not forwarded")
    return ", ".join(parts)[:WIDTH]
