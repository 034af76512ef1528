"""The processes of a load: a reader and a writer for each worker, and the parent that feeds them.

Forked, not spawned: the children share the parent's pages, and start in milliseconds. So the
parent must have no threads yet, and nothing heavy imported, when it calls ``run_load``.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from latdiag.load.plan import LoadPlan, Work
from latdiag.load.processes.counters import Counters, Counts
from latdiag.load.processes.ids import request_id as request_id_of
from latdiag.load.processes.outbox import Write
from latdiag.load.processes.reader import Cut, Go, run_reader
from latdiag.load.processes.writer import run_writer
from latdiag.load.wire import stamps
from latdiag.model.errors import LocalFault
from latdiag.model.units import NS_PER_MS
from latdiag.runtime.channel import Channel, Fault, encode, wide_pipe
from latdiag.runtime.children import LATER, Child, fork
from latdiag.runtime.signals import handled

#: What ``work`` yields: a request, an order to the processes, or None while it has nothing yet.
Next = Work | Write | None
_READY_S = 10.0
#: How soon work is asked for again that had nothing.
_REST_S = 0.01
_PATIENCE_S = 60.0
#: Between the order to go and the start of the schedule: every reader has it by then.
_LEAD_NS = 10 * NS_PER_MS
#: What an open loop asks for: as many connections as the system grants, up to this.
_MANY_DESCRIPTORS = 65536


@dataclass(slots=True)
class LoadEnd:
    """How a load ended. ``signal``: the number of the signal that ended it, or 0.

    ``faults``: what this machine lacks, or lost. A lost reader is none where results remain and
    the self-audit finds the requests that it took with it.
    """

    begun: int = 0
    signal: int = 0
    #: too many requests failed for it to make sense to go on
    gave_up: bool = False
    start_ns: int = 0
    faults: list[Fault] = field(default_factory=list)
    #: processes that ended otherwise than they should: (what, status)
    lost: list[tuple[str, int]] = field(default_factory=list)


@dataclass(slots=True)
class _Worker:
    """A pair of processes (None: not begun, or reaped) and the parent's ends: of the pipe for
    work (-1: closed), of the reader's channel and of the writer's."""

    name: str
    counters: Counters
    work_fd: int
    orders: Channel
    reports: Channel
    reader: Child | None = None
    writer: Child | None = None
    pending: memoryview | None = None
    dead_reader: Child | None = None


def run_load(
    plan: LoadPlan,
    work: Iterator[Next],
    run_path: str,
    run_tag: str,
    on_progress: Callable[[Counts], None],
    on_start: Callable[[int], None] = lambda _start_ns: None,
) -> LoadEnd:
    """Execute a plan into the run at ``run_path`` (created before); returns when it is written.

    ``on_start``: hears the instant (MONOTONIC, ns) that due times count from; until then ``work``
    has nothing that depends on it.
    """
    _allow_descriptors(plan)
    load = _Load(plan, work, run_path, run_tag, on_progress)
    load.on_start = on_start
    with handled(load.note), stamps_kept_on(plan):
        return load.run()


@contextlib.contextmanager
def stamps_kept_on(plan: LoadPlan) -> Iterator[None]:
    """Let a socket ask for stamps all the time.

    Receive stamps are a switch of the whole kernel, which follows the first socket that asks and
    the last that is closed some milliseconds later: connections that come and go would find it
    off at times, and arrivals would bear no stamp.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        if plan.kernel_stamps:
            stamps.enable(asking)
        yield


class _Load:
    def __init__(
        self,
        plan: LoadPlan,
        work: Iterator[Next],
        run_path: str,
        run_tag: str,
        on_progress: Callable[[Counts], None],
    ) -> None:
        self._plan = plan
        self._work = work
        self._run_path = run_path
        self._tag = run_tag
        self._on_progress = on_progress
        self._end = LoadEnd()
        self._workers: list[_Worker] = []
        # A worker's turns are as many as its slots, or it would get more work than its share.
        self._turns = [s % plan.workers for s in range(len(plan.slots) or plan.workers)]
        self._turn = 0
        self._fed = False
        self._resting_until = 0.0
        self.on_start: Callable[[int], None] = lambda _start_ns: None
        self._killed = False
        self.signalled = 0

    def run(self) -> LoadEnd:
        try:
            self._start()
            self._await_ready()
            self._end.start_ns = time.monotonic_ns() + _LEAD_NS
            self._order(Go(self._end.start_ns))
            self.on_start(self._end.start_ns)
            self._attend()
        finally:
            self._abandon()
        self._on_progress(self._counts())
        self._end.signal = self.signalled
        self._end.begun = self._counts().begun
        return self._end

    def _start(self) -> None:
        try:
            for k in range(self._plan.workers):
                self._spawn(f"{self._plan.name}w{k}", self._plan.slots[k :: self._plan.workers])
        except OSError as fault:
            raise LocalFault(
                f"the processes of the load cannot be started: {fault.strerror}",
                "raise the limits (ulimit -n, ulimit -u), or use fewer --workers",
            ) from fault

    def _attend(self) -> None:
        """Hand out work, until all processes have ended."""
        cut_at = 0.0
        while self._alive():
            self._feed(0.1)
            self._on_progress(self._counts())
            self._end.gave_up = self._end.gave_up or self._hopeless()
            if (self.signalled or self._end.faults or self._end.gave_up) and not cut_at:
                self._order(Cut())
                self._fed = True  # nothing more is asked of whoever has the work
                cut_at = time.monotonic()
            if cut_at and time.monotonic() - cut_at > _PATIENCE_S:
                self._kill("reader", "writer")
        some_ok = self._counts().done > self._counts().failed
        for worker in self._workers:
            self._hear(worker)  # what was reported in the last moment
            counts = worker.counters.read()
            if worker.dead_reader and not (some_ok and counts.begun > counts.done):
                self._fault(worker, "reading", worker.dead_reader)

    def _abandon(self) -> None:
        """Leave nothing behind: after an exception there may still be processes."""
        for worker in self._workers:
            _close([worker.work_fd])
            worker.work_fd = -1
            worker.orders.close()  # which a reader takes for the end
        patience = time.monotonic() + _READY_S
        while self._alive():
            if time.monotonic() > patience:
                self._kill("reader", "writer")
            time.sleep(0.01)
        for worker in self._workers:
            worker.reports.close()

    # ------------------------------------------------------------------ children
    def _spawn(self, name: str, slots: tuple[int, ...]) -> None:
        counters = Counters()
        work_in, work_out = wide_pipe()
        read_in, read_out = wide_pipe()
        orders, obeyed = Channel.pair()
        reports, reported = Channel.pair()
        siblings = list(self._workers)
        worker = _Worker(name, counters, work_out, orders, reports)
        self._workers.append(worker)

        def theirs(*pipes: int) -> None:
            """Close what is the parent's and the other process's: an end must be seen as one."""
            _close([work_out, *pipes, *(sibling.work_fd for sibling in siblings)])
            for one in (worker, *siblings):
                one.orders.close()
                one.reports.close()

        def write() -> None:
            theirs(work_in, read_out)
            obeyed.close()
            run_writer(self._plan, self._run_path, name, read_in, reported, counters)

        def read() -> None:
            theirs(read_in)
            reported.close()
            run_reader(self._plan, name, slots, work_in, read_out, obeyed, counters)

        os.set_blocking(work_out, False)
        try:
            worker.writer = fork(write, f"latdiag-write-{name}", LATER)
            worker.reader = fork(read, f"latdiag-read-{name}")
        finally:
            _close([work_in, read_in, read_out])
            obeyed.close()
            reported.close()

    def _await_ready(self) -> None:
        """Let every reader have work at hand before the clock of the schedule starts."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self._alive() and not self.signalled:
            self._feed(0.002)
            if all(w.counters.ready or not w.reader for w in self._workers):
                return

    def _alive(self) -> bool:
        for worker in self._workers:
            for what in ("reader", "writer"):
                child: Child | None = getattr(worker, what)
                if child is not None and not child.alive():
                    setattr(worker, what, None)
                    if child.status:
                        self._lost(worker, what, child)
        return any(w.reader or w.writer for w in self._workers)

    def _lost(self, worker: _Worker, what: str, child: Child) -> None:
        if self._killed:
            return
        self._end.lost.append((f"{what} {worker.name}", child.status or 0))
        if what == "writer":
            self._fault(worker, "writing", child)
        else:
            worker.dead_reader = child

    def _fault(self, worker: _Worker, what: str, child: Child) -> None:
        text = f"the {what} process of {worker.name} ended unexpectedly ({child.end_words})"
        remedy = "what reached the disk is kept; check whether this machine ran out of memory"
        self._end.faults.append(Fault.of(LocalFault(text, remedy)))

    def _order(self, order: Go | Cut | Write) -> None:
        for worker in self._workers:
            worker.orders.send(order)

    def note(self, number: int, _frame: object) -> None:
        """Handler of the signals that end a load: noted first, further ones end the waiting."""
        if self.signalled:
            self.give_up()
        self.signalled = self.signalled or number

    def give_up(self) -> None:
        """A second signal: stop reading, a writer then ends by itself; a third: end all."""
        self._kill(*(("reader", "writer") if self._killed else ("reader",)))

    def _kill(self, *whom: str) -> None:
        self._killed = True
        for worker in self._workers:
            for what in whom:
                if child := getattr(worker, what):
                    child.kill()

    def _hopeless(self) -> bool:
        limit, counts = self._plan.give_up, self._counts()
        # Whoever may give up heeds refusals as too many: they are no failures of the server.
        lost = counts.failed - counts.shed
        return limit is not None and counts.done >= 10 and lost > limit * counts.done

    def _counts(self) -> Counts:
        each = [w.counters.read() for w in self._workers]
        return Counts(*(sum(values) for values in zip(*each, strict=True)))

    # ------------------------------------------------------------------ work out, faults in
    def _feed(self, seconds: float) -> None:
        """Hand out work in turn for at most ``seconds``; hear what the writers report."""
        poll = select.poll()
        reports = {worker.reports.fileno(): worker for worker in self._workers}
        for fd in reports:
            poll.register(fd, select.POLLIN)
        now = time.monotonic()
        until = now + seconds
        current = self._current()
        if current is not None and self._resting_until > now:
            until = min(until, self._resting_until)
        elif current is not None:
            poll.register(current.work_fd, select.POLLOUT)
        while (left := until - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if fd not in reports:
                    self._hand_out()
                    return
                self._hear(reports[fd])
                if reports[fd].reports.ended:
                    poll.unregister(fd)
            if self.signalled:
                return

    def _current(self) -> _Worker | None:
        """Whose turn it is; None when there is nothing more to hand out, or nobody to take it."""
        if not self._fed:
            for _ in self._turns:
                worker = self._workers[self._turns[self._turn % len(self._turns)]]
                if worker.work_fd >= 0:
                    return worker
                self._turn += 1
            self._fed = True
        return None

    def _hand_out(self) -> None:
        """Write frames in turn until a pipe is full, or there is no work, or none yet."""
        while (worker := self._current()) is not None:
            if worker.pending is None and not self._next_for(worker):
                return
            assert worker.pending is not None
            try:
                written = os.write(worker.work_fd, worker.pending)
            except BlockingIOError:
                return
            except OSError:  # this reader is gone or takes no more; the others go on
                self._close_work(worker)
                continue
            if written < len(worker.pending):
                worker.pending = worker.pending[written:]
                return
            worker.pending = None
            self._turn += 1

    def _next_for(self, worker: _Worker) -> bool:
        try:
            work = next(self._work)
        except StopIteration:
            self._fed = True
            self._close_work(*self._workers)
            return False
        if not isinstance(work, Work):
            if work is not None:
                self._order(work)
            self._resting_until = time.monotonic() + _REST_S
            return False
        request_id = request_id_of(self._tag, work.number).encode()
        token = os.urandom(24).hex().encode()
        worker.pending = memoryview(encode([(*work, request_id, token[:32], token[32:])]))
        return True

    def _close_work(self, *workers: _Worker) -> None:
        for worker in workers:
            _close([worker.work_fd])
            worker.work_fd, worker.pending = -1, None

    def _hear(self, worker: _Worker) -> None:
        self._end.faults += worker.reports.arrived()


def _close(fds: list[int]) -> None:
    for fd in fds:
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)


def _allow_descriptors(plan: LoadPlan) -> None:
    """Raise the soft limit of open files to what the plan may need, within the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = math.inf if hard == resource.RLIM_INFINITY else hard
    need = -(-len(plan.slots) // plan.workers) + 128
    if plan.slots and most < need:
        raise LocalFault(
            f"{len(plan.slots)} streams need {need} open files, this system allows {hard}",
            "raise the limit (ulimit -n) or use more --workers",
        )
    # How many connections an open loop needs is up to the server.
    wanted = need if plan.slots else int(min(most, _MANY_DESCRIPTORS))
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
