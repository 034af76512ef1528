"""What ``latdiag report`` writes: the page of the runs that were named."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latdiag.model.errors import RunFault, UsageFault
from latdiag.model.text import shown
from latdiag.report.html.result_page import Origin


@dataclass(frozen=True, slots=True)
class Written:
    """``shows``: the document of ``--json`` whose numbers are on the page, a list of them for more
    than two runs. ``exit_code``: 12 where
    the measurement is INVALID; of a gate, that of its verdict."""

    text: str
    shows: object
    exit_code: int

    @property
    def size(self) -> str:
        """For people."""
        return f"{len(self.text.encode()) / 1e6:.2f} MB"


_INVALID = 12
#: Runs side by side.
_MOST = 6


def report_of(
    runs: Sequence[str], slos: Sequence[str], output: str, force: bool = False
) -> Written:
    """The page of ``runs``, of several each beside the first. RunFault, UsageFault and UnlikeRuns
    (unless ``force``) as of ``diagnose`` and ``compare``."""
    words = ["latdiag", "report", *runs, *(each for slo in slos for each in ("--slo", slo))]
    words += ["--force"] if force else []
    again = shown(shlex.join([*words, "-o", output]), 4_000)
    if any(Path(path).is_file() for path in runs):
        if slos or len(runs) > 1:
            raise UsageFault("a gate.json has a page of its own", "name it alone, without --slo")
        return _gate(runs[0], again)
    if len(runs) > 1:
        if slos:
            raise UsageFault("runs side by side are judged by no SLO", "name one run")
        return _side_by_side(runs, again, force)
    return _diagnosis(runs[0], slos, again)


def _diagnosis(path: str, slos: Sequence[str], again: str) -> Written:
    from latdiag.diagnosis.several import diagnosed
    from latdiag.measurement.slo import parse_slos
    from latdiag.measurement.timeline import Reader
    from latdiag.report.html.result_page import result_page
    from latdiag.store.run import Run

    run = Run.open(path)
    reader = Reader()
    result = diagnosed(run, parse_slos(slos), reader)
    text = result_page(result, reader.result(), origin_of(run.header, again))
    return Written(text, result, 0 if result.valid else _INVALID)


def _gate(path: str, again: str) -> Written:
    from latdiag.gate.document import dumped, loaded
    from latdiag.report.html.gate_page import gate_page
    from latdiag.store.documents import MAX_BYTES

    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as fault:
        raise RunFault(f"{shown(path)} cannot be read: {fault.strerror}", "check it") from fault
    measured, verdict = loaded(data, shown(path))
    document = json.loads(dumped(measured))
    return Written(gate_page(measured, verdict, document, again), document, verdict.exit_code)


def _side_by_side(runs: Sequence[str], again: str, force: bool) -> Written:
    from latdiag.diagnosis.compare import METRICS, compared, refuse_unlike
    from latdiag.diagnosis.run_facts import side_of
    from latdiag.report.html.compare_page import compare_page
    from latdiag.store.run import Run

    if len(runs) > _MOST:
        raise UsageFault(f"at most {_MOST} runs stand side by side", "name fewer runs")
    first, *others = (side_of("A" if not n else "B", Run.open(r)) for n, r in enumerate(runs))
    for other in () if force else others:
        refuse_unlike(first, other)
    comparisons = [compared(first, other, METRICS, 0) for other in others]
    shows = [each.result() for each in comparisons]
    valid = all(each.valid for each in comparisons)
    code = 0 if valid else _INVALID
    return Written(compare_page(comparisons, again), shows if shows[1:] else shows[0], code)


def origin_of(header: Mapping[str, object], again: str) -> Origin:
    """Where a page of a run with this header comes from."""
    command, created = (header.get(key) for key in ("command", "created"))
    return Origin(
        shown(command if isinstance(command, str) else "", 4_000),
        shown(created if isinstance(created, str) else "", 60),
        again,
    )
