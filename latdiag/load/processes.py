"""The processes of a load: a reader and a writer for each worker, and the parent that feeds them.

Forked, not spawned: the children share the parent's pages, and start in milliseconds. So the
parent must have no threads yet, and nothing heavy imported, when it calls ``run_load``.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from latdiag.load.frames import encode, wide_pipe
from latdiag.load.plan import LoadPlan, Work
from latdiag.load.progress import Counters, Counts
from latdiag.load.reader import CUT, GO, run_reader
from latdiag.load.writer import run_writer
from latdiag.model.errors import LocalFault

_READY_S = 10.0
_PATIENCE_S = 60.0


@dataclass(slots=True)
class LoadEnd:
    """How a load ended. ``signal``: the number of the signal that ended it, or 0."""

    begun: int = 0
    signal: int = 0
    start_ns: int = 0
    faults: list[dict[str, str]] = field(default_factory=list)
    #: processes that ended otherwise than they should: (what, status)
    lost: list[tuple[str, int]] = field(default_factory=list)


@dataclass(slots=True)
class _Worker:
    name: str
    counters: Counters
    reader: int
    writer: int
    work_fd: int
    control_fd: int
    report_fd: int
    pending: memoryview | None = None
    said: bytes = b""


def run_load(
    plan: LoadPlan,
    work: Iterator[Work],
    run_path: str,
    run_tag: str,
    on_progress: Callable[[Counts], None],
) -> LoadEnd:
    """Execute a plan into the run at ``run_path`` (created before); returns when it is written."""
    _allow_descriptors(plan)
    load = _Load(plan, work, run_path, run_tag, on_progress)
    with _signals_noted(load):
        return load.run()


class _Load:
    def __init__(
        self,
        plan: LoadPlan,
        work: Iterator[Work],
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
        self._turn = 0
        self._fed = False
        self.signalled = 0

    def run(self) -> LoadEnd:
        for k in range(self._plan.workers):
            self._workers.append(self._spawn(f"w{k}", self._plan.slots[k :: self._plan.workers]))
        self._await_ready()
        self._end.start_ns = time.monotonic_ns()
        self._order(GO + self._end.start_ns.to_bytes(8, "little"))
        cut_at = 0.0
        while self._alive():
            self._feed(0.1)
            self._on_progress(self._counts())
            if (self.signalled or self._end.faults) and not cut_at:
                self._order(CUT + bytes(8))
                cut_at = time.monotonic()
            if cut_at and time.monotonic() - cut_at > _PATIENCE_S:
                self._kill()
        self._on_progress(self._counts())
        self._end.signal = self.signalled
        self._end.begun = self._counts().begun
        for worker in self._workers:
            for fd in (worker.work_fd, worker.control_fd, worker.report_fd):
                with suppress(OSError):
                    os.close(fd)
        return self._end

    # ------------------------------------------------------------------ children
    def _spawn(self, name: str, slots: tuple[int, ...]) -> _Worker:
        counters = Counters()
        work_in, work_out = wide_pipe()
        read_in, read_out = wide_pipe()
        control_in, control_out = os.pipe()
        report_in, report_out = os.pipe()
        ours = [work_out, control_out, report_in]
        siblings = [f for w in self._workers for f in (w.work_fd, w.control_fd, w.report_fd)]

        def write() -> None:
            _close([*ours, *siblings, work_in, control_in, read_out])
            run_writer(self._plan, self._run_path, name, read_in, report_out, counters)

        def read() -> None:
            _close([*ours, *siblings, read_in, report_out])
            run_reader(self._plan, name, slots, work_in, read_out, control_in, counters)

        writer, reader = _fork(write), _fork(read)
        _close([work_in, read_in, read_out, control_in, report_out])
        os.set_blocking(work_out, False)
        os.set_blocking(report_in, False)
        return _Worker(name, counters, reader, writer, work_out, control_out, report_in)

    def _await_ready(self) -> None:
        """Let every reader have work at hand before the clock of the schedule starts."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self._alive():
            self._feed(0.002)
            if all(w.counters.ready for w in self._workers):
                return

    def _alive(self) -> bool:
        for worker in self._workers:
            for what in ("reader", "writer"):
                pid = getattr(worker, what)
                if pid and (status := _reaped(pid)) is not None:
                    setattr(worker, what, 0)
                    if status:
                        self._lost(worker, what, status)
        return any(w.reader or w.writer for w in self._workers)

    def _lost(self, worker: _Worker, what: str, status: int) -> None:
        self._end.lost.append((f"{what} {worker.name}", status))
        if what == "writer":
            text = f"the writing process of {worker.name} ended unexpectedly ({status})"
            self._end.faults.append(
                {"code": "local", "text": text, "remedy": "what reached the disk is kept"}
            )

    def _order(self, order: bytes) -> None:
        for worker in self._workers:
            with suppress(OSError):
                os.write(worker.control_fd, order)

    def _kill(self) -> None:
        for worker in self._workers:
            for pid in (worker.reader, worker.writer):
                if pid:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def _counts(self) -> Counts:
        each = [w.counters.read() for w in self._workers]
        return Counts(*(sum(values) for values in zip(*each, strict=True)))

    # ------------------------------------------------------------------ work out, faults in
    def _feed(self, seconds: float) -> None:
        """Hand out work in turn for at most ``seconds``; hear what the writers report."""
        poll = select.poll()
        for worker in self._workers:
            poll.register(worker.report_fd, select.POLLIN)
        current = None
        if not self._fed:
            current = self._workers[self._turn]
            poll.register(current.work_fd, select.POLLOUT)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for fd, events in poll.poll(left * 1000):
                if current is not None and fd == current.work_fd:
                    self._hand_out(current)
                    return
                if events & select.POLLIN:
                    self._hear(fd)
                else:  # a writer has closed its end
                    poll.unregister(fd)
            if self.signalled:
                return

    def _hand_out(self, worker: _Worker) -> None:
        """Write frames round robin until a pipe is full or the work is at its end."""
        while True:
            if worker.pending is None and not self._next_for(worker):
                return
            assert worker.pending is not None
            try:
                written = os.write(worker.work_fd, worker.pending)
            except BlockingIOError:
                return
            except OSError:  # this reader is gone or takes no more
                self._close_work()
                return
            if written < len(worker.pending):
                worker.pending = worker.pending[written:]
                return
            worker.pending = None
            self._turn = (self._turn + 1) % len(self._workers)
            worker = self._workers[self._turn]

    def _next_for(self, worker: _Worker) -> bool:
        work = next(self._work, None)
        if work is None:
            self._close_work()
            return False
        request_id = f"{self._tag}-{work.number:08x}".encode()
        token = os.urandom(24).hex().encode()
        item = (
            work.number,
            work.due_ns,
            work.isl,
            work.osl,
            work.stage,
            work.body,
            request_id,
            token[:32],
            token[32:],
        )
        worker.pending = memoryview(encode([item]))
        return True

    def _close_work(self) -> None:
        self._fed = True
        for worker in self._workers:
            if worker.pending is None or worker.work_fd >= 0:
                with suppress(OSError):
                    os.close(worker.work_fd)
                worker.work_fd = -1

    def _hear(self, fd: int) -> None:
        worker = next(w for w in self._workers if w.report_fd == fd)
        with suppress(BlockingIOError):
            worker.said += os.read(fd, 65536)
        *lines, worker.said = worker.said.split(b"\n")
        for line in lines:
            self._end.faults.append(json.loads(line))


class _signals_noted:  # noqa: N801 - a context manager, used as one word
    """SIGINT and SIGTERM are noted while a load runs; a second one gives up waiting."""

    def __init__(self, load: _Load) -> None:
        self._load = load

    def __enter__(self) -> None:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }

    def _note(self, number: int, _frame: object) -> None:
        if self._load.signalled:
            self._load._kill()
        self._load.signalled = self._load.signalled or number

    def __exit__(self, *_exc: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)


def _fork(life: Callable[[], None]) -> int:
    """Run ``life`` in a child that never returns into the parent's code."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)  # a closed pipe there is the parent's business
        life()
        status = 0
    except BaseException:
        if os.environ.get("LATDIAG_TRACEBACK"):
            traceback.print_exc()
    finally:
        os._exit(status)


def _reaped(pid: int) -> int | None:
    """The exit status of a child that ended, else None."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


def _close(fds: list[int]) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def _allow_descriptors(plan: LoadPlan) -> None:
    """Raise the soft limit of open files to what the plan may need, within the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = len(plan.slots) // plan.workers + 128
    if soft != resource.RLIM_INFINITY and soft < need:
        if hard != resource.RLIM_INFINITY and hard < need:
            raise LocalFault(
                f"{len(plan.slots)} streams need {need} open files, this system allows {hard}",
                "raise the limit (ulimit -n) or use more --workers",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
    elif not plan.slots and hard > soft:  # open loop: as many as the system grants
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
