"""What latdiag says of recorded runs and captures, held against the texts in ``tests/goldens``.

``tests/goldens/runs`` holds runs of the demo stack, ``collected`` one of ``collect`` at a Dynamo
while a load ran; other recordings are captures of real servers.
REWRITE_GOLDEN=1 writes the expected texts anew.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
from pathlib import Path

from latdiag.cli import run

TESTS = Path(__file__).parents[1]
CAPTURES = TESTS / "captures"
RUNS = TESTS / "goldens" / "runs"
COLLECTED = TESTS / "goldens" / "collected" / "dynamo.run.tar.gz"
EXPECTED = TESTS / "goldens" / "expected"
#: Probes of real servers on H200s; they are large, and lie beside the project or nowhere.
SHARED = TESTS.parents[1] / "shared" / "captures" / "vllm-0.24.0-h200-probes"


def said(*args: str) -> str:
    """Everything a command prints, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(list(args))
    return f"{out.getvalue()}exit {code}\n"


def unpack(archive: Path, into: Path) -> str:
    """The name of the run in ``archive``, which then lies in ``into``."""
    with tarfile.open(archive) as packed:
        packed.extractall(into, filter="data")
    return archive.name.removesuffix(".tar.gz")


def check(name: str, text: str) -> None:
    """``text`` is what is expected under ``name``, to the byte."""
    path = EXPECTED / f"{name}.txt.gz"
    if os.environ.get("REWRITE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        return
    expected = gzip.decompress(path.read_bytes()).decode()
    if text != expected:
        import difflib

        lines = difflib.unified_diff(expected.splitlines(), text.splitlines(), lineterm="", n=1)
        raise AssertionError(f"{name} differs:\n" + "\n".join(line[:300] for line in lines))
