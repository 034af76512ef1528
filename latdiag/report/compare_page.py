"""A comparison for people: 79 columns, what differs first, a bar to every interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from latdiag.model.components import COMPONENTS
from latdiag.model.units import figure
from latdiag.report import head
from latdiag.report.page import Page, Span
from latdiag.report.where import GRADES, POPULATIONS, percent

if TYPE_CHECKING:
    from rich.console import Console

_LABELS = {
    "ttft": "TTFT", "ttft_from_due": "TTFT (due)", "ttft_wire": "TTFT (wire)",
    "ttft_answer": "TTFT answer", "tpot": "TPOT", "itl": "ITL", "icl": "ICL", "e2e": "E2E",
    "response_time": "Response", "schedule_lag": "Sched. lag", "output_throughput": "Output tok/s",
    "request_rate": "Requests/s",
}  # fmt: skip
_LABEL, _SIDE, _APART, _BAR = 17, 13, 17, 16
_WHAT = 17


def render(result: Mapping[str, Any], console: Console) -> None:
    """Print a comparison; ASCII and without bars unless it is a terminal that shows them."""
    from rich.text import Text

    terminal = console.is_terminal
    utf8 = console.encoding.lower().replace("-", "").startswith("utf8")
    for line in compose(result, not (terminal and utf8), terminal).lines:
        # Text objects are never parsed for markup; soft_wrap leaves the width to the page.
        console.print(Text.assemble(*((s.text, s.style) for s in line)), soft_wrap=True)


def compose(result: Mapping[str, Any], ascii_only: bool, bars: bool) -> Page:
    """The comparison as lines of at most 79 columns."""
    page, found = Page(ascii_only), result["compared"]
    head.invalid(page, result)
    for name in ("a", "b"):
        _side(page, name.upper(), found[name])
    _differs(page, found)
    explained = not found["same_run"]
    _metrics(page, found["metrics"], bars, explained)
    for population, entry in found["components"].items():
        _components(page, population, entry, bars, explained)
    if found["components"]:
        _legend(page, found["components"])
    page.gap()
    page.paragraph(page.word(found["sentence"], 600), "", "  ")
    for note in found["notes"]:
        page.paragraph(page.word(note, 400), "", "  ")
    head.caveats(page, result)
    page.gap()
    for path in result["runs"]:
        page.whole(page.word(path, 4096), "Read ")
    return page


# ---------------------------------------------------------------------- the two sides
def _side(page: Page, name: str, side: Mapping[str, Any]) -> None:
    """``A  runs/x.run: 240 requests, 3 failed, valid; caveats LD204 LD402``."""
    for place, path in enumerate(side["runs"]):
        page.whole(page.word(path, 4096), f"{name}  " if not place else "   ")
    valid = "valid" if side["valid"] else "INVALID"
    codes = sorted({page.word(each["code"], 8) for each in side["caveats"]})
    said = f"; caveats {', '.join(codes)} (latdiag explain)" if codes else "; no caveats"
    text = f"{side['requests']} requests, {side['failed']} failed; {valid}{said}"
    page.paragraph(text, "   ", "   ")


def _differs(page: Page, found: Mapping[str, Any]) -> None:
    page.gap()
    if found["same_run"]:
        page.headed(Span("THE SAME RUN:", "bold yellow"), "A and B hold the same requests.")
    if not found["differs"]:
        page.line("Nothing that was stored of the two differs.")
    else:
        page.line(f"{'What differs':<{_WHAT}}  {'A':<29} B")
    for entry in found["differs"]:
        mark = "!" if entry["unlike"] else " "
        what = page.fit(page.word(entry["what"], 30), _WHAT)
        one, other = (_words(page, entry[side]) for side in "ab")
        if len(one) <= 29 and len(other) <= 29:
            page.line(f"{mark} {what:<{_WHAT}}{one:<30}{other}")
        else:
            page.line(f"{mark} {what}")
            page.paragraph(one, "    A  ", "       ")
            page.paragraph(other, "    B  ", "       ")
    if any(entry["unlike"] for entry in found["differs"]):
        page.line("! not the same workload")
    same = [f"{page.word(k, 30)} {_words(page, v)}" for k, v in found["alike"].items()]
    if same:
        page.paragraph("; ".join(same), "The same: ", "  ")


def _words(page: Page, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " / ".join(page.word(each, 120) for each in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else page.word(value, 200)


# ---------------------------------------------------------------------- metrics
def _metrics(page: Page, metrics: Mapping[str, Any], bars: bool, explained: bool) -> None:
    """A value line and a line of n and interval for each statistic; then what is not stated."""
    page.gap()
    _heading(page, "ms", "n (effective)")
    missing: dict[str, list[str]] = {}
    for name, found in metrics.items():
        label = _LABELS.get(name) or page.word(name, 16)
        rows = {label: found} if "difference" in found else {}
        rows |= {f"{label} {s}": found[s] for s in ("mean", "p95") if s in found}
        for row, entry in rows.items():
            apart = entry["difference"]
            below = [_count(entry[side]) for side in "ab"]
            values = [entry[side].get("value") for side in "ab"]
            _row(page, row, values, apart, below, _reach([apart]), bars)
            if explained and (why := _why(apart)):
                missing.setdefault(page.word(why, 240), []).append(row)
    for why, rows_ in missing.items():
        page.paragraph(f"{', '.join(rows_)}: {why}", "", "  ")


def _heading(page: Page, unit: str, below: str) -> None:
    page.line(f"{unit:<{_LABEL}}{'A':>{_SIDE}}{'B':>{_SIDE}}{'B - A':>{_APART}}")
    page.line(f"{'':<{_LABEL}}{below:>{_SIDE}}{'':>{_SIDE}}{'95 % interval':>{_APART}}")


def _row(
    page: Page,
    label: str,
    values: Sequence[float | None],
    apart: Mapping[str, Any],
    below: Sequence[str],
    reach: float,
    bars: bool,
) -> None:
    """Two lines: A, B, difference and bar; below them n or shares, and the interval."""
    sides = "".join(f"{_number(value):>{_SIDE}}" for value in values)
    bar = f" {_interval_bar(page, apart, reach)}" if bars else ""
    label = page.fit(label, _LABEL - 1)
    page.line(f"{label:<{_LABEL}}{sides}{_signed(apart['value']):>{_APART}}{bar}")
    under = "".join(f"{text:>{_SIDE}}" for text in below)
    if (under + _bounds(apart)).strip():
        page.line(f"{'':<{_LABEL}}{under} {_bounds(apart):>{_APART - 1}}")


def _number(value: float | None) -> str:
    return "-" if value is None else figure(value, "ms")


def _signed(value: float | None) -> str:
    """With its sign; 0 has none."""
    if value is None:
        return "-"
    text = figure(value, "ms")
    return f"+{text}" if value > 0 else text


def _bounds(apart: Mapping[str, Any]) -> str:
    if apart["lo"] is None or apart["hi"] is None:
        return ""
    return f"[{_signed(apart['lo'])}, {_signed(apart['hi'])}]"


def _count(side: Mapping[str, Any]) -> str:
    """n, and what it is worth where that is less: ``20.7k (1.2k)``."""
    n, worth = side.get("n"), side.get("n_effective")
    if n is None:
        return ""
    return _short(n) if worth in (None, n) else f"{_short(n)} ({_short(worth)})"


def _short(n: float) -> str:
    """A count in at most five characters."""
    if n < 10_000:
        return f"{n:.0f}"
    return f"{n / 1e3:.0f}k" if n < 999_500 else f"{n / 1e6:.1f}M"


def _why(apart: Mapping[str, Any]) -> str | None:
    """Why there is no value, or no interval."""
    if apart.get("refused"):
        return str(apart["refused"])
    return str(apart["method"]) if apart["contains_zero"] is None else None


# ---------------------------------------------------------------------- components
def _components(
    page: Page, population: str, found: Mapping[str, Any], bars: bool, explained: bool
) -> None:
    """One population: the whole, then every class in time order, with its shares."""
    page.gap()
    whole = found["total"]
    who = POPULATIONS.get(population) or page.word(population, 30)
    counts = [f"{side.upper()} {_count(whole[side])}" for side in "ab"]
    title = f"Where the time of {who} went, ms a request (n: {', '.join(counts)})"
    page.paragraph(title, "", "  ")
    if whole["difference"].get("refused"):
        page.paragraph(page.word(whole["difference"]["refused"], 300), "  insufficient: ", "    ")
        return
    _heading(page, "ms", "share, grade")
    names = ["total", *(name for name in COMPONENTS if name in found)]
    reach = _reach([found[name]["difference"] for name in names])
    missing: dict[str, list[str]] = {}
    for name in names:
        entry = found[name]
        label = "end to end" if name == "total" else "+".join(entry.get("members") or [name])
        if len(label) >= _LABEL:
            page.paragraph(label.replace("+", " + "), "", "  ")
            label = ""
        below = ["", ""] if name == "total" else [_share(page, entry[side]) for side in "ab"]
        values = [entry[side]["ms"] for side in "ab"]
        _row(page, label, values, entry["difference"], below, reach, bars)
        if explained and (why := _why(entry["difference"])):
            missing.setdefault(page.word(why, 240), []).append(name)
    for why, names_ in missing.items():
        page.paragraph(f"{', '.join(names_)}: {why}", "  ", "    ")


def _share(page: Page, side: Mapping[str, Any]) -> str:
    """``41 % A``: share and grade."""
    share = side.get("share")
    text = "unknown" if share is None else f"{percent(share)} %"
    return f"{text} {page.word(side.get('grade') or '?', 1)}"


def _legend(page: Page, components: Mapping[str, Any]) -> None:
    grades = {
        str(entry[side].get("grade"))
        for found in components.values()
        for name, entry in found.items()
        if isinstance(entry, Mapping) and name != "total"
        for side in "ab"
    }
    text = "; ".join(f"{grade} {GRADES[grade]}" for grade in sorted(grades & set(GRADES)))
    if text:
        page.paragraph(text, "  grade: ", "    ")


# ---------------------------------------------------------------------- bars
def _reach(differences: Sequence[Mapping[str, Any]]) -> float:
    """The farthest from 0 that any of these goes."""
    known = [d for d in differences if d["value"] is not None and d["lo"] is not None]
    return max((abs(d[key]) for d in known for key in ("value", "lo", "hi")), default=0.0)


def _interval_bar(page: Page, apart: Mapping[str, Any], reach: float) -> str:
    """The interval on a line with 0 in its middle; nothing without an interval."""
    if apart["lo"] is None or apart["hi"] is None or reach <= 0.0:
        return ""
    half = _BAR // 2

    def place(value: float) -> int:
        return half + round(value / reach * (half - 1))

    marks = [" "] * (_BAR + 1)
    line, dot, axis = ("-", "o", "|") if page.ascii_only else ("─", "●", "│")
    for at in range(place(apart["lo"]), place(apart["hi"]) + 1):
        marks[at] = line
    marks[half] = axis
    marks[place(apart["value"])] = dot
    return "".join(marks)
