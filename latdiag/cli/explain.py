"""``latdiag explain WORD``: every word, number and code that latdiag prints, from its tables."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

import click

from latdiag.model import caveats, components, terms
from latdiag.model.errors import UsageFault

_WIDTH = 79
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
#: What a statistic or a percentile adds to a metric's name: ``ttft.p95``.
_STATISTIC = re.compile(r"\.(p\d+(\.\d+)?|mean)$")


@dataclass(frozen=True, slots=True)
class Entry:
    """One explanation. ``facts``: short labelled lines, such as a formula and a unit."""

    word: str
    kind: str
    title: str
    text: str
    facts: dict[str, str] = field(default_factory=dict)
    see: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


@click.command()
@click.argument("word", required=False, nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
def explain(word: tuple[str, ...], as_json: bool) -> None:
    """Explain WORD: a term, a metric, a component, a caveat (LD301), an exit code, an outcome,
    a rule of the self-audit. `json-schema` prints the schema of every --json. Without WORD: all
    words."""
    asked = " ".join(word)
    entries = all_entries()
    if not asked:
        click.echo(_words_json(entries) if as_json else _words_text(entries))
        return
    if _key(asked) == "json schema":
        from latdiag.report import json

        click.echo(json.schema_text().rstrip())
        return
    found = look_up(asked, entries)
    click.echo(_entries_json(asked, found) if as_json else "\n\n".join(map(_text, found)))


def all_entries() -> list[Entry]:
    """Every table of the model as entries, in the order of the list of words."""
    from latdiag.model.metrics import METRICS

    entries = [Entry(t.word, "term", t.title, t.text, {}, t.see, t.also) for t in terms.TERMS]
    for m in METRICS:
        facts = {"formula": m.formula, "unit": m.unit, "better": m.better}
        entries.append(Entry(m.name, "metric", m.title, m.meaning, facts))
    entries += _components()
    for c in caveats.CAVEATS.values():
        facts = {"says": c.text, "try": c.remedy}
        entries.append(Entry(c.code, "caveat", c.code, c.meaning, facts))
    for name, meaning in terms.OUTCOMES.items():
        entries.append(Entry(name, "outcome", str(name), meaning, see=("outcome",)))
    for rule in terms.AUDIT_RULES:
        facts = {"limit": rule.limit, "try": rule.remedy}
        title = rule.title[0].upper() + rule.title[1:]
        entries.append(Entry(rule.name, "audit rule", title, rule.meaning, facts, ("self-audit",)))
    for code, meaning in terms.EXIT_CODES.items():
        entries.append(Entry(str(code), "exit code", str(code), meaning))
    return entries


def _components() -> Iterator[Entry]:
    """The components with their leaves, then each leaf."""
    for name in components.COMPONENTS:
        leaves = [leaf for leaf in components.LEAVES if leaf.component == name]
        text = " ".join(f"{leaf.name} ({leaf.code}): {leaf.meaning}." for leaf in leaves)
        yield Entry(name, "component", name, text, see=("breakdown", "grade"))
    for leaf in components.LEAVES:
        title = f"part of {leaf.component}"
        text = f"{leaf.meaning[0].upper()}{leaf.meaning[1:]}."
        yield Entry(leaf.name, "leaf", title, text, {}, (leaf.component,), (leaf.code,))


def look_up(asked: str, entries: Iterable[Entry]) -> list[Entry]:
    """The entries for ``asked``: by name, else by another word for it; UsageFault for neither."""
    entries = list(entries)
    for key in (_key(asked), _key(_STATISTIC.sub("", asked.strip()))):
        named = [entry for entry in entries if _key(entry.word) == key]
        found = named or [e for e in entries if key in map(_key, e.also)]
        if found:
            return found
    from difflib import get_close_matches

    words = {_key(word): word for entry in entries for word in (*entry.also, entry.word)}
    near = get_close_matches(_key(asked), words, n=3, cutoff=0.6)
    hint = f"latdiag explain {words[near[0]]}" if near else "latdiag explain"
    others = f" Did you mean {', '.join(words[key] for key in near)}?" if near else ""
    raise UsageFault(f"no such word: {asked!r}.{others}", hint)


def _key(word: str) -> str:
    """Upper and lower case, ``-``, ``_`` and spaces do not tell words apart."""
    return " ".join(re.sub(r"[-_\s]+", " ", word.strip().casefold()).split())


def _by_kind(entries: Iterable[Entry]) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for entry in entries:
        words.setdefault(entry.kind, []).append(entry.word)
    return words


def _words_text(entries: Iterable[Entry]) -> str:
    """All words, one paragraph a kind."""
    parts = [
        _filled(", ".join(words), f"{_PLURALS[kind]:<13}", " " * 13)
        for kind, words in _by_kind(entries).items()
    ]
    return "\n".join(["latdiag explain WORD, with one of", "", *parts, "", "and json-schema."])


def _text(entry: Entry) -> str:
    """Title, facts, meaning, and where to read on."""
    title = "" if entry.title == entry.word else f": {entry.title}"
    parts = [_filled(f"{entry.word}{title} ({entry.kind})", "", "  ")]
    parts += [_filled(value, f"  {name}: ", "    ") for name, value in entry.facts.items()]
    parts.append(_filled(entry.text, "  ", "  "))
    if entry.also:
        parts.append(_filled(", ".join(entry.also), "  also: ", "    "))
    if entry.see:
        parts.append(_filled(", ".join(entry.see), "  see: ", "    "))
    return "\n".join(parts)


def _filled(text: str, first: str, rest: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def _entries_json(asked: str, found: Iterable[Entry]) -> str:
    from latdiag.report import json

    return json.dump({"schema": 1, "word": asked, "entries": [asdict(entry) for entry in found]})


def _words_json(entries: Iterable[Entry]) -> str:
    from latdiag.report import json

    return json.dump({"schema": 1, "words": _by_kind(entries)})
