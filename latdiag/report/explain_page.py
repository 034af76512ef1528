"""What ``explain`` shows: one word's entries, or all words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from latdiag.model.entries import Entry
from latdiag.report import json
from latdiag.report.page import filled

_PLURALS = {
    "term": "terms",
    "metric": "metrics",
    "component": "components",
    "leaf": "leaves",
    "caveat": "caveats",
    "outcome": "outcomes",
    "audit rule": "audit rules",
    "exit code": "exit codes",
}


def _by_kind(entries: Iterable[Entry]) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for entry in entries:
        words.setdefault(entry.kind, []).append(entry.word)
    return words


def words_text(entries: Iterable[Entry]) -> str:
    """All words, one paragraph a kind."""
    parts = [
        filled(", ".join(words), f"{_PLURALS[kind]:<13}", " " * 13)
        for kind, words in _by_kind(entries).items()
    ]
    return "\n".join(
        ["latdiag explain WORD, where WORD is one of:", "", *parts, "", "and json-schema."]
    )


def text_of(entry: Entry) -> str:
    """Title, facts, meaning, and where to read on."""
    title = "" if entry.title == entry.word else f": {entry.title}"
    parts = [filled(f"{entry.word}{title} ({entry.kind})", "", "  ")]
    parts += [filled(value, f"  {name}: ", "    ") for name, value in entry.facts.items()]
    parts.append(filled(entry.text, "  ", "  "))
    if entry.also:
        parts.append(filled(", ".join(entry.also), "  also: ", "    "))
    if entry.see:
        parts.append(filled(", ".join(entry.see), "  see: ", "    "))
    return "\n".join(parts)


def entries_json(asked: str, found: Iterable[Entry]) -> str:
    return json.dump({"schema": 1, "word": asked, "entries": [asdict(entry) for entry in found]})


def words_json(entries: Iterable[Entry]) -> str:
    return json.dump({"schema": 1, "words": _by_kind(entries)})
