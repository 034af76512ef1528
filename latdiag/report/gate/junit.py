"""The verdict as JUnit XML: a case for each check. The reason stands in the element's body, since
GitLab shows neither the message nor the properties."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from latdiag.model.text import shown
from latdiag.report.gate import words

if TYPE_CHECKING:
    from latdiag.gate.result import Outcome, Verdict


def junit(verdict: Verdict, name: str) -> str:
    """``failure`` for what fails the gate, ``skipped`` for what only warns or is not decided,
    ``error`` where the measurement is void."""
    suite = Xml.Element("testsuite", name=shown(f"latdiag gate {name}", 120))
    for outcome in verdict.shown:
        case = Xml.SubElement(
            suite, "testcase", classname="latdiag.gate", name=shown(outcome.name)
        )
        tag = _tag(outcome, verdict)
        text = _reason(outcome, verdict)
        if tag:
            Xml.SubElement(case, tag, message=shown(verdict.verdict)).text = shown(text, 1_000)
        else:
            Xml.SubElement(case, "system-out").text = shown(text, 1_000)
    tags = [_tag(outcome, verdict) for outcome in verdict.shown]
    suite.set("tests", str(len(tags)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(tags.count(tag)))
    Xml.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(suite, "unicode") + "\n"


def _tag(outcome: Outcome, verdict: Verdict) -> str:
    if verdict.verdict == "INVALID":
        return "error"
    if outcome.verdict == "REGRESSED":
        return "failure" if outcome.level == "error" else "skipped"
    if outcome.verdict == "INCONCLUSIVE":
        fails = outcome.level == "error" and verdict.exit_code == 11
        return "failure" if fails else "skipped"
    return ""


def _reason(outcome: Outcome, verdict: Verdict) -> str:
    if verdict.verdict == "INVALID":
        return words.sentence(verdict)
    row = words.row(outcome, judged=True)
    proved = f"{row.decided} {row.held}".rstrip()
    text = f"{row.verdict}: {row.base} -> {row.candidate}, {row.change}; proved {proved}"
    return f"{text}. {words.cause(verdict)}" if outcome.verdict == "REGRESSED" else text
