"""Whether the split of TTFT is right, against kernel stamps at both ends of a real path.

``pytest -m bench tests/bench/client/test_ttft_split.py -s`` as root. The path is made by
netem.sh, found in LATDIAG_LIVE_TOOLS or in ../shared/tools/live; the test is skipped without it.
LATDIAG_BENCH_CELL: requests a cell (30).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from .harness import BENCH, ROOT, ServerProcess, with_path
from .score import Truth
from .split_truth import Cell, Claim, Parts, Tap, cell, paired, true_parts

pytestmark = [pytest.mark.bench, pytest.mark.root]

TOOLS = Path(os.environ.get("LATDIAG_LIVE_TOOLS", ROOT.parent / "shared" / "tools" / "live"))
NETEM = TOOLS / "netem.sh"
CELL = int(os.environ.get("LATDIAG_BENCH_CELL", "30"))
#: Names of our own: a path that somebody else has up is left alone.
CLIENT, SERVER = "ld-bench-a", "ld-bench-b"
HOST, INTERFACE = "10.77.0.2", "tun-a"

RTTS = (0, 2, 20, 100)
THINK = (1, 5, 20, 39, 60, 300)
HEADERS = ("early", "withheld")
BODIES = {"400 B": 20, "64 KB": 16_000}
CYCLE = f"think_ms={','.join(map(str, THINK))};headers={','.join(HEADERS)}"
STREAMS = 6
#: ms; of the per-request error, and the share of wide intervals that must hold the truth.
MEDIAN_LIMIT, P95_LIMIT, COVERAGE = 0.5, 0.5, 0.95


@dataclass(frozen=True, slots=True)
class Case:
    """One run: all think times and header modes in turn."""

    rtt: int
    connections: str
    body: str
    secure: bool

    @property
    def name(self) -> str:
        return (
            f"RTT {self.rtt}, {self.connections}, {self.body}, {'TLS' if self.secure else 'plain'}"
        )

    @property
    def slug(self) -> str:
        """For ``pytest -k``."""
        return re.sub(r"\W", "", self.name.replace(",", "_").replace(" ", ""))


CASES = [
    Case(*values) for values in itertools.product(RTTS, ("reuse", "fresh"), BODIES, (False, True))
]
Key = tuple[Case, int, str]


@dataclass(slots=True)
class Matrix:
    """Pairs of truth and claim by cell, and what each run has to say."""

    pairs: dict[Key, list[tuple[Parts, Claim]]] = field(default_factory=lambda: defaultdict(list))
    remarks: list[str] = field(default_factory=list)

    def cells(self) -> dict[Key, Cell]:
        return {key: cell(pairs) for key, pairs in self.pairs.items()}

    def missed(self) -> list[str]:
        """Cells that break a limit; and all of them together, where few hold the truth.

        Of a cell with a handful of wide intervals one that misses is no sign of fewer than 95 %:
        a cell breaks that limit if so few would be rarer than one in a thousand.
        """
        from scipy.stats import binom

        lines = []
        for (case, think, headers), each in self.cells().items():
            n = int(each.wide.sum())
            held = round(n * (each.coverage() or 0))
            wrong = (each.worst(50) or 0) > MEDIAN_LIMIT or (each.worst(95) or 0) > P95_LIMIT
            if wrong or (n and binom.cdf(held, n, COVERAGE) < 0.001):
                lines.append(f"{case.name}, think {think} ms, headers {headers}")
        every = cell([pair for pairs in self.pairs.values() for pair in pairs])
        if every.wide.any() and (every.coverage() or 0) < COVERAGE:
            lines.append("all cells together: too few wide intervals hold the truth")
        return lines

    def table(self) -> str:
        head = f"{'case':<30} {'think':>5} {'headers':<8} {'n':>4} {'network ms':>18}"
        head += f" {'server ms':>18} {'connect ms':>18} {'wide %':>7} {'holds %':>8}"
        lines = [head, "-" * len(head)]
        for (case, think, headers), each in sorted(self.cells().items(), key=_order):
            coverage = each.coverage()
            lines.append(
                f"{case.name:<30} {think:>5} {headers:<8} {len(each.wide):>4}"
                f" {_pair(each.network)} {_pair(each.server)} {_pair(each.connect)}"
                f" {100 * each.wide.mean():>7.1f}"
                f" {'-' if coverage is None else f'{100 * coverage:.1f}':>8}"
            )
        every = cell([pair for pairs in self.pairs.values() for pair in pairs])
        lines.append(
            f"{'all':<45} {len(every.wide):>4} {_pair(every.network)} {_pair(every.server)}"
            f" {_pair(every.connect)}"
            f" {100 * every.wide.mean():>7.1f} {100 * (every.coverage() or 0):>8.1f}"
        )
        lines.append("median and p95 of |stated - true|; wide: stated interval over 0.5 ms, and")
        lines.append("how many of those hold the truth (to 0.1 ms). Cells over a limit:")
        lines += self.missed() or ["none"]
        return "\n".join([*lines, *self.remarks])


def _order(item: tuple[Key, Cell]) -> tuple[int, str, str, bool, int, str]:
    case, think, headers = item[0]
    return case.rtt, case.connections, case.body, case.secure, think, headers


def _pair(errors: np.ndarray) -> str:
    """Median and p95 of absolute values."""
    if not len(errors):
        return f"{'-':>18}"
    return f"{np.percentile(np.abs(errors), 50):>8.3f} {np.percentile(np.abs(errors), 95):>9.3f}"


def netem(*words: str) -> str:
    command = [str(NETEM), "--a", CLIENT, "--b", SERVER, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def hurry(said: str) -> None:
    """Real-time priority for the relay that is the path: it shall delay, not starve."""
    pid_file = re.search(r"^PIDFILE=(.+)$", said, re.MULTILINE)
    assert pid_file is not None, said
    pid = int(Path(pid_file[1]).read_text().split()[0])
    os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(20))


@pytest.fixture(scope="module")
def path() -> Iterator[None]:
    """The path between the namespaces, for the time of this file."""
    if not NETEM.exists():
        pytest.skip(f"no {NETEM}: set LATDIAG_LIVE_TOOLS")
    if os.geteuid():
        pytest.skip("network namespaces need root")
    hurry(netem("up", "--delay", "0"))
    yield
    netem("down")


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest) -> Iterator[Matrix]:
    made = Matrix()
    yield made
    if made.pairs or made.remarks:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print("\n" + made.table())


def inside(namespace: str, *words: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *words]


def run_client(case: Case, port: int, folder: Path) -> Path:
    """One latdiag load over the path; its run."""
    run = folder / "client.run"
    scheme = "https" if case.secure else "http"
    command = [sys.executable, "-m", "latdiag", "load", f"{scheme}://{HOST}:{port}"]
    command += ["--concurrency", str(STREAMS), "--requests", str(CELL * len(THINK) * len(HEADERS))]
    command += [
        "--priority",
        "realtime",
        "--isl",
        str(BODIES[case.body]),
        "--osl",
        "3",
        "--seed",
        "1",
        "--model",
        "mock",
    ]
    command += ["--connections", case.connections, "--out", str(run), "--quiet", "--json"]
    command += ["--insecure"] if case.secure else []
    environment = {**os.environ, **with_path(ROOT)}
    done = subprocess.run(
        inside(CLIENT, *command), capture_output=True, env=environment, timeout=300
    )
    assert done.returncode in (0, 12), done.stderr.decode()[-2000:]
    return run


def measure(case: Case, folder: Path) -> tuple[Truth, Tap, Path]:
    """Server, tap and client through one run."""
    flags = ["--host", HOST, "--cycle", CYCLE, "--itl-ms", "5", "--tx-stamps"]
    flags += ["--tls"] if case.secure else []
    with ServerProcess(folder / "truth.npz", flags, inside(SERVER)) as server:
        command = [sys.executable, "-m", "client.tap", "--interface", INTERFACE]
        command += ["--port", str(server.port), "--out", str(folder / "tap.npz")]
        environment = {**os.environ, **with_path(BENCH)}
        tap = subprocess.Popen(
            inside(CLIENT, *command), stdout=subprocess.PIPE, env=environment, text=True
        )
        try:
            assert tap.stdout is not None and tap.stdout.readline()
            run = run_client(case, server.port, folder)
        finally:
            tap.send_signal(signal.SIGTERM)
            tap.communicate(timeout=30)
        truth = server.stop()
    return truth, Tap(folder / "tap.npz"), run


def split_of(run: Path) -> list[dict[str, object]]:
    """latdiag's own split, one JSON line a request."""
    command = [sys.executable, str(ROOT / "examples" / "ttft_split.py"), str(run)]
    done = subprocess.run(
        command, capture_output=True, check=True, env={**os.environ, **with_path(ROOT)}
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.slug)
def test_split(path: None, matrix: Matrix, case: Case, tmp_path: Path) -> None:
    netem("set", str(case.rtt / 2))
    truth, tap, run = measure(case, tmp_path)
    if truth.void_because:
        matrix.remarks.append(f"{case.name}: server {'; '.join(truth.void_because)}")
    parts = true_parts(truth, tap)
    pairs = paired(parts, split_of(run))
    size = int(np.median(truth.requests["size"]))
    matrix.remarks.append(
        f"{case.name}: requests of {size} B, {len(pairs)} of {len(parts)} joined"
    )
    for number, pair in pairs.items():
        think = round(int(truth.requests["think_ns"][number]) / 1e6)
        headers = HEADERS[int(truth.requests["withheld"][number])]
        matrix.pairs[case, think, headers].append(pair)
    assert tap.drops == 0
    wanted = CELL * len(THINK) * len(HEADERS)
    assert len(parts) >= 0.99 * wanted, "the tap or the server's stamps miss requests"
    assert len(pairs) >= 0.95 * wanted, "the client splits too few of its requests"


def test_limits(matrix: Matrix) -> None:
    """Last: judges the cells that ran."""
    if not matrix.pairs:
        pytest.skip("no cell ran")
    missed = matrix.missed()
    assert not missed, f"{len(missed)} of {len(matrix.pairs)} cells:\n" + "\n".join(missed)
