"""What a GitHub workflow shows without any permission: a step's summary, and annotations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from latdiag.model.text import shown
from latdiag.report.gate import words
from latdiag.report.gate.markdown import comment

if TYPE_CHECKING:
    from latdiag.gate.result import Verdict

#: A larger summary is not shown at all.
MOST_BYTES = 1024 * 1024
#: Annotations of one kind that a step shows.
MOST_ANNOTATIONS = 10


def summary(verdict: Verdict, name: str, before: int = 0) -> str:
    """The text to append to ``$GITHUB_STEP_SUMMARY``, which holds ``before`` bytes; empty where it
    would grow too large and not be shown at all."""
    text = comment(verdict, name)
    return text if before + len(text.encode()) <= MOST_BYTES else ""


def annotation_commands(verdict: Verdict) -> str:
    """Workflow commands, a line each: one for the verdict if it is not good, one for each check
    that regressed, at most ten of a kind."""
    counts = {"error": 0, "warning": 0, "notice": 0}
    lines = []
    for kind, title, text in _annotations(verdict):
        counts[kind] += 1
        if counts[kind] <= MOST_ANNOTATIONS:
            lines.append(f"::{kind} title={_property(title)}::{_data(text)}\n")
    return "".join(lines)


def _annotations(verdict: Verdict) -> Iterator[tuple[str, str, str]]:
    kind = "error" if verdict.exit_code else "warning"
    if verdict.verdict in ("OK", "IMPROVED"):
        kind = "notice"
    text = f"{words.sentence(verdict)} {words.cause(verdict)}".strip()
    yield kind, f"latdiag gate: {words.headline(verdict)}", text
    if verdict.verdict == "INVALID":
        return
    for outcome in verdict.shown:
        if outcome.verdict == "REGRESSED":
            row = words.row(outcome, judged=True)
            own = "error" if outcome.level == "error" else "warning"
            yield (
                own,
                row.label,
                f"{row.base} -> {row.candidate}, {row.change}, {row.decided} ({row.held})",
            )


def _data(text: str) -> str:
    """As the runner's toolkit escapes a message."""
    return shown(text, 2_000).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(shown(text, 200)).replace(":", "%3A").replace(",", "%2C")
