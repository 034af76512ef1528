"""What ``latdiag report`` writes: the page of the runs that were named."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latdiag.model.text import shown
from latdiag.report.html.result_page import Origin, result_page


@dataclass(frozen=True, slots=True)
class Written:
    """``shows``: the document of ``--json`` whose numbers are on the page. ``exit_code``: 12 where
    the measurement is INVALID."""

    text: str
    shows: object
    exit_code: int

    @property
    def size(self) -> str:
        """For people."""
        return f"{len(self.text.encode()) / 1e6:.2f} MB"


_INVALID = 12


def report_of(runs: Sequence[str], slos: Sequence[str], output: str) -> Written:
    """The page of ``runs``. RunFault and UsageFault as of ``diagnose``."""
    from latdiag.diagnosis.several import diagnosed
    from latdiag.measurement.slo import parse_slos
    from latdiag.measurement.timeline import Reader
    from latdiag.store.run import Run

    run = Run.open(*runs)
    reader = Reader()
    result = diagnosed(run, parse_slos(slos), reader)
    words = ["latdiag", "report", *runs, *(each for slo in slos for each in ("--slo", slo))]
    origin = origin_of(run.header, [*words, "-o", output])
    text = result_page(result, reader.result(), origin)
    return Written(text, result, 0 if result.valid else _INVALID)


def origin_of(header: Mapping[str, object], again: Sequence[str]) -> Origin:
    """Where a page of a run with this header comes from."""
    command, created = (header.get(key) for key in ("command", "created"))
    return Origin(
        shown(command if isinstance(command, str) else "", 4_000),
        shown(created if isinstance(created, str) else "", 60),
        shown(shlex.join(again), 4_000),
    )
