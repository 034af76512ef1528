"""What ``stacks`` shows: the table of what each stack can tell, and the stacks at one URL."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from latdiag.diagnosis.result import Result
from latdiag.load.look import Glimpse
from latdiag.load.signs import PATHS
from latdiag.model.text import shown, without_credentials
from latdiag.report.page import WIDTH, filled
from latdiag.stacks.detect import Found, Signs, state
from latdiag.stacks.reach import reach
from latdiag.stacks.signal import Stack

_COLUMNS = ("gateway", "frontend", "queue", "prefill", "interconnect", "decode")


# ------------------------------------------------------------------ the table
def _cell(by: dict[str, bool]) -> str:
    """``spans, metrics*``; an asterisk where documents alone say so."""
    return ", ".join(name if seen else f"{name}*" for name, seen in by.items()) or "-"


def markdown(known: Sequence[Stack]) -> str:
    """The table of the README."""
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


def table_document(known: Sequence[Stack]) -> dict[str, Any]:
    """The table as a result."""
    return Result(verb="stacks").to_json() | {"stacks_known": [_known(each) for each in known]}


def _known(stack: Stack) -> dict[str, Any]:
    return {
        "name": stack.name,
        "title": stack.title,
        "layer": stack.layer,
        "provenance": stack.provenance,
        "versions": stack.versions,
        "tells": {name: list(by) for name, by in reach(stack).items()},
        "switches": [{"what": each.what, "flag": each.flag} for each in stack.switches],
    }


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
        "S spans, R fields or headers of replies, M /metrics; small letters: known from"
        " documents alone, counts one rung lower. `latdiag stacks URL` says what is on there.",
        WIDTH,
    )


def _wide(name: str) -> int:
    return len(name) + 1


# ------------------------------------------------------------------ one server
def found_document(base: str, found: Sequence[Found], signs: Signs) -> dict[str, Any]:
    """The stacks at a base URL as a result."""
    result = Result(verb="stacks").to_json()
    result |= {"target": {"url": without_credentials(base), "model": None}}
    result |= {"stacks": [_entry(one, signs) for one in found]}
    return result


def _entry(one: Found, signs: Signs) -> dict[str, Any]:
    return {
        "name": one.stack.name,
        "title": one.stack.title,
        "layer": one.stack.layer,
        "version": shown(one.version, 60) if one.version else None,
        "certain": one.certain,
        "grounds": "; ".join(shown(each, 80) for each in one.because[:4]),
        "switches": [
            {"what": each.what, "state": state(each, one.stack, signs), "flag": each.flag}
            for each in one.stack.switches
        ],
    }


def found_lines(
    base: str, glimpses: Sequence[Glimpse], found: Sequence[Found], signs: Signs
) -> Iterator[str]:
    """The stacks at a base URL for people."""
    where = shown(without_credentials(base))
    yield from textwrap.wrap(f"{where}: {_answers(glimpses)}", WIDTH)
    for one in found:
        entry = _entry(one, signs)
        version = f" {entry['version']}" if entry["version"] else ""
        doubt = "" if one.certain else ", perhaps"
        yield ""
        yield filled(f"{one.stack.title}{version} ({one.stack.layer}{doubt})", "", "  ")
        yield filled(f"by {entry['grounds']}", "  ", "    ")
        for each in entry["switches"]:
            yield filled(_switch(each), "  ", "    ")
    if not found:
        yield ""
        yield from textwrap.wrap(
            "No stack that latdiag knows shows itself by these GETs. Its replies or spans may"
            " still tell: `latdiag probe` looks at replies. `latdiag stacks` lists what is known.",
            WIDTH,
        )


def _answers(glimpses: Sequence[Glimpse]) -> str:
    """``/v1/models 200, /metrics 404, ...``, the further scrapes by their URL."""
    names = [*PATHS]
    names += [shown(without_credentials(each.url), 60) for each in glimpses[3:]]
    return ", ".join(
        f"{name} {each.fault or each.status}" for name, each in zip(names, glimpses, strict=True)
    )


def _switch(entry: dict[str, Any]) -> str:
    if entry["state"] == "on":
        return f"on: {entry['what']}"
    known = {"off": "off", "unknown": "GETs cannot see"}[entry["state"]]
    return f"{known}: {entry['what']}; on with {entry['flag']}"
