"""What was exported, for people and programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latdiag.export.attempts import Attempts
    from latdiag.export.delivery import Delivery


@dataclass(frozen=True, slots=True)
class NamedTrace:
    """A trace by which a request can be looked up."""

    trace_id: str
    request_id: str
    ns: int


@dataclass(frozen=True, slots=True)
class Exported:
    """``to``: the form; ``place``: URL or file. Requests: ``of`` in the workload, ``matching``
    those asked for, ``exported`` of them; ``unplaced``: those without a time of day.
    ``rows``: of a file. ``delivery``: of traces."""

    to: str
    place: str
    runs: tuple[str, ...]
    of: int
    matching: int
    exported: int
    unplaced: int = 0
    sampled: bool = False
    rows: int | None = None
    delivery: Delivery | None = None
    slowest: tuple[NamedTrace, ...] = ()

    @property
    def complete(self) -> bool:
        return self.delivery is None or self.delivery.complete

    def to_json(self) -> dict[str, object]:
        """The document of ``export --json``."""
        found: dict[str, object] = {
            "schema": 1,
            "verb": "export",
            "run": self.runs[0],
            "runs": list(self.runs),
            "to": self.to,
            "place": self.place,
            "complete": self.complete,
            "requests": {
                "of": self.of,
                "matching": self.matching,
                "exported": self.exported,
                "sampled": self.sampled,
                "unplaced": self.unplaced,
            },
        }
        if self.rows is not None:
            found["rows"] = self.rows
        if self.delivery is not None:
            sent = self.delivery
            found["spans"] = {
                name: getattr(sent, name)
                for name in ("spans", "delivered", "rejected", "lost", "unsent")
            }
            found["batches"] = {"sent": sent.batches, "repeated": sent.repeated}
            found["reasons"] = [
                {"text": text, "spans": spans} for text, spans in sent.reasons.most_common()
            ]
            found["warnings"] = list(sent.warnings)
            found["slowest"] = list(self.slowest)
        return found


def exported(
    attempts: Attempts,
    to: str,
    place: str,
    rows: int | None = None,
    delivery: Delivery | None = None,
    slowest: tuple[NamedTrace, ...] = (),
) -> Exported:
    """Of traces and timelines, which have no place for requests without a time of day, or of
    tables (``rows``), which have all that were chosen."""
    timed = delivery is not None or to == "perfetto"
    return Exported(
        to=to,
        place=place,
        runs=tuple(attempts.paths),
        of=attempts.choice.of,
        matching=attempts.choice.matching,
        exported=len(attempts) if timed else len(attempts.table),
        unplaced=attempts.unplaced if timed else 0,
        sampled=attempts.choice.sampled,
        rows=rows,
        delivery=delivery,
        slowest=slowest,
    )
