"""The stages of a workload, one row each: runs, or scenarios of a capture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from latdiag.diagnosis.result import Result, StageResult
from latdiag.measurement.measurement import MetricResult
from latdiag.model.text import shown
from latdiag.report.numbers import short_interval, tight, value_of
from latdiag.report.overview import ending
from latdiag.report.page import WIDTH, Block, Page, cells

#: Rows of a screen.
_ROWS = 6
#: Statistics of a row: the metric, the statistic, its column's head and width.
_COLUMNS = (
    ("ttft", "p50", "TTFT p50", 9),
    ("ttft", "p95", "p95", 7),
    ("tpot", "p50", "TPOT p50", 9),
    ("e2e", "p50", "E2E p50", 8),
)
_FIGURES = (
    *(("ttft", "p50", "TTFT p50"), ("ttft", "p95", "TTFT p95")),
    *(("tpot", "p50", "TPOT p50"), ("e2e", "p50", "E2E p50")),
)
_MOST_NAME, _N, _FAILED, _LOAD, _PART = 24, 6, 7, 7, 13
#: Of a verdict without a leader.
_KINDS = {"ambiguous": "no leader", "insufficient": "not stated"}


def block(result: Result) -> Block | None:
    """The rows of a screen; None where there is one stage."""
    if not result.stages:
        return None

    def draw(page: Page, room: int) -> None:
        head, *lines = _table(page, result.stages)
        page.line(head)
        n = min(room - 1, _ROWS + 1)
        if len(lines) > min(n, _ROWS):
            # Those with most requests are shown: warm-ups need no row.
            order = sorted(range(len(lines)), key=lambda at: -result.stages[at].requests)
            for place in sorted(order[: n - 1]):
                page.line(lines[place])
            page.line(f"and {len(lines) - n + 1} more stages: --full")
        else:
            for line in lines:
                page.line(line)

    return Block(draw, 4, 5, apart=True)


def in_full(page: Page, result: Result) -> None:
    """All of them, with their intervals, and what is said of each."""
    if not result.stages:
        return
    page.gap()
    for line in _table(page, result.stages):
        page.line(line)
    for stage in result.stages:
        figures = [
            f"{head} {short_interval(found, 'ms')}"
            for metric, what, head in _FIGURES
            if (found := stage.metrics[metric].statistics.get(what)) is not None
            and found.lo is not None
        ]
        told = [f"{', '.join(figures)} ms."] if figures else []
        if stage.verdict is not None:
            told.append(page.word(stage.verdict.sentence, 900))
        if told:
            page.paragraph(" ".join(told), f"{page.word(stage.name, 60)}: ", "  ")


def _table(page: Page, stages: Sequence[StageResult]) -> Iterator[str]:
    """The head, and a line a stage; a column that says nothing of any stage is left out."""
    counts: list[tuple[str, int, list[str]]] = [("n", _N, [_count(s.requests) for s in stages])]
    if any(stage.failed for stage in stages):
        failed = [_count(sum(stage.failed.values())) for stage in stages]
        counts.append(("failed", _FAILED, failed))
    if any(map(load_of, stages)):
        counts.append(("load", _LOAD, [load_of(stage) for stage in stages]))
    for metric, what, head, width in _COLUMNS:
        figures = [_figure(stage.metrics[metric], what) for stage in stages]
        counts.append((head, width, figures))
    told = any(stage.verdict is not None for stage in stages)
    room = WIDTH - sum(width for _, width, _ in counts) - told * (_PART + 2)
    names = [ending(page, "", name, room - 1) for name in short([s.name for s in stages])]
    room = min(room, _MOST_NAME, max(map(cells, names)) + 2)
    heads = "".join(f"{head:>{width}}" for head, width, _ in counts)
    yield f"{'ms':<{room}}{heads}{'  largest part' if told else ''}"
    for place, (stage, name) in enumerate(zip(stages, names, strict=True)):
        figures_of = "".join(f"{texts[place]:>{width}}" for _, width, texts in counts)
        name = ending(page, "", name, room - 1)
        yield f"{name}{' ' * (room - cells(name))}{figures_of}  {page.word(leader(stage), _PART)}"


def _count(n: int) -> str:
    return str(n) if n < 1_000_000 else f"{n / 1e6:.0f}M"


def load_of(stage: StageResult) -> str:
    """As the options of a load say it: ``-c 16``, or ``4/s``; empty where it is not known."""
    if stage.offered_rate is not None:
        return f"{stage.offered_rate:.3g}/s"
    return f"-c {stage.concurrency}" if stage.concurrency is not None else ""


def leader(stage: StageResult) -> str:
    """The component that leads, where a verdict names one."""
    found = stage.verdict
    if found is None:
        return ""
    if found.dominant is None:
        return _KINDS.get(found.kind, found.kind.replace("_", " "))
    about = stage.breakdowns.get(found.population)
    share = about.shares.get(found.dominant) if about is not None else None
    return "+".join((share.members if share is not None else ()) or (found.dominant,))


def _figure(metric: MetricResult, statistic: str) -> str:
    """A value; where there are too few requests for it, how many it needs."""
    found = metric.statistics.get(statistic)
    value = value_of(found, metric.unit)
    if value is not None:
        return tight(value)
    return f"n<{found.needs}" if found is not None and found.needs else "-"


def short(names: Sequence[str]) -> list[str]:
    """Names without the words, between hyphens, that all of them begin or end with."""
    words = [shown(name, 200).split("-") for name in names]
    while all(len(each) > 1 for each in words) and len({each[-1] for each in words}) == 1:
        words = [each[:-1] for each in words]
    while all(len(each) > 1 for each in words) and len({each[0] for each in words}) == 1:
        words = [each[1:] for each in words]
    return ["-".join(each) for each in words]
