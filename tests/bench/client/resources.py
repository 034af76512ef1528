"""CPU and memory of a process tree, read from /proc while it runs."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")

#: The number of a worker at the end of a name, which the kernel may have cut short.
_WORKER = re.compile(r"-\w?\d*$")


@dataclass(slots=True)
class Process:
    """One process of the tree. ``role`` is its comm without a worker's number."""

    role: str
    cpu_ns: int = 0
    queued_ns: int = 0
    """Time that its threads were runnable and had no CPU."""
    pss_peak: int = 0


@dataclass(slots=True)
class Usage:
    """``cpu_s`` is the tree's total from wait4(): exact, exited members included."""

    processes: list[Process] = field(default_factory=list)
    tree_pss_peak: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def role_cpu_s(self, role: str) -> float:
        return sum(p.cpu_ns for p in self.processes if p.role == role) / 1e9

    def role_pss_peak(self, role: str) -> int:
        """Bytes of the largest process of that role."""
        return max((p.pss_peak for p in self.processes if p.role == role), default=0)

    def by_role(self) -> dict[str, tuple[int, float, int]]:
        """Role -> (processes, CPU s, largest PSS in bytes)."""
        counts: dict[str, int] = defaultdict(int)
        for process in self.processes:
            counts[process.role] += 1
        return {r: (n, self.role_cpu_s(r), self.role_pss_peak(r)) for r, n in counts.items()}


class Sampler:
    """Looks at the tree under ``pid`` until stopped. PSS is dearer to read, so more seldom."""

    def __init__(self, pid: int, cpu_every_s: float = 0.05, pss_every_s: float = 0.5) -> None:
        self.root = pid
        self.cpu_every_s = cpu_every_s
        self.pss_every_s = pss_every_s
        self.usage = Usage()
        self.known: dict[int, Process] = {}
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> Usage:
        self.done.set()
        self.thread.join()
        self.usage.processes = list(self.known.values())
        return self.usage

    def pids(self, role: str) -> list[int]:
        """Living members of that role, as of the last look."""
        known = dict(self.known)
        return [p for p, process in known.items() if process.role == role and alive(p)]

    def _watch(self) -> None:
        next_pss = 0.0
        while not self.done.wait(self.cpu_every_s):
            now = monotonic()
            with_pss = now >= next_pss
            if with_pss:
                next_pss = now + self.pss_every_s
            self._look(with_pss)

    def _look(self, with_pss: bool) -> None:
        total = 0
        for pid in tree(self.root):
            process = self.known.setdefault(pid, Process(""))
            try:
                # A process takes its name after it has started: the last one counts.
                process.role = role_of(pid) or process.role
                process.cpu_ns = max(process.cpu_ns, cpu_ns(pid))
                process.queued_ns = max(process.queued_ns, queued_ns(pid))
                if with_pss:
                    pss = pss_bytes(pid)
                    process.pss_peak = max(process.pss_peak, pss)
                    total += pss
            except (OSError, IndexError, ValueError):
                continue  # it has ended between two reads
        self.usage.tree_pss_peak = max(self.usage.tree_pss_peak, total)


def alive(pid: int) -> bool:
    try:
        return _stat(pid)[0] not in "ZX"
    except (OSError, IndexError):
        return False


def tree(root: int) -> list[int]:
    """``root`` and its living descendants."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in (PROC / str(pid) / "task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def role_of(pid: int) -> str:
    """comm without the number at its end; a plain interpreter is named by its script.

    Empty of a process that has ended and waits for its parent.
    """
    if not alive(pid):
        return ""
    comm = (PROC / str(pid) / "comm").read_text().strip()
    if comm.startswith("python"):
        words = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        scripts = [w for w in words[1:] if w and not w.startswith(b"-")]
        comm = Path(scripts[0].decode(errors="replace")).name if scripts else comm
    return _WORKER.sub("", comm)


def cpu_ns(pid: int) -> int:
    """User and system time: to the tick by the process, to the ns by its living threads."""
    fields = _stat(pid)
    ticks = (int(fields[11]) + int(fields[12])) * TICK_NS
    return max(ticks, sum(on for on, _ in _schedstats(pid)))


def queued_ns(pid: int) -> int:
    return sum(waited for _, waited in _schedstats(pid))


def pss_bytes(pid: int) -> int:
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on: the name before may hold blanks."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _schedstats(pid: int) -> list[tuple[int, int]]:
    """(ns on a CPU, ns waiting for one) of each thread."""
    found = []
    for task in (PROC / str(pid) / "task").iterdir():
        on, waited, _ = (task / "schedstat").read_text().split()
        found.append((int(on), int(waited)))
    return found


def run_measured(
    process: subprocess.Popen[bytes], sampler: Sampler, timeout_s: float
) -> tuple[int, Usage]:
    """Waits for the process; (exit code, usage). On a time-out it is ended, code -9."""
    begin = monotonic()
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    try:
        _, status, used = os.wait4(process.pid, 0)
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    usage = sampler.stop()
    usage.cpu_s = used.ru_utime + used.ru_stime
    usage.wall_s = monotonic() - begin
    return process.returncode, usage
