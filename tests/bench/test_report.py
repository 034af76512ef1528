"""The page of a large run: seconds after its diagnosis, and bytes.

``pytest -m bench tests/bench/test_report.py -s`` prints them, and those of the diagnosis beside.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.synthetic_run import write
from tests.unit.html_pages import check

pytestmark = pytest.mark.bench

MOST_BYTES, MOST_S = 5_000_000, 3.0
_CHILD = """
import sys, time
from latdiag.diagnosis.several import diagnosed
from latdiag.measurement.timeline import Reader
from latdiag.report.html.result_page import Origin, result_page
from latdiag.store.run import Run

def diagnosis(*readers):
    began = time.process_time()
    return diagnosed(Run.open(sys.argv[1]), (), *readers), time.process_time() - began

diagnosis()  # what is imported costs once
result, alone = diagnosis()
reader = Reader()
result, both = diagnosis(reader)
began = time.process_time()
text = result_page(result, reader.result(), Origin("c", "d", "e"))
page = time.process_time() - began
open(sys.argv[2], "w").write(text)
print(alone, max(both - alone, 0.0), page, len(text.encode()))
"""


@pytest.mark.parametrize("requests", [10_000, 1_000_000])
def test_seconds_after_the_diagnosis_and_bytes(requests: int, tmp_path: Path) -> None:
    run, file = write(str(tmp_path / "big.run"), requests), tmp_path / "page.html"
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, run, str(file)], capture_output=True, text=True, check=True
    )
    alone, reading, page, size = map(float, done.stdout.split())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"\n{requests:,} requests: diagnosis {alone:.1f} CPU s; beside it the charts' numbers"
        f" {reading:.2f} s, then the page {page:.2f} s; {size / 1e6:.2f} MB; peak {peak:.0f} MiB"
    )
    check(file.read_text(encoding="utf-8"))
    assert size <= MOST_BYTES
    if requests == 10_000:
        assert reading + page <= MOST_S
