"""The comment of a pull request: the verdict first, at most 40 lines, found again by a marker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from latdiag.model.text import shown
from latdiag.report.gate import words

if TYPE_CHECKING:
    from latdiag.gate.result import Verdict

#: Characters of a comment on GitHub; no comment of ours is near it, and none may be cut in a tag.
MOST_CHARACTERS = 65_536
MOST_LINES = 40
_MOST_CHECKS, _MOST_PARTS = 12, 8
_SPECIAL = re.compile(r"([\\`*_\[\]<|#~])")
_NAME = re.compile(r"[^A-Za-z0-9._]+")
_MENTION = re.compile(r"(?<!\w)@(?=\w)")


def comment(verdict: Verdict, name: str) -> str:
    """The comment. ``name``: of this gate, so that several keep a comment each."""
    return "\n".join(_lines(verdict, name)) + "\n"


def marker(name: str) -> str:
    """The hidden first line, by which the comment is found and replaced."""
    return f"<!-- latdiag-gate:{_NAME.sub('-', name).strip('-')[:60] or 'default'} -->"


def escaped(text: object, limit: int = 300) -> str:
    """Text from outside: no markup of it, no mention, no line break."""
    clean = _SPECIAL.sub(r"\\\1", shown(text, limit))
    return _MENTION.sub("@\u2060", clean)


def _lines(verdict: Verdict, name: str) -> Iterator[str]:
    yield marker(name)
    yield f"### latdiag gate: {escaped(words.headline(verdict))}"
    said = escaped(words.sentence(verdict), 2_000)
    why = escaped(words.cause(verdict))
    yield f"**{said}** {why}".rstrip()
    yield ""
    yield from _checks(verdict)
    if verdict.requests:
        yield ""
        yield from _components(verdict)
    yield ""
    yield words.method(verdict)
    passed = "passed" if verdict.verdict != "INVALID" else "**not passed**"
    yield (
        f"<details><summary>Checks that could have voided this: {passed}</summary>"
        f"Twins {words.checks(verdict)}</details>"
    )
    yield (
        "<details><summary>Repeat it</summary><code>latdiag gate replay gate.json</code></details>"
    )


def _checks(verdict: Verdict) -> Iterator[str]:
    yield "| | base | this PR | change | decided by | verdict |"
    yield "|---|---:|---:|---:|---|---|"
    judged = verdict.verdict != "INVALID"
    outcomes = sorted(verdict.shown, key=lambda each: each.verdict != "REGRESSED")
    for outcome in islice(outcomes, _MOST_CHECKS):
        row = words.row(outcome, judged)
        decided = f"{row.decided} ({row.held})" if row.held else row.decided
        word = f"**{row.verdict}**" if row.verdict == "REGRESSED" else row.verdict
        cells = (escaped(row.label), row.base, row.candidate, row.change, decided, word)
        yield f"| {' | '.join(cells)} |"
    if len(outcomes) > _MOST_CHECKS:
        yield f"| and {len(outcomes) - _MOST_CHECKS} more in gate.json | | | | | |"


def _components(verdict: Verdict) -> Iterator[str]:
    yield "| where the change is (mean, ms a request) | base | this PR | change | evidence |"
    yield "|---|---:|---:|---:|---|"
    for each in islice(verdict.components, _MOST_PARTS):
        base, candidate, apart, interval = words.component_cells(each, verdict.requests)
        strong = "**" if each.name == verdict.cause else ""
        yield (
            f"| {strong}{escaped(each.name, 80)}{strong} | {base} | {candidate} |"
            f" {strong}{apart}{strong} {interval} | {escaped(verdict.evidence, 80)} |"
        )
    if len(verdict.components) > _MOST_PARTS:
        yield f"| and {len(verdict.components) - _MOST_PARTS} more in gate.json | | | | |"
