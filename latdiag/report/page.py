"""Lines of text of a bounded width: the paper that a report is written on.

A page knows nothing of terminals: it holds lines of spans, and ``console`` prints them. In ASCII
mode nothing else than ASCII is in them, so that a pipe, a log or an old terminal can take it.
``screen`` lays blocks below each other so that all of them fit one screen.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

from latdiag.model.text import shown
from latdiag.model.units import GLUE

WIDTH = 79
#: Lines of one screen.
HEIGHT = 24
#: The space in a number, and between a number and its unit: no line breaks there.
_NUMBER = re.compile(r"(?<=\d) (?=\d{3}\b|(?:%|ms|s|tok/s|req/s)(?:\W|$))")
#: Where one sentence ends and the next begins.
_SENTENCES = re.compile(r"(?<=[.?!]) (?=[A-Z`(]|latdiag |--)")
_BLOCKS = "▁▂▃▄▅▆▇█"
_RAMP = "_.-:=+*#"


class Span(NamedTuple):
    """Text of one look; ``style`` is a rich style, empty for plain."""

    text: str
    style: str = ""


def cells(text: str) -> int:
    """Terminal columns that ``text`` takes: 2 for a wide character, 0 for a combining one."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def glued(text: str) -> str:
    """``text`` without a line break between a number and its unit, or inside a number."""
    return _NUMBER.sub(GLUE, text)


def filled(text: str, first: str = "", rest: str = "") -> str:
    """``text`` wrapped to ``WIDTH`` columns; words that bear a hyphen stay whole."""
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


class Page:
    """Lines of at most ``width`` columns. Strings from outside enter through ``word``."""

    def __init__(self, ascii_only: bool, width: int = WIDTH) -> None:
        self.ascii_only = ascii_only
        self.width = width
        self.lines: list[tuple[Span, ...]] = []

    def word(self, text: object, limit: int = 200) -> str:
        """``text`` made safe to print, at most ``limit`` columns wide."""
        clean = shown(text, limit)
        if self.ascii_only:
            clean = clean.replace("…", "...").encode("ascii", "backslashreplace").decode()
        return self.fit(clean, limit)

    def fit(self, text: str, width: int) -> str:
        """``text`` cut to ``width`` columns, with a mark where something is missing."""
        if width <= 0:
            return ""
        if cells(text) <= width:
            return text
        mark = "..." if self.ascii_only else "…"
        mark = mark if cells(mark) <= width else ""
        kept = text[:width]
        while cells(kept) + cells(mark) > width:
            kept = kept[:-1]
        return kept + mark

    def line(self, *spans: Span | str) -> None:
        """One line; what does not fit is cut off, so the width holds whatever comes."""
        room = self.width
        kept = []
        for item in spans:
            span = item if isinstance(item, Span) else Span(item)
            text = self.fit(span.text.replace(GLUE, " "), room)
            room -= cells(text)
            kept.append(Span(text, span.style))
        if kept:
            last = kept[-1]
            kept[-1] = Span(last.text.rstrip(), last.style)
        self.lines.append(tuple(kept))

    def paragraph(self, text: str, first: str = "", rest: str | None = None) -> None:
        """``text`` wrapped; ``first`` before the first line, ``rest`` before the others."""
        for line in self._wrapped(text, first, rest):
            self.line(line)

    def headed(self, head: Span, text: str, rest: str = "  ") -> None:
        """A paragraph that begins with a word in a style of its own."""
        lines = self._wrapped(f"{head.text} {text}", "", rest)
        self.line(head, lines[0][len(head.text) :])
        for line in lines[1:]:
            self.line(line)

    def clipped(
        self, head: Span, text: str, room: int, rest: str = "  ", whole: bool = False
    ) -> None:
        """``headed`` in at most ``room`` lines: as many whole sentences as these hold, else
        nothing if it is to be ``whole``, or the beginning of the first, with a mark there."""
        before = len(self.lines)
        sentences = _SENTENCES.split(text)
        for many in range(len(sentences), 0, -1):
            del self.lines[before:]
            self.headed(head, " ".join(sentences[:many]), rest)
            if len(self.lines) - before <= room:
                return
        if whole:
            del self.lines[before:]
        if len(self.lines) - before > room:
            mark = "..." if self.ascii_only else "…"
            last = self.lines[before + room - 1]
            del self.lines[before + room - 1 :]
            kept = "".join(span.text for span in last)
            while cells(kept) + cells(mark) > self.width:
                kept = kept[:-1]
            kept += mark
            begins = last[0].text == head.text and len(last) > 1
            self.line(*((head, kept[len(head.text) :]) if begins else (kept,)))

    def whole(self, text: str, first: str) -> None:
        """``text`` unbroken by spaces, over as many lines as it takes: a path to be copied."""
        rest = text
        lead = first
        while rest:
            size = self.width - cells(lead)
            part = rest[:size]
            while cells(part) > size:
                part = part[:-1]
            self.line(lead + part)
            rest, lead = rest[len(part) :], " " * len(first)

    def gap(self) -> None:
        """An empty line, unless the page begins here or one stands already."""
        if self.lines and self.lines[-1]:
            self.lines.append(())

    def bar(self, share: float, width: int) -> str:
        """A bar of ``share`` (0 to 1) of ``width`` columns; the smallest share still shows."""
        filled = max(0.0, min(1.0, share)) * width
        if self.ascii_only:
            return "#" * round(filled) or ("|" if share > 0 else "")
        whole, half = divmod(round(2 * filled), 2)
        return "█" * whole + "▌" * half or ("▏" if share > 0 else "")

    def sparkline(self, values: Sequence[float | None], width: int) -> str:
        """``values`` as at most ``width`` marks from low to high; a blank where none is known."""
        marks = _RAMP if self.ascii_only else _BLOCKS
        points = _squeezed(values, width)
        known = [value for value in points if value is not None]
        if not known:
            return ""
        low, high = min(known), max(known)
        scale = (len(marks) - 1) / (high - low) if high > low else 0.0
        return "".join(
            " " if value is None else marks[round((value - low) * scale)] for value in points
        )

    def _wrapped(self, text: str, first: str, rest: str | None) -> list[str]:
        rest = first if rest is None else rest
        text = glued(text)
        wide = cells(text) - len(text)
        # textwrap counts characters: where some are wide, leave room for all of them.
        width = self.width if wide <= 0 else max(self.width // 2, len(first) + 20)
        return textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        ) or [first]


class Block(NamedTuple):
    """Lines that belong together on a screen.

    ``draw`` puts them on a page, in at most as many lines as it is given. In want of room the
    blocks of the highest ``rank`` are cut first, down to ``least`` lines each, and then left out.
    ``apart``: an empty line stands before it where there is room for one.
    """

    draw: Callable[[Page, int], None]
    least: int
    rank: int
    apart: bool = False


def screen(blocks: Sequence[Block], ascii_only: bool, height: int = HEIGHT) -> Page:
    """The blocks below each other, in at most ``height`` lines."""
    wants = [len(_drawn(block, height, ascii_only)) for block in blocks]
    rooms, left = [0] * len(blocks), height
    order = sorted(range(len(blocks)), key=lambda place: blocks[place].rank)
    for asked in ([block.least for block in blocks], wants):
        for place in order:
            more = min(left, min(asked[place], wants[place]) - rooms[place])
            rooms[place] += max(0, more)
            left -= max(0, more)
    page = Page(ascii_only)
    for block, room in zip(blocks, rooms, strict=True):
        lines = _drawn(block, room, ascii_only) if room else []
        if lines and block.apart and left and page.lines:
            page.gap()
            left -= 1
        page.lines += lines
    return page


def _drawn(block: Block, room: int, ascii_only: bool) -> list[tuple[Span, ...]]:
    page = Page(ascii_only)
    block.draw(page, room)
    return page.lines[:room]


def rows(page: Page, room: int, lines: Sequence[str], hidden: str = "") -> None:
    """A line each; of those that find no room, a line that counts them. ``hidden``: what they
    are called, and where they are."""
    shown = lines if len(lines) <= room else lines[: max(0, room - 1)]
    for line in shown:
        page.line(line)
    if len(shown) < len(lines) and room:
        page.line(f"and {len(lines) - len(shown)} more{hidden}: --full")


def _squeezed(values: Sequence[float | None], width: int) -> list[float | None]:
    """At most ``width`` values: the largest of each stretch, because peaks are what one seeks."""
    if len(values) <= width:
        return list(values)
    points: list[float | None] = []
    for place in range(width):
        stretch = values[place * len(values) // width : (place + 1) * len(values) // width]
        known = [value for value in stretch if value is not None]
        points.append(max(known) if known else None)
    return points
