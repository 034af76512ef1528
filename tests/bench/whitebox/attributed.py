"""What latdiag says of a run with evidence, and of which of its requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latdiag.attribution import reading
from latdiag.attribution.accounts import Rank
from latdiag.diagnosis.diagnose import result_of
from latdiag.store.run import Run


def attributed(path: Path) -> dict[str, Any]:
    """The result, as ``diagnose --json`` prints it."""
    return result_of(Run.open(str(path)), "diagnose").to_json()


def told(path: Path) -> list[int]:
    """End to end (ns) of the requests that the breakdown is of, in the order of sending."""
    accounts = reading.read(Run.open(str(path))).accounts()
    (parts,) = [account.parts for account in accounts if account.rank is Rank.SPANS]
    assert parts is not None, "too few requests have evidence"
    totals: list[int] = parts.total.tolist()
    return totals
