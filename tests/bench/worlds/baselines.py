"""What others would have said of the same probes: answers that cost nothing, the split that people
make by hand, and an older estimator of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .client import Row
from .judge import Answer, Book, Stated, answer_of

#: The estimator that the reference was measured with.
OLD = "ff408fd"
_ROOT = Path(__file__).parents[3]
#: Run in a process whose latdiag is another checkout's, where ``result_of`` may lie elsewhere.
_READER = """
import json, sys
from latdiag.store.run import Run
try:
    from latdiag.diagnosis.diagnose import result_of
except ImportError:
    from latdiag.report.result import result_of
for line in sys.stdin:
    try:
        result = result_of(Run.open(line.strip()), "diagnose")
        result = result.to_json() if hasattr(result, "to_json") else result
        found = json.dumps(result, default=str)
    except Exception as fault:
        found = json.dumps({"fault": repr(fault)})
    print(found, flush=True)
"""


def commonest(books: Iterable[Book], number: int = 3) -> Answer:
    """Always the components that lead most often, as one class."""
    led = Counter(book.ranked("mean")[0] for book in books if book.n)
    return Answer("bottleneck", frozenset(name for name, _ in led.most_common(number)))


AMBIGUOUS = Answer("ambiguous")


def naive(rows: Sequence[Row]) -> Answer:
    """Queue = first byte less the round trip, prefill = first byte to first token, decode = the
    rest: what dashboards and scripts do."""
    sums: Counter[str] = Counter()
    for row in rows:
        if not row.ok or row.head is None or row.done is None:
            continue
        first = next(at for at, event in row.events if event.tokens)
        sums["network"] += row.trip
        sums["queue"] += max(0, row.head - row.sent - row.trip)
        sums["prefill"] += first - row.head
        sums["decode"] += row.done - first
    total = sum(sums.values())
    if not total:
        return Answer("insufficient")
    first_of, _ = sums.most_common(1)[0]
    classes = tuple(
        Stated(frozenset({name}), value / total, None, None) for name, value in sums.items()
    )
    return Answer("bottleneck", frozenset({first_of}), "mean", classes)


def another(runs: Sequence[Path], tree: Path) -> Iterator[Answer | None]:
    """What the estimator in the checkout ``tree`` says of each run; None where it cannot read
    one."""
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", _READER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
        cwd=tree,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for run in runs:
            process.stdin.write(f"{run}\n")
            process.stdin.flush()
            found = json.loads(process.stdout.readline() or '{"fault": "it ended"}')
            yield None if "fault" in found else answer_of(found)
        process.stdin.close()


def old_tree(at: Path) -> Path | None:
    """A checkout of the old estimator under ``at``; None where this is no clone of it."""
    tree = at / OLD
    if tree.is_dir():
        return tree
    archive = subprocess.run(
        ["git", "-C", str(_ROOT), "archive", OLD, "latdiag"], capture_output=True
    )
    if archive.returncode:
        return None
    tree.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    return tree
