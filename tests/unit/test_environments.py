"""Odd environments: right words and exit codes, and never a silent nothing."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from latdiag.cli.outcome import ending

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "tests" / "goldens" / "runs"
#: No two variables of a row are about the same: neither can hide what the other does.
VARIABLES = [
    {"COLUMNS": "0", "PYTHONIOENCODING": "ascii", "TZ": "Mars/Base"},
    {"COLUMNS": "abc", "PYTHONIOENCODING": "ascii:strict", "TZ": "::"},
    {"COLUMNS": "-5", "PYTHONIOENCODING": "latin-1", "TZ": ""},
    {"COLUMNS": "1", "LC_ALL": "C", "HOME": ""},
    {"COLUMNS": "1000000000", "LC_ALL": "xx_YY", "TMPDIR": "/no/such/place"},
    {"COLUMNS": "", "LANG": "C", "NO_COLOR": "1"},
    {"LINES": "0", "PYTHONIOENCODING": "utf-8", "TERM": "dumb"},
]


@pytest.fixture(scope="module")
def run_there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from .golden import unpack

    folder = tmp_path_factory.mktemp("odd")
    return folder / unpack(RUNS / "load-metrics.run.tar.gz", folder)


@pytest.fixture(scope="module")
def usual(run_there: Path) -> bytes:
    return said(f"latdiag diagnose {run_there}").stdout


def said(line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """What a line of a shell prints, ``latdiag`` in it being this one."""
    program = f'latdiag() {{ "{sys.executable}" -m latdiag "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", program + line],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("variables", VARIABLES, ids=lambda v: ",".join(map("=".join, v.items())))
def test_the_page_is_the_same_in_each(
    variables: dict[str, str], run_there: Path, usual: bytes
) -> None:
    odd = said(f"latdiag diagnose {run_there}", **variables)
    # The shell has words of its own for a locale that there is not.
    own = [line for line in odd.stderr.splitlines() if not line.startswith(b"bash: ")]
    assert (odd.returncode, odd.stdout, own) == (0, usual, []) and usual


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("latdiag diagnose {run} >&-", 0, ""),
        ("latdiag diagnose {run} <&-", 0, ""),
        ("latdiag diagnose {run} 2>&-", 0, ""),
        ("latdiag load http://127.0.0.1:9 <&- >&- 2>&-", 15, ""),
        ("latdiag load demo:echo --requests 3 --out {run}.x --quiet <&- >&- 2>&-", 0, ""),
        ("set -o pipefail; latdiag diagnose {run} | true", 141, ""),
        ("latdiag diagnose {run} > /dev/full", 16, "no space left"),
        ("latdiag explain ttft > /dev/full", 16, "no space left"),
        ("ulimit -v 200000; latdiag diagnose {run}", 16, "ulimit -v"),
        ("ulimit -v 300000; latdiag diagnose {run}", 16, "ulimit -v"),
        ("ulimit -n 10; latdiag load demo:echo --requests 3 --out {run}.y", 16, "ulimit -n"),
    ],
)
def test_streams_and_limits(line: str, code: int, words: str, run_there: Path) -> None:
    done = said(line.format(run=run_there))
    err = done.stderr.decode()
    # Where others hold the processor a measurement may be invalid, and says so.
    assert done.returncode in ((code, 12) if "load demo" in line else (code,)), err
    assert words in err and "Traceback" not in err and "bug" not in err and "--out" not in err


def test_a_library_that_finds_no_room_is_no_bug() -> None:
    lacking = ImportError("libarrow.so: failed to map segment from shared object")
    wrapped = ImportError("Importing the numpy C-extensions failed")
    wrapped.__cause__ = lacking
    for exc in (lacking, wrapped, MemoryError()):
        assert ending(exc).exit_code == 16 and "memory" in ending(exc).text
    assert ending(ImportError("no module named x")).exit_code == 1
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    assert ("ulimit -v" in ending(MemoryError()).text) == limited
    assert ending(OSError(errno.ENOMEM, "x")).exit_code == 16
