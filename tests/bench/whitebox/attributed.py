"""What latdiag says of a run with evidence, and of which of its requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latdiag.attribution.spans import columns
from latdiag.attribution.spans import explain as whitebox
from latdiag.diagnosis.diagnose import result_of
from latdiag.measurement import answered
from latdiag.stacks.catalogue import stacks
from latdiag.store.run import Run


def attributed(path: Path) -> dict[str, Any]:
    """The result, as ``diagnose --json`` prints it."""
    return result_of(Run.open(str(path)), "diagnose")


def told(path: Path) -> list[int]:
    """End to end (ns) of the requests that the breakdown is of, in the order of sending."""
    run = Run.open(str(path))
    known = columns.known_name(stacks())
    said = run.said(columns.COLUMNS, ("span",), lambda name: known.match(name) is not None)
    seen = answered.answered(run.batches(list(answered.COLUMNS)))
    parts, *_ = whitebox.explain(columns.read(said, stacks()), seen)
    assert parts is not None, "too few requests have evidence"
    found: list[int] = parts.total.tolist()
    return found
