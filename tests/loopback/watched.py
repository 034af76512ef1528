"""A ``latdiag collect`` that is watched: its memory, and one that behaves beside the others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Watched:
    """A ``latdiag collect`` that runs, and what was seen of it. Memory: of its largest process."""

    grpc: str
    http: str
    run: Path
    process: subprocess.Popen[str]
    rss_mb: list[float] = field(default_factory=list)
    behaved: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    stderr: str = ""

    @property
    def code(self) -> int | None:
        return self.process.returncode

    def tree(self) -> list[int]:
        """It and its children."""
        found = [self.process.pid]
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{found[0]}/task/{found[0]}/children").read_text()
            found += map(int, text.split())
        return found


@contextlib.contextmanager
def watched(folder: Path, name: str, *options: str) -> Iterator[Watched]:
    """A real ``latdiag collect``, with one that behaves beside whatever the block does. At the
    end it is asked to end; then its result, its words and its exit code are there."""
    run = folder / f"{name}.run"
    command = [sys.executable, "-m", "latdiag", "collect", "--json", "--duration", "1h"]
    command += ["--otlp", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0", "--wait", "0s"]
    process = subprocess.Popen(
        [*command, "--out", str(run), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    doors = re.findall(r"127\.0\.0\.1:\d+", line)
    assert len(doors) == 2, line
    found = Watched(doors[0], doors[1], run, process)
    beside = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "otlp_watch.py"), *doors],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    over = threading.Event()
    looking = threading.Thread(target=_look, args=(found, over))
    looking.start()
    try:
        assert beside.stdout is not None
        beside.stdout.readline()  # it has begun
        yield found
        time.sleep(0.5)
    finally:
        found.behaved = json.loads(beside.communicate(input="")[0])
        over.set()
        looking.join()
        process.send_signal(signal.SIGINT)
        out, found.stderr = process.communicate(timeout=60)
        with contextlib.suppress(ValueError):
            found.result = json.loads(out)


def _look(found: Watched, over: threading.Event) -> None:
    page = os.sysconf("SC_PAGE_SIZE") / 1e6
    while not over.wait(0.02):
        total = 0.0
        for pid in found.tree():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/statm").read_text().split()
                total = max(total, int(fields[1]) * page)
        found.rss_mb.append(total)
