"""Collecting for a while, without a load of ours: the parent waits, and says what comes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from latdiag.ingest.collector import Collector, collecting
from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.ingest.plan import Account, Prometheus
from latdiag.load.look import Headers, Origin
from latdiag.load.trust import Trust
from latdiag.model.units import NS_PER_S, show_duration
from latdiag.runtime.signals import handled
from latdiag.stacks.catalogue import families, stacks

_SAY_EVERY_S = 10.0
_POLL_S = 0.2


class Collection(NamedTuple):
    """What came in ``duration_ns``. ``stopped``: the number of the signal that ended it, or 0."""

    account: Account
    duration_ns: int
    stopped: int


def collect(
    path: str,
    *,
    otlp: Endpoints | None,
    metrics: Sequence[str],
    metrics_headers: Mapping[Origin, Headers],
    prometheus: Prometheus | None = None,
    trust: Trust | None = None,
    forward: str | None,
    max_disk: int | None,
    duration_ns: int,
    wait_ns: int,
    say: Callable[[str], None],
    progress: Callable[[Account, int], Sequence[str]],
) -> Collection:
    """Collect into the run at ``path`` (created before).

    ``trust``: of scrapes over TLS. ``say`` takes lines for people who wait; ``progress`` makes
    them of what came so far and the seconds since the start.
    """
    signals: list[int] = []
    with (
        handled(lambda number, _frame: signals.append(number)),
        collecting(
            path,
            stacks(),
            families(),
            otlp=otlp,
            metrics=metrics,
            metrics_headers=metrics_headers,
            prometheus=prometheus,
            trust=trust,
            forward=forward,
            max_disk=max_disk,
            nice=0,
        ) as collector,
    ):
        return Waiting(collector, signals, say, progress).run(duration_ns, wait_ns)


class Waiting:
    """The parent while the child collects: waits, says what comes, and ends it."""

    def __init__(
        self,
        collector: Collector,
        signals: list[int],
        say: Callable[[str], None],
        progress: Callable[[Account, int], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._collector = collector
        self._signals = signals
        self._say = say
        self._progress = progress
        self._clock = clock
        self._sleep = sleep
        self._begun_s = clock()
        self._next_s = self._begun_s + _SAY_EVERY_S
        self._missing: set[tuple[str, str]] = set()

    def run(self, duration_ns: int, wait_ns: int) -> Collection:
        doors = {"gRPC": self._collector.grpc, "HTTP": self._collector.http}
        open_doors = [f"{name} at {where}" for name, where in doors.items() if where]
        self._say(f"collecting: {', '.join(open_doors) or 'metrics only'}")
        self._edge("begin")
        until = self._begun_s + duration_ns / NS_PER_S
        while not self._signals and (left := until - self._clock()) > 0:
            self._sleep(min(_POLL_S, left))
            self._tick()
            if self._collector.gone:
                break  # which ``finish`` says
        self._edge("end")
        lasted_ns = round((self._clock() - self._begun_s) * NS_PER_S)
        if not open_doors or signal.SIGTERM in self._signals:
            wait_ns = 0
        if wait_ns:
            again = "; interrupt again to stop immediately" if self._signals else ""
            self._say(f"waiting {show_duration(wait_ns)} for late spans{again}")
        heard = len(self._signals)

        def hurry() -> None:
            self._tick()
            if len(self._signals) > heard:
                self._collector.hurry()

        account = self._collector.finish(wait_ns, hurry)
        return Collection(account, lasted_ns, (self._signals or [0])[0])

    def _tick(self) -> None:
        """Say what came, where it is time for that and the child finds the time."""
        if self._clock() < self._next_s:
            return
        # From now on, not from when it was due: after a pause of minutes one line says it all.
        self._next_s = self._clock() + _SAY_EVERY_S
        account = self._collector.snapshot()
        if account is None:
            return
        now = self._clock()
        self._next_s = now + _SAY_EVERY_S
        for line in self._progress(account, round(now - self._begun_s)):
            self._say(line)

    def _edge(self, label: str) -> None:
        for problem in self._collector.edge(label):
            key = (problem.replica, problem.text)
            if key not in self._missing:
                self._missing.add(key)
                self._say(f"{problem.replica}: {problem.text}")
