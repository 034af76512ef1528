"""What ``stacks`` shows: the table of what each stack can tell, and the stacks at one URL."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from latdiag.diagnosis.flags import flag_in
from latdiag.diagnosis.result import Result
from latdiag.model.text import shown, without_credentials
from latdiag.report.page import WIDTH, filled
from latdiag.stacks.detect import Found, Signs, state
from latdiag.stacks.reach import reach
from latdiag.stacks.signal import Stack
from latdiag.stacks.versions import has

if TYPE_CHECKING:
    from latdiag.load.look import Glimpse

_COLUMNS = ("gateway", "frontend", "queue", "prefill", "interconnect", "decode")


# ------------------------------------------------------------------ the table
def _cell(by: dict[str, bool]) -> str:
    """``spans, metrics*``; an asterisk where documents alone say so."""
    return ", ".join(name if seen else f"{name}*" for name, seen in by.items()) or "-"


def markdown(known: Sequence[Stack]) -> str:
    """The table of docs/stacks.md."""
    heads = ("Stack", "Layer", *(name.capitalize() for name in _COLUMNS), "Known from")
    lines = [heads, tuple("---" for _ in heads)]
    for stack in known:
        told = reach(stack)
        cells = [_cell(told[name]) for name in _COLUMNS]
        origin = (
            f"{'recordings' if stack.provenance == 'captured' else 'documents'}, {stack.versions}"
        )
        lines.append((stack.title, stack.layer, *cells, origin))
    return "\n".join(f"| {' | '.join(shown(cell, 80) for cell in line)} |" for line in lines)


@dataclass(frozen=True, slots=True)
class _Flag:
    """What can be turned on, and by which flag."""

    what: str
    flag: str


@dataclass(frozen=True, slots=True)
class _Known:
    """A stack in the table. ``tells``: by component, where its time is told: spans, replies,
    metrics."""

    name: str
    title: str
    layer: str
    provenance: str
    versions: str
    tells: dict[str, list[str]]
    switches: list[_Flag]

    @classmethod
    def of(cls, stack: Stack) -> _Known:
        return cls(
            stack.name,
            stack.title,
            stack.layer,
            stack.provenance,
            stack.versions,
            {name: list(by) for name, by in reach(stack).items()},
            [_Flag(each.what, each.flag) for each in stack.switches],
        )


def table_document(known: Sequence[Stack]) -> dict[str, object]:
    """The table as a result."""
    return Result(verb="stacks").to_json() | {"stacks_known": [_Known.of(each) for each in known]}


def table_lines(known: Sequence[Stack]) -> Iterator[str]:
    letters = {"spans": "S", "replies": "R", "metrics": "M"}
    yield "".join((f"{'':<27}", *(f"{name:<{_wide(name)}}" for name in _COLUMNS))).rstrip()
    for stack in known:
        told = reach(stack)
        cells = []
        for name in _COLUMNS:
            said = "".join(
                letters[each] if seen else letters[each].lower()
                for each, seen in told[name].items()
            )
            cells.append(f"{said or '-':<{_wide(name)}}")
        yield "".join((f"{shown(stack.title, 26):<27}", *cells)).rstrip()
        yield f"  {stack.layer}, {stack.provenance}, {shown(stack.versions, 50)}"
    yield ""
    yield from textwrap.wrap(
        "S: spans. R: fields or headers of replies. M: /metrics. Lower case: known only from"
        " documentation, counts one grade lower. `latdiag stacks URL` shows what is on at a"
        " server.",
        WIDTH,
    )


def _wide(name: str) -> int:
    return len(name) + 1


# ------------------------------------------------------------------ one server
@dataclass(frozen=True, slots=True)
class _Switch:
    """What can be turned on by ``flag``; ``state``: on, off, or unknown to GETs."""

    what: str
    state: str
    flag: str

    def line(self) -> str:
        if self.state == "on":
            return f"on: {self.what}"
        known = {"off": "off", "unknown": "not visible to GETs"}[self.state]
        return f"{known}: {self.what}; on with {self.flag}"


@dataclass(frozen=True, slots=True)
class _There:
    """A stack that is there, by what it showed (``grounds``)."""

    name: str
    title: str
    layer: str
    version: str | None
    certain: bool
    grounds: str
    switches: list[_Switch]

    @classmethod
    def of(cls, found: Found, signs: Signs) -> _There:
        stack = found.stack
        return cls(
            stack.name,
            stack.title,
            stack.layer,
            shown(found.version, 60) if found.version else None,
            found.certain,
            "; ".join(shown(each, 80) for each in found.because[:4]),
            [
                _Switch(each.what, state(each, stack, signs), flag_in(each, found.version))
                for each in stack.switches
                if has(found.version, each.since) is not False
            ],
        )


def found_document(base: str, found: Sequence[Found], signs: Signs) -> dict[str, object]:
    """The stacks at a base URL as a result."""
    return Result(verb="stacks").to_json() | {
        "target": {"url": without_credentials(base), "model": None},
        "stacks": [_There.of(one, signs) for one in found],
    }


def found_lines(
    base: str, glimpses: Sequence[Glimpse], found: Sequence[Found], signs: Signs
) -> Iterator[str]:
    """The stacks at a base URL for people."""
    where = shown(without_credentials(base))
    yield from textwrap.wrap(f"{where}: {_answers(glimpses)}", WIDTH)
    for text in _unread(base, glimpses):
        yield filled(text, "", "  ")
    for one in found:
        there = _There.of(one, signs)
        version = f" {there.version}" if there.version else ""
        doubt = "" if there.certain else ", perhaps"
        yield ""
        yield filled(f"{there.title}{version} ({there.layer}{doubt})", "", "  ")
        yield filled(f"by {there.grounds}", "  ", "    ")
        for each in there.switches:
            yield filled(each.line(), "  ", "    ")
    if not found:
        yield ""
        yield from textwrap.wrap(
            "These GETs show no stack that latdiag knows. Replies or spans may still show one:"
            " `latdiag probe` looks at replies. `latdiag stacks` lists the known stacks.",
            WIDTH,
        )


def _unread(base: str, glimpses: Sequence[Glimpse]) -> Iterator[str]:
    """What was there and could not be read, and what would make it readable."""
    from latdiag.load.look import elsewhere, origin_of

    for each in glimpses:
        place = shown(without_credentials(each.url), 100)
        if each.status in (401, 403):
            own = origin_of(each.url) == origin_of(base)
            option = "--api-key-env or --header-env" if own else "--metrics-header-env"
            yield f"{place} needs a key, or another one ({each.status}): {option} names it."
        elif (there := elsewhere(each)) and urlsplit(each.url).path.endswith("/metrics"):
            other = shown(without_credentials(there), 100)
            yield f"{place} leads to another server, which was not asked: --metrics {other}"


def _answers(glimpses: Sequence[Glimpse]) -> str:
    """``/v1/models 200, /metrics 404, ...``, the further scrapes by their URL."""
    from latdiag.load.signs import PATHS  # it brings httpx, which a table does without

    names = [*PATHS]
    names += [shown(without_credentials(each.url), 60) for each in glimpses[3:]]
    return ", ".join(
        f"{name} {each.fault or each.status}" for name, each in zip(names, glimpses, strict=True)
    )
