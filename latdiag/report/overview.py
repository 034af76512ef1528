"""The middle and the foot of a screen: what was measured, its latencies, what it rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from latdiag.diagnosis.result import Imported, Result
from latdiag.measurement.measurement import MetricResult
from latdiag.model.units import GLUE, quantity, show_duration
from latdiag.report import servers
from latdiag.report.answer import is_of_servers
from latdiag.report.numbers import short_interval
from latdiag.report.page import WIDTH, Block, Page, cells, rows

#: Metrics of a screen; of a load that is not broken down, the second set, with more columns.
_METRICS = (("ttft", "TTFT"), ("tpot", "TPOT"), ("e2e", "E2E"))
_METRICS_OF_LOAD = (*_METRICS[:2], ("itl", "ITL"), _METRICS[2])
_COLUMNS, _COLUMNS_OF_LOAD = ("p50", "p95"), ("p50", "p95", "p99")
_LABEL, _COLUMN, _N = 7, 21, 8
#: Runs or servers that have a row each.
_ROWS = 6
#: Verbs whose run can be read again, where a note is asked for later.
_READING = ("diagnose", "compare")


def target(result: Result) -> Block:
    """Whom the requests went to, or who was listened to, and the counts: one line."""

    def draw(page: Page, room: int) -> None:
        whose, counts = _target(page, result)
        if room > 1 and cells(whose) + cells(counts) + 2 > WIDTH:
            # Two lines, before either says half of what it is for.
            page.line(page.fit(whose, WIDTH - 1) + ":")
            page.line(page.fit(f"  {counts}", WIDTH))
        else:
            left = WIDTH - cells(counts) - 2
            page.line(f"{page.fit(whose, max(20, left))}: {counts}")
        failed = result.load.failed if result.load is not None else {}
        names = [f"{n} {page.word(name, 20)}" for name, n in failed.items() if n]
        if names:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            page.line(page.fit(f"Failed: {', '.join(names[:4])}{more}", WIDTH))

    return Block(draw, 1, 3, apart=True)


def _target(page: Page, result: Result) -> tuple[str, str]:
    """Whom it is of, and the counts."""
    counts = page.fit(page.word(_counts(result), 200), WIDTH - 24)
    target = result.target
    where = (target.url or ", ".join(target.captures)) if target is not None else ""
    where = page.word(where.partition("/v1/")[0] or "unknown target", 300)
    what = [page.word(target.model, 60)] if target is not None and target.model else []
    if target is not None and target.api_key_env:
        # In front, where it is not cut off: who gets a key has to be seen.
        what.insert(0, f"key {page.word(target.api_key_env, 30)}")
    if target is not None and target.behind:
        what.append(f"behind it {page.word(target.behind.partition('/v1/')[0], 100)}")
    for stack in result.stacks:
        version = f" {page.word(stack.version, 20)}" if stack.version else ""
        what.append(page.word(stack.name or "unknown stack", 30) + version)
    about = f" ({', '.join(what)})" if what else ""
    if is_of_servers(result):
        where, about = "Servers", f" ({', '.join(what)})" if what else ""
    # Of a long address what leaves the rest room.
    return page.fit(where, max(20, WIDTH - 1 - cells(about))) + about, counts


def _counts(result: Result) -> str:
    """``120 requests (64 at a time) in 22.0 s, 0 failed``."""
    if is_of_servers(result):
        return _received(result)
    load = result.load
    if load is None:
        return "0 requests"
    text = f"{load.requests} requests"
    if load.concurrency is not None:
        text += f" ({load.concurrency} at a time)"
    elif load.offered_rate is not None:
        text += f" ({load.offered_rate:.3g}/s)"
    if load.duration_s is not None:
        text += f" in {load.duration_s:.1f} s"
    text += f", {sum(load.failed.values())} failed"
    return text


def _received(result: Result) -> str:
    found = result.collected
    if found is None:
        return _read(result.imported)
    during = f" in {show_duration(found.duration_ns)}" if found.duration_ns else ""
    scrapes = sum(found.scrapes.values())
    return (
        f"{_counted(found.accepted)} spans, {_counted(found.samples)} samples in {scrapes}"
        f" scrapes{during}"
    )


def _read(found: Imported | None) -> str:
    if found is None:
        return "0 requests"
    return f"{_counted(found.spans)} spans, {_counted(found.samples)} samples"


def _counted(number: int) -> str:
    return f"{number:,}".replace(",", " ")


# ---------------------------------------------------------------------- latencies
def metrics(result: Result) -> Block:
    """TTFT, TPOT, E2E: a row each."""
    whole = not result.breakdowns
    names = _METRICS_OF_LOAD if whole else _METRICS
    columns = _COLUMNS_OF_LOAD if whole else _COLUMNS

    def draw(page: Page, room: int) -> None:
        head = "".join(f"{column:<{_COLUMN}}" for column in columns)
        page.line(f"{'ms':<{_LABEL}}{head}{'n':>{_N}}")
        for name, label in names:
            if (metric := result.metrics.get(name)) is not None:
                page.line(_row(page, label, metric, columns))
        if whole:
            _totals(page, result)

    return Block(draw, 4, 4, apart=True)


def _row(page: Page, label: str, metric: MetricResult, columns: Sequence[str]) -> str:
    """A value with its interval a column; where it is refused, what it needs."""
    found = [metric.statistics.get(column) for column in columns]
    if metric.refused or not any(one is not None and one.value is not None for one in found):
        reasons = [one.refused for one in found if one is not None and one.refused]
        why = metric.refused or next(iter(reasons), "not measured")
        return f"{label:<{_LABEL}}not stated: {page.word(why, 200)}"
    known = [one for one in found if one is not None and one.value is not None]
    # 100 s and more would not fit their columns in ms.
    seconds = any((one.hi or one.value or 0.0) >= 99_999.5e6 for one in known)
    texts = []
    for one in found:
        if one is None or one.value is None:
            needs = one.needs if one is not None else None
            texts.append(f"needs n = {needs}" if needs else "not stated")
        else:
            texts.append(short_interval(one, metric.unit, 1000 if seconds else 1))
    label += " s" if seconds else ""
    cells_ = "".join(f"{text:<{_COLUMN}}" for text in texts)
    return f"{label:<{_LABEL}}{cells_}{known[0].n:>{_N}}"


def _totals(page: Page, result: Result) -> None:
    """Tokens and requests a second, in a line."""
    parts = []
    for name, what in (("output_throughput", "output"), ("request_rate", "requests")):
        metric = result.metrics.get(name)
        total = metric.total if metric is not None else None
        if total is not None and total.value is not None and metric is not None:
            text = quantity(total.value, page.word(metric.unit, 12))
            parts.append(f"{what} {text}".replace(GLUE, " "))
    if parts:
        page.line(", ".join(parts))


# ---------------------------------------------------------------------- servers that spoke
def heard(result: Result) -> Block:
    """Where no client was: a row for each server."""

    def draw(page: Page, room: int) -> None:
        lines = list(_heard(page, result))
        rows(page, min(room, _ROWS + 1), lines, " servers")

    return Block(draw, 2, 9, apart=True)


def state(result: Result) -> Block | None:
    """How full the engines said they were, in a line; nothing where none said it."""
    found = result.aggregates.state if result.aggregates is not None else None
    if found is None:
        return None
    text = f"Engines: {servers.fullest(found, in_full=False)}"
    return Block(lambda page, room: page.line(page.fit(text, WIDTH)), 1, 8)


def _heard(page: Page, result: Result) -> Iterator[str]:
    """Of spans who sent them, of metrics what each server finished."""
    if result.evidence is not None:
        for sender in result.evidence.senders:
            yield page.fit(servers.sender(page, sender, None), WIDTH)
    elif result.collected is not None:
        for one in result.collected.senders or ():
            mark = "" if one.known else " (unknown stack)"
            name = page.word(one.service or one.sender, 40)
            yield f"{name}{mark}: {_counted(one.spans)} spans"
    if result.aggregates is not None:
        for replica in result.aggregates.replicas:
            yield from _two_lines(servers.brief(page, replica))


def _two_lines(text: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return lines[:2]


# ---------------------------------------------------------------------- the foot
def validity(result: Result) -> Block | None:
    """What the client found of itself, in one line; INVALID stands at the top instead."""
    audit = result.self_audit
    if is_of_servers(result) or audit is None or not result.valid:
        return None
    ruled = [each for each in audit.readings if each.limit is not None]
    read = [each for each in ruled if each.reading is not None]
    source = {"kernel": "kernel", "user": "user-space", "tap": "packet-capture"}
    stamps = f"{source.get(audit.stamp_source or '', 'unknown')} time stamps"
    broken = sum(1 for each in ruled if each.broken)
    if broken:
        text = (
            f"Valid, but the client broke {broken} of {len(ruled)} limits: a metric is not stated"
        )
    elif len(read) == len(ruled) and read:
        text = f"Valid: the client met all {len(ruled)} limits of its self-audit"
    elif read:
        text = f"Valid: the client met all {len(read)} limits that apply"
    else:
        text = "Not audited: the client recorded nothing about itself"
    return Block(lambda page, room: page.line(f"{text}; {stamps}."), 1, 3, apart=True)


def count(result: Result) -> Block:
    """How many notes there are, and how to see them and the rest: one line."""
    n = len(result.caveats)
    words = "no notes" if not n else "1 note" if n == 1 else f"{n} notes"
    words = words[0].upper() + words[1:]
    if result.verb in _READING:
        text = f"{words}: --notes. All figures: --full." if n else f"{words}. All figures: --full."
    else:
        text = f"{words}: " if n else f"{words}; "
        ask = "--notes; all figures with --full" if n else "--full shows all figures"
        text += f"latdiag diagnose RUN {ask}."
    return Block(lambda page, room: page.line(text), 1, 3, apart=validity(result) is None)


def saved(result: Result) -> Block:
    """The run's path, whole where it fits: it is what the next command takes. Of several, each."""
    paths = [path for path in result.runs or (result.run,) if path]
    word = "Read" if result.verb in _READING else "Saved"

    def draw(page: Page, room: int) -> None:
        if not paths:
            page.line("No run was saved.")
        elif len(paths) > 1:
            shown = [ending(page, f"{word} ", path) for path in paths]
            rows(page, min(room, _ROWS + 1), shown, " runs")
        else:
            _whole(page, f"{word} ", page.word(paths[0], 4096), room)

    return Block(draw, 1 if len(paths) < 2 else 2, 2)


def _whole(page: Page, first: str, path: str, room: int) -> None:
    """The path over as many lines as there is room for; of a longer one, its end."""
    lines = -(-cells(path) // (WIDTH - len(first)))
    if lines <= min(room, 3):
        page.whole(path, first)
    else:
        page.line(ending(page, first, path))


def ending(page: Page, first: str, path: str, width: int = WIDTH) -> str:
    """A path of which the end is seen, with ``first`` before it."""
    text = page.word(path, 4096)
    mark = "..." if page.ascii_only else "…"
    room = width - len(first)
    if cells(text) <= room:
        return first + text
    text = text[-2 * room :]
    while cells(text) > room - cells(mark):
        text = text[1:]
    return first + mark + text
