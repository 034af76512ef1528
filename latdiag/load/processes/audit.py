"""What a writer's pair of processes says of itself: the readings behind the self-audit."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from latdiag.store.states import AuditFigures, LagFigures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latdiag.load.processes.outbox import Reading

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

    def figures(self) -> LagFigures:
        largest_ns = self.largest_ns if self.n else None
        return LagFigures(self.n, self.quantile_ns(0.5), self.quantile_ns(0.99), largest_ns)


class Audit:
    """Readings of one reader over its life."""

    def __init__(self) -> None:
        self.read_lag = Lags()
        self.loop_lag = Lags()
        self._readings: list[Reading] = []
        self._rss_kb = 0
        self._backlog = 0
        self._first: Reading | None = None
        self._worst_cpu = 0.0

    def add(self, reading: Reading) -> None:
        import numpy as np

        self._first = self._first or reading
        self._readings.append(reading)
        self._readings = self._readings[-(_CPU_WINDOW_S + 1) :]
        if len(self._readings) == _CPU_WINDOW_S + 1:
            self._worst_cpu = max(self._worst_cpu, _share(self._readings[0], reading))
        self._rss_kb = max(self._rss_kb, reading.rss_kb)
        self._backlog = max(self._backlog, reading.backlog)
        self.loop_lag.add(np.asarray(reading.loop_lags_ns, dtype=np.int64))

    def figures(self) -> AuditFigures:
        first, last = self._first, self._readings[-1] if self._readings else None
        wall = last.mono_ns - first.mono_ns if first and last else 0
        cpu = worst = queued = starved = None
        if first and last and wall > 0:
            cpu = _share(first, last)
            # A shorter run has no 5 s; in less than one the start of the process counts.
            worst = self._worst_cpu or (cpu if wall >= 1e9 else None)
            if last.queue_known:
                queued = (last.queued_ns - first.queued_ns) / wall
                starved = (last.starved_ns - first.starved_ns) / wall
        return AuditFigures(
            wall_ns=wall,
            reader_cpu=cpu,
            reader_cpu_worst_5s=worst,
            run_queue_share=queued,
            starved_share=starved,
            reader_peak_rss_kb=self._rss_kb,
            reader_peak_backlog_bytes=self._backlog,
            read_lag=self.read_lag.figures(),
            loop_lag=self.loop_lag.figures(),
            writer_cpu_ns=time.process_time_ns(),
        )


def _share(since: Reading, until: Reading) -> float:
    wall = until.mono_ns - since.mono_ns
    return (until.cpu_ns - since.cpu_ns) / wall if wall > 0 else 0.0
