"""How full engines were, by what they say of themselves at the scrapes while the load ran: before
and after it they are idle, whatever they were in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from latdiag.attribution.evidence import ServerState
from latdiag.attribution.metrics.deltas import Sample
from latdiag.stacks.catalogue import selector
from latdiag.stacks.signal import Signal

#: The ends of signals' names, as all engines have them.
_USED, _RUNNING, _WAITING, _EVICTED = "kv_usage", "running", "waiting", "preemptions"


def state_of(rows: Sequence[Sample], signals: Iterable[Signal]) -> ServerState | None:
    """``signals``: of the engines that are there, without those that hand requests on; None where
    they say nothing of it."""
    named: dict[str, list[Signal]] = {}
    for signal in signals:
        named.setdefault(signal.name.rpartition(".")[2], []).append(signal)
    during = [row for row in rows if not _is_edge(row)]
    used, running, waiting = (_most(during, named.get(n, ())) for n in (_USED, _RUNNING, _WAITING))
    if not running and not waiting:
        # No scrape met a request: of how full they were with requests these say nothing.
        used = running = waiting = None
    evicted = _gained(rows, named.get(_EVICTED, ()))
    if used is None and running is None and not evicted:
        return None
    return ServerState(
        len({(row.replica, row.at_ns) for row in during}),
        None if used is None else min(1.0, used),
        None if running is None else round(running),
        None if waiting is None else round(waiting),
        evicted,
    )


def _is_edge(row: Sample) -> bool:
    return row.edge.rpartition(".")[2] in ("begin", "end", "before", "after")


def _of(rows: Sequence[Sample], signals: Iterable[Signal]) -> list[Sample]:
    wanted = [selector(signal.foreign) for signal in signals]
    return [
        row
        for row in rows
        if any(
            row.name == f and labels.items() <= dict(row.labels).items() for f, labels in wanted
        )
    ]


def _most(rows: Sequence[Sample], signals: Iterable[Signal]) -> float | None:
    return max((row.value for row in _of(rows, signals)), default=None)


def _gained(rows: Sequence[Sample], signals: Iterable[Signal]) -> int | None:
    """What counters gained from the first scrape to the last, resets left out."""
    series: dict[tuple[object, ...], list[tuple[int, float]]] = {}
    for row in _of(rows, signals):
        series.setdefault((row.replica, row.name, row.labels), []).append((row.at_ns, row.value))
    if not series:
        return None
    ends = [(min(each)[1], max(each)[1]) for each in series.values()]
    return round(sum(max(0.0, last - first) for first, last in ends))
