"""What a writer's pair of processes says of itself: the readings behind the self-audit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PER_OCTAVE = 8
_OCTAVES = 40
_CPU_WINDOW_S = 5


class Lags:
    """Counts of durations in log-spaced bins (9 % wide): percentiles without keeping values."""

    def __init__(self) -> None:
        self._counts = [0] * (_PER_OCTAVE * _OCTAVES)
        self.n = 0
        self.largest_ns = 0

    def add(self, values_ns: NDArray[np.int64]) -> None:
        """Take non-negative durations in ns; negative ones (a stamp after the read) count as 0."""
        import numpy as np

        if not len(values_ns):
            return
        sane = np.maximum(values_ns, 0)
        bins = (np.log2(sane / 1000.0 + 1.0) * _PER_OCTAVE).astype(np.int64)
        found = np.bincount(np.minimum(bins, len(self._counts) - 1))
        for place in np.flatnonzero(found).tolist():
            self._counts[place] += int(found[place])
        self.n += len(values_ns)
        self.largest_ns = max(self.largest_ns, int(sane.max()))

    def quantile_ns(self, q: float) -> int | None:
        """Upper edge of the bin that holds the quantile, at most the largest value seen."""
        if not self.n:
            return None
        rank, seen = math.ceil(q * self.n), 0
        for place, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                edge = round((2 ** ((place + 1) / _PER_OCTAVE) - 1.0) * 1000)
                return min(edge, self.largest_ns)
        return self.largest_ns

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "p50_ns": self.quantile_ns(0.5),
            "p99_ns": self.quantile_ns(0.99),
            "max_ns": self.largest_ns if self.n else None,
        }


class Audit:
    """Readings of one reader over its life, from its ticks."""

    def __init__(self) -> None:
        self.read_lag = Lags()
        self.loop_lag = Lags()
        self._ticks: list[_Tick] = []
        self._queue_known = False
        self._rss_kb = 0
        self._backlog = 0
        self._first: _Tick | None = None
        self._worst_cpu = 0.0

    def tick(self, told: dict[str, Any]) -> None:
        import numpy as np

        now = _Tick(told["clock"][0], told["cpu_ns"], told["queued_ns"], told["starved_ns"])
        self._first = self._first or now
        self._ticks.append(now)
        self._ticks = self._ticks[-(_CPU_WINDOW_S + 1) :]
        if len(self._ticks) == _CPU_WINDOW_S + 1:
            self._worst_cpu = max(self._worst_cpu, _share(self._ticks[0], now))
        self._queue_known = told["queue_known"]
        self._rss_kb = max(self._rss_kb, told["rss_kb"])
        self._backlog = max(self._backlog, told["backlog"])
        self.loop_lag.add(np.asarray(told["loop_lags_ns"], dtype=np.int64))

    def to_json(self) -> dict[str, Any]:
        """Shares are of one core, or of wall time; null where the system does not tell.

        ``starved_share``: time in the run queue beyond what a wake of an idle core takes.
        """
        found: dict[str, Any] = dict.fromkeys(
            ("reader_cpu", "reader_cpu_worst_5s", "run_queue_share", "starved_share")
        )
        first, last = self._first, self._ticks[-1] if self._ticks else None
        wall = last.mono_ns - first.mono_ns if first and last else 0
        if first and last and wall > 0:
            cpu = _share(first, last)
            found["reader_cpu"] = cpu
            # A shorter run has no 5 s; in less than one the start of the process counts.
            found["reader_cpu_worst_5s"] = self._worst_cpu or (cpu if wall >= 1e9 else None)
            if self._queue_known:
                found["run_queue_share"] = (last.queued_ns - first.queued_ns) / wall
                found["starved_share"] = (last.starved_ns - first.starved_ns) / wall
        return {
            "wall_ns": wall,
            **found,
            "reader_peak_rss_kb": self._rss_kb,
            "reader_peak_backlog_bytes": self._backlog,
            "read_lag": self.read_lag.to_json(),
            "loop_lag": self.loop_lag.to_json(),
        }


class _Tick(NamedTuple):
    mono_ns: int
    cpu_ns: int
    queued_ns: int
    starved_ns: int


def _share(since: _Tick, until: _Tick) -> float:
    wall = until.mono_ns - since.mono_ns
    return (until.cpu_ns - since.cpu_ns) / wall if wall > 0 else 0.0
