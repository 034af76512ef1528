"""The top and the bottom of a report: what was run, what failed, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latdiag.model.terms import AUDIT_RULES
from latdiag.model.units import quantity
from latdiag.report.page import Page, Span

_TITLES = {rule.name: rule.title for rule in AUDIT_RULES}


def invalid(page: Page, result: Mapping[str, Any]) -> None:
    """The rules that the client broke: before anything else, for nothing else counts then."""
    if result.get("valid", True):
        return
    broken = result.get("invalid_because") or ["no rule was named"]
    for rule in broken:
        text = rule.get("text") or rule.get("rule") if isinstance(rule, Mapping) else rule
        page.headed(Span("INVALID:", "bold red"), page.word(text, 300))
    page.paragraph("The numbers below are not those of the server. See `latdiag explain invalid`.")
    page.gap()


def what_was_run(page: Page, result: Mapping[str, Any]) -> None:
    """Target, stack, model; requests offered, sent and failed; lengths."""
    target, load = result.get("target") or {}, result.get("load") or {}
    where = target.get("url") or ", ".join(target.get("captures") or ()) or "unknown target"
    url = page.word(where, 300)
    # The URL may be long and is worth copying: it is wrapped where the others are cut.
    page.whole(url, f"{page.word(result.get('verb') or 'result', 20)} ")
    model = page.word(target.get("model") or "unknown", 60)
    stacks = ", ".join(_stack(page, stack) for stack in result.get("stacks") or ())
    page.paragraph(f"model {model}" + (f"; {stacks}" if stacks else ""), "  ", "    ")
    page.paragraph(_requests(load), "  ", "    ")
    lengths = _lengths(page, load)
    if lengths:
        page.paragraph(lengths, "  ", "    ")
    _failures(page, result, load)


def _stack(page: Page, stack: Mapping[str, Any]) -> str:
    name = page.word(stack.get("name") or "unknown stack", 30)
    return f"{name} {page.word(stack['version'], 30)}" if stack.get("version") else name


def _requests(load: Mapping[str, Any]) -> str:
    """``240 requests in 60.0 s, 4.00/s offered, 3.90/s sent, 0 failed``."""
    parts = [f"{load.get('requests', 0)} requests"]
    if load.get("duration_s") is not None:
        parts[0] += f" in {load['duration_s']:.1f} s"
    if load.get("concurrency") is not None:
        parts.append(f"{load['concurrency']} at a time")
    for key, what in (("offered_rate", "offered"), ("sent_rate", "sent")):
        if load.get(key) is not None:
            parts.append(f"{load[key]:.3g}/s {what}")
    parts.append(f"{sum((load.get('failed') or {}).values())} failed")
    return ", ".join(parts)


def _lengths(page: Page, load: Mapping[str, Any]) -> str:
    """Mean lengths as they came, and who counted them."""
    parts = [
        f"{name} {load[key]:.4g}"
        for name, key in (("ISL", "isl_mean"), ("OSL", "osl_mean"))
        if load.get(key) is not None
    ]
    if not parts:
        return ""
    source = load.get("token_source")
    counted = f"; counts from {page.word(source, 30)}" if source else ""
    return f"{', '.join(parts)} tokens (mean{counted})"


def _failures(page: Page, result: Mapping[str, Any], load: Mapping[str, Any]) -> None:
    """One line an outcome, with one of the messages."""
    examples = {entry["outcome"]: entry.get("example") for entry in result.get("errors") or ()}
    for outcome, count in (load.get("failed") or {}).items():
        example = examples.get(outcome)
        said = f": {page.word(example, 160)}" if example else ""
        page.paragraph(f"{count} {page.word(outcome, 20)}{said}", "  ", "    ")


def self_audit(page: Page, result: Mapping[str, Any]) -> None:
    """What the client measured of itself, broken rules named."""
    audit = result.get("self_audit") or {}
    page.gap()
    stamps = audit.get("stamp_source") or "unknown"
    why = f" ({page.word(audit['stamp_reason'], 120)})" if audit.get("stamp_reason") else ""
    parts = [f"{page.word(stamps, 20)} stamps{why}"]
    parts += [_reading(page, reading) for reading in audit.get("readings") or ()]
    page.paragraph("; ".join(parts), "This client: ", "  ")


def _reading(page: Page, reading: Mapping[str, Any]) -> str:
    rule = reading.get("rule", "")
    title = _TITLES.get(rule) or page.word(reading.get("title") or rule, 60)
    if reading.get("reading") is None:
        return f"{title}: no reading ({page.word(reading.get('reason') or 'not measured', 120)})"
    unit = page.word(reading.get("unit") or "", 12)
    text = f"{title} {quantity(reading['reading'], unit)}"
    if reading.get("limit") is not None:
        text += f" (limit {quantity(reading['limit'], unit)})"
    return f"BROKEN {text}" if reading.get("broken") else text


def caveats(page: Page, result: Mapping[str, Any]) -> None:
    """One paragraph a caveat: its code, what it says, what to do about it."""
    entries = result.get("caveats") or ()
    if entries:
        page.gap()
    for entry in entries:
        text = f"{page.word(entry.get('text', ''), 400)} {page.word(entry.get('remedy', ''), 400)}"
        page.paragraph(text.strip(), f"{page.word(entry.get('code', 'LD'), 8)} ", " " * 6)


def saved(page: Page, result: Mapping[str, Any]) -> None:
    """The run's path, whole: it is what the next command takes. Of several, each."""
    page.gap()
    read = result.get("verb") == "diagnose"
    paths = [path for path in result.get("runs") or [result.get("run")] if path]
    for path in paths:
        page.whole(page.word(path, 4096), "Read " if read else "Saved ")
    if not paths:
        page.line("No run was saved.")
