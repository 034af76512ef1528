"""Every word that latdiag explains, from the tables of the model, and how one is looked up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from latdiag.model import caveats, components, terms
from latdiag.model.errors import UsageFault
from latdiag.model.metrics import METRICS

#: What a statistic or a percentile adds to a metric's name: ``ttft.p95``.
_STATISTIC = re.compile(r"\.(p\d+(\.\d+)?|mean)$")
#: Where a fact stands in a caveat's template.
_PLACE = re.compile(r"\{(\w+)[^}]*\}")


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


def all_entries() -> list[Entry]:
    """Every table of the model as entries, in the order of the list of words."""
    entries = [Entry(t.word, "term", t.title, t.text, {}, t.see, t.also) for t in terms.TERMS]
    for m in METRICS:
        facts = {"formula": m.formula, "unit": m.unit, "better": m.better}
        entries.append(Entry(m.name, "metric", m.title, m.meaning, facts))
    entries += _components()
    for _, c in sorted(caveats.CAVEATS.items()):
        facts = {"says": _plain(c.text), "try": _plain(c.remedy)}
        if _PLACE.fullmatch(c.remedy):
            del facts["try"]  # another one for each case
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


def _plain(template: str) -> str:
    """A caveat's template for people: ``<rows> of <requests> requests``."""
    return _PLACE.sub(r"<\1>", template)


def _components() -> Iterator[Entry]:
    """The components with their leaves, then each leaf."""
    for name in components.COMPONENTS:
        leaves = [leaf for leaf in components.LEAVES if leaf.component == name]
        text = " ".join(f"{leaf.name} ({leaf.code}): {leaf.meaning}." for leaf in leaves)
        yield Entry(name, "component", name, text, see=("breakdown", "grade"))
    for leaf in components.LEAVES:
        title = f"part of {leaf.component}"
        text = f"{leaf.meaning[0].upper()}{leaf.meaning[1:]}."
        also = (leaf.code, leaf.name.partition(".")[2])
        yield Entry(leaf.name, "leaf", title, text, {}, (leaf.component,), also)


def look_up(asked: str, entries: Iterable[Entry]) -> list[Entry]:
    """The entries for ``asked``: by name, else by another word for it; UsageFault for neither."""
    entries = list(entries)
    for key in (key_of(asked), key_of(_STATISTIC.sub("", asked.strip()))):
        named = [entry for entry in entries if key_of(entry.word) == key]
        found = named or [e for e in entries if key in map(key_of, e.also)]
        if found:
            return found
    from difflib import get_close_matches

    words = {key_of(word): word for entry in entries for word in (*entry.also, entry.word)}
    near = get_close_matches(key_of(asked), words, n=3, cutoff=0.6)
    hint = f"latdiag explain {words[near[0]]}" if near else "latdiag explain"
    others = f" Did you mean {', '.join(words[key] for key in near)}?" if near else ""
    raise UsageFault(f"no such word: {asked!r}.{others}", hint)


def key_of(word: str) -> str:
    """What words are compared by: case, ``-``, ``_`` and spaces do not tell them apart."""
    return " ".join(re.sub(r"[-_\s]+", " ", word.strip().casefold()).split())
