"""The top and the bottom of a report: what was run, what failed, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from latdiag.model.terms import AUDIT_RULES
from latdiag.model.units import quantity
from latdiag.report.page import Page, Span

if TYPE_CHECKING:
    from latdiag.diagnosis.result import InvalidBecause, Load, Result, StackFound
    from latdiag.measurement.validity import Reading

_TITLES = {rule.name: rule.title for rule in AUDIT_RULES}


def invalid(page: Page, broken: Sequence[InvalidBecause]) -> None:
    """The rules that the client broke: before anything else, for nothing else counts then."""
    if not broken:
        return
    for rule in broken:
        page.headed(Span("INVALID:", "bold red"), page.word(rule.text or rule.rule, 300))
    page.paragraph("The numbers below may not describe the server. See `latdiag explain invalid`.")
    page.gap()


def what_was_run(page: Page, result: Result) -> None:
    """Target, stack, model; requests offered, sent and failed; lengths."""
    target, load = result.target, result.load
    where = target.url or ", ".join(target.captures) if target is not None else None
    url = page.word(where or "unknown target", 300)
    # The URL may be long and is worth copying: it is wrapped where the others are cut.
    page.whole(url, f"{page.word(result.verb or 'result', 20)} ")
    if target is not None and target.behind:
        page.whole(page.word(target.behind, 300), "  behind it ")
    model = page.word((target and target.model) or "unknown", 60)
    stacks = ", ".join(_stack(page, stack) for stack in result.stacks)
    page.paragraph(f"model {model}" + (f"; {stacks}" if stacks else ""), "  ", "    ")
    if load is None:
        page.paragraph("0 requests, 0 failed", "  ", "    ")
        return
    page.paragraph(_requests(load), "  ", "    ")
    lengths = _lengths(page, load)
    if lengths:
        page.paragraph(lengths, "  ", "    ")
    _failures(page, result, load.failed)


def _stack(page: Page, stack: StackFound) -> str:
    name = page.word(stack.name or "unknown stack", 30)
    return f"{name} {page.word(stack.version, 30)}" if stack.version else name


def _requests(load: Load) -> str:
    """``240 requests in 60.0 s, 4.00/s offered, 3.90/s sent, 0 failed``."""
    parts = [f"{load.requests} requests"]
    if load.duration_s is not None:
        parts[0] += f" in {load.duration_s:.1f} s"
    if load.concurrency is not None:
        parts.append(f"{load.concurrency} at a time")
    for rate, what in ((load.offered_rate, "offered"), (load.sent_rate, "sent")):
        if rate is not None:
            parts.append(f"{rate:.3g}/s {what}")
    parts.append(f"{sum(load.failed.values())} failed")
    return ", ".join(parts)


def _lengths(page: Page, load: Load) -> str:
    """Mean lengths as they came, and who counted them."""
    lengths = (("ISL", load.isl_mean), ("OSL", load.osl_mean))
    parts = [f"{name} {mean:.4g}" for name, mean in lengths if mean is not None]
    if not parts:
        return ""
    source = load.token_source
    counted = f"; counts from {page.word(source, 30)}" if source else ""
    return f"{', '.join(parts)} tokens (mean{counted})"


def _failures(page: Page, result: Result, failed: Mapping[str, int]) -> None:
    """One line an outcome, with one of the messages."""
    examples = {each.outcome: each.example for each in result.errors}
    for outcome, count in failed.items():
        example = examples.get(outcome)
        said = f": {page.word(example, 160)}" if example else ""
        page.paragraph(f"{count} {page.word(outcome, 20)}{said}", "  ", "    ")


def self_audit(page: Page, result: Result) -> None:
    """What the client measured of itself, broken rules named."""
    audit = result.self_audit
    page.gap()
    parts = ["unknown stamps"]
    if audit is not None:
        why = f" ({page.word(audit.stamp_reason, 120)})" if audit.stamp_reason else ""
        parts = [f"{page.word(audit.stamp_source or 'unknown', 20)} stamps{why}"]
        parts += [_reading(page, reading) for reading in audit.readings]
    page.paragraph("; ".join(parts), "This client: ", "  ")


def _reading(page: Page, reading: Reading) -> str:
    title = _TITLES.get(reading.rule) or page.word(reading.title or reading.rule, 60)
    if reading.reading is None:
        return f"{title}: not measured ({page.word(reading.reason or 'not measured', 120)})"
    unit = page.word(reading.unit, 12)
    text = f"{title} {quantity(reading.reading, unit)}"
    if reading.limit is not None:
        text += f" (limit {quantity(reading.limit, unit)})"
    return f"BROKEN {text}" if reading.broken else text


def saved(page: Page, result: Result) -> None:
    """The run's path, whole: it is what the next command takes. Of several, each."""
    page.gap()
    paths = [path for path in result.runs or (result.run,) if path]
    for path in paths:
        page.whole(page.word(path, 4096), "Read " if result.verb == "diagnose" else "Saved ")
    if not paths:
        page.line("No run was saved.")
