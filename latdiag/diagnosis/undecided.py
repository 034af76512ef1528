"""Whether a probe that is under way should go on."""

from __future__ import annotations

from latdiag.diagnosis.diagnose import result_of
from latdiag.diagnosis.longer import would_decide
from latdiag.store.run import Run

#: It may become so many times as long: what that does not decide is left open.
_TIMES = 4


def undecided(run_path: str) -> bool:
    """Whether the verdict on the run is open, and more requests like its own would decide it."""
    found = result_of(Run.open(run_path), "probe")
    verdict, parts = found.verdict, found.parts
    if verdict is None or parts is None or verdict.kind != "ambiguous":
        return False
    return would_decide(parts, _TIMES)
