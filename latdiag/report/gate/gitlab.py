"""The figures as OpenMetrics text for GitLab's metrics report.

It compares values as strings, so they have three significant digits: otherwise every merge request
would show every metric as changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from latdiag.model.text import shown
from latdiag.model.units import seconds

if TYPE_CHECKING:
    from latdiag.gate.result import Verdict


def metrics(verdict: Verdict) -> str:
    """A change and a level for each check, the exit code, and ``# EOF``."""
    return "".join(f"{line}\n" for line in _lines(verdict))


def _lines(verdict: Verdict) -> Iterator[str]:
    if verdict.verdict != "INVALID":
        yield "# TYPE latdiag_gate_change_ratio gauge"
        for outcome in verdict.shown:
            if outcome.effect is not None:
                labels = f'check="{_label(outcome.name)}"'
                yield f"latdiag_gate_change_ratio{{{labels}}} {outcome.effect:.3g}"
        yield "# TYPE latdiag_gate_candidate_seconds gauge"
        for outcome in verdict.shown:
            if outcome.candidate is not None and outcome.statistic != "exceed2x":
                labels = f'check="{_label(outcome.name)}"'
                value = seconds(outcome.candidate)
                yield f"latdiag_gate_candidate_seconds{{{labels}}} {value:.3g}"
    yield "# TYPE latdiag_gate_exit_code gauge"
    yield f"latdiag_gate_exit_code {verdict.exit_code}"
    yield "# EOF"


def _label(text: str) -> str:
    return shown(text).replace("\\", "\\\\").replace('"', '\\"')
