"""Where the time went, as one table: all requests, and the slowest 5 % where that is stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latdiag.diagnosis.result import Breakdown, Result, Share
from latdiag.model.components import COMPONENTS
from latdiag.model.text import shown
from latdiag.model.units import GLUE, quantity
from latdiag.report.page import Block, Page
from latdiag.report.where import percent, share_bounds

#: What a grade says of a share, in one word.
SURE = {"A": "measured", "B": "measured", "C": "inferred", "D": "bounded", "E": "merged"}
_LABEL, _TIME, _SHARE, _SURE, _BAR = 24, 11, 17, 10, 15
#: Below this share a component has no row of its own.
_SMALL = 0.01
#: From this share on it has one, however little room there is; so many lines at most.
_LARGE, _MOST = 0.05, 9


@dataclass(frozen=True, slots=True)
class _Row:
    """One component: its share of all requests, and of the slowest where that is stated."""

    name: str
    mean: Share
    tail: Share | None

    @property
    def weight(self) -> float:
        shares = [each.share or 0.0 for each in (self.mean, self.tail) if each is not None]
        return max(map(abs, shares))

    @property
    def label(self) -> str:
        return " + ".join(shown(member, 20) for member in self.mean.members or (self.name,))

    @property
    def lines(self) -> int:
        """A name that is too long for its column has a line of its own."""
        return 1 if len(self.label) < _LABEL else 2


def block(result: Result) -> Block | None:
    """The table; None where nothing was broken down."""
    mean = result.breakdown("mean")
    if mean is None or not mean.n:
        return None
    large = [row.lines for row in _rows(result, mean) if row.weight >= _LARGE]
    least = min(max(4, 2 + sum(large)), _MOST)
    return Block(lambda page, room: _draw(page, room, result, mean), least, 5, apart=True)


def _rows(result: Result, mean: Breakdown) -> list[_Row]:
    """All components, in time order."""
    tail = _stated(result)
    return [
        _Row(name, mean.shares[name], tail.shares.get(name) if tail is not None else None)
        for name in COMPONENTS
        if name in mean.shares
    ]


def _stated(result: Result) -> Breakdown | None:
    """Of the slowest requests, where these are enough."""
    tail = result.breakdown("p95_tail")
    return tail if tail is not None and tail.insufficient is None else None


def _draw(page: Page, room: int, result: Result, mean: Breakdown) -> None:
    tail, stated = result.breakdown("p95_tail"), _stated(result)
    if mean.insufficient:
        why = page.word(mean.insufficient, 200)
        page.paragraph(f"Where the time went is not stated: {why}", "", "  ")
        return
    page.line(_title(mean, tail, stated))
    rows = _rows(result, mean)
    kept, floor = _chosen(rows, room - 1)
    leaves = result.leaves.get("mean") or {}
    spare = room - 2 - sum(row.lines for row in kept)
    for row in kept:
        _row(page, row, mean.n, stated)
        parts = _leaves(page, row.name, leaves)
        if parts and spare > 0:
            page.line(parts)
            spare -= 1
    hidden = [row.label for row in rows if row not in kept]
    if hidden:
        page.line(page.word(f"under {floor} %: {', '.join(hidden)}", page.width))
    if mean.unknown:
        page.line(f"not known without a client: {', '.join(mean.unknown)}")


def _title(mean: Breakdown, tail: Breakdown | None, stated: Breakdown | None) -> str:
    inside = "inside the server, " if mean.interval == "server" else ""
    left = f"{inside}mean of {mean.n} requests: {_ms(mean.total_ns, mean.n)}"
    if stated is not None:
        right = f"slowest 5 % ({stated.n}): {_ms(stated.total_ns, stated.n)}"
        return f"{left:<{_LABEL + _TIME + _SHARE - 6}}{right:>33}"
    n = 0 if tail is None else tail.n
    return f"{left:<{_LABEL + _TIME + _SHARE}}{f'slowest 5 %: {n}, too few':>27}"


def _chosen(rows: Sequence[_Row], room: int) -> tuple[list[_Row], int]:
    """The rows that are shown, in time order, and the percent that the others stay under."""
    order = sorted(rows, key=lambda row: -row.weight)
    while order and order[-1].weight < _SMALL:
        order.pop()
    while len(order) > 1 and sum(row.lines for row in order) > room - 1:
        order.pop()
    largest = max((row.weight for row in rows if row not in order), default=0.0)
    floor = 1 if largest < _SMALL else int(100 * largest) + 1
    return [row for row in rows if row in order], floor


def _row(page: Page, row: _Row, n: int, tail: Breakdown | None) -> None:
    """``queue  1 522 ms  80 % [76, 83]  measured  ####``, or the slowest in place of the bar."""
    label = page.word(row.label, 300)
    if row.lines > 1:
        page.line(page.word(label, page.width))
        label = ""
    text = f"{label:<{_LABEL}}{_ms(row.mean.sum_ns, n):>{_TIME}}{_shown(row.mean):>{_SHARE}}"
    if tail is None:
        sure = SURE.get(row.mean.grade, "unknown")
        page.line(f"{text}  {sure:<{_SURE}}{page.bar(row.mean.share or 0.0, _BAR)}")
        return
    if row.tail is not None:
        text += f"{_ms(row.tail.sum_ns, tail.n):>{_TIME}}{_shown(row.tail):>{_SHARE - 1}}"
    page.line(text)


def _leaves(page: Page, name: str, leaves: Mapping[str, Share]) -> str:
    """``  of it: base 63 %, batch 1 %, stall 8 %``; empty where that says no more."""
    mine = {leaf: s for leaf, s in leaves.items() if leaf.partition(".")[0] == name}
    parts = [
        f"{page.word(leaf, 22).partition('.')[2]} {percent(share.share)} %"
        for leaf, share in mine.items()
        if share.share is not None and abs(share.share) >= _SMALL
    ]
    if len(mine) < 2 or not parts:
        return ""
    words = dict.fromkeys(SURE.get(share.grade, "unknown") for share in mine.values())
    return page.fit(f"  of it {', '.join(parts)} ({', '.join(words)})", page.width)


def _shown(share: Share) -> str:
    value = "unknown" if share.share is None else f"{percent(share.share)} %"
    return f"{value} {share_bounds(share)}".rstrip()


def _ms(sum_ns: int, n: int) -> str:
    return quantity(sum_ns / n / 1e6, "ms").replace(GLUE, " ")
