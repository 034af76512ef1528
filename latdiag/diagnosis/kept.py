"""What a run holds whose writing came to an end before its time, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from latdiag.model.errors import LatdiagError
from latdiag.store.arrays import texts_where
from latdiag.store.directory import RunDirectory

_ROWS = 10_000


def kept(path: str) -> str:
    """``96 of 104 requests and 20,200 of 23,000 spans``: what is there of what was begun or
    taken; empty where there is no run that could be read."""
    try:
        run = RunDirectory(path, lambda _damage: None)
        requests = sum(batch.num_rows for batch in run.requests(["request_id"], _ROWS))
        spans = rows = 0
        for batch in run.evidence(["kind"], _ROWS):
            rows += batch.num_rows
            spans += int(texts_where(batch.column("kind"), "span".__eq__).sum())
        begun, accepted = (_counted(run.writers, name) for name in ("begun", "accepted"))
    except (LatdiagError, OSError):
        return ""
    words = [
        _of(requests, begun, "requests"),
        _of(spans, accepted, "spans"),
        _of(rows - spans, 0, "samples of metrics"),
    ]
    return " and ".join(filter(None, words)) or "nothing"


def _of(there: int, expected: int, what: str) -> str:
    if not there and not expected:
        return ""
    return f"{there:,} of {expected:,} {what}" if expected > there else f"{there:,} {what}"


def _counted(writers: Iterable[Mapping[str, object]], name: str) -> int:
    """The sum of a count over the writers that state it."""
    counts = [each.get("counts") for each in writers]
    numbers = [each.get(name) for each in counts if isinstance(each, Mapping)]
    return sum(number for number in numbers if isinstance(number, int))
