"""Which attributes of a span reach the disk: an allow list, made of what the stacks name.

Spans of serving stacks may hold prompts and answers. What is not named here is dropped where it
is received; text is kept only where a stack names its attribute, numbers also below a few
prefixes under which nobody puts anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from latdiag.model.secrets import holds_secret
from latdiag.stacks.signal import Stack

#: Names under which numbers and booleans are kept though no stack names them: timings and counts
#: of the GenAI conventions and of engines that follow them.
NUMBER_PREFIXES = (
    "gen_ai.latency.",
    "gen_ai.usage.",
    "gen_ai.request.",
    "gen_ai.response.",
    "llm_d.",
    "http.status_code",
    "http.response.status_code",
)
#: Longest text, name of an attribute, of a span or of a scope that is kept, in characters.
MAX_TEXT = 256
#: What is kept of a name that no stack knows.
_WORD = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
#: Longest name of a sender, in characters.
MAX_SENDER = 200


@dataclass(frozen=True, slots=True)
class Keep:
    """``names``: attributes kept with text or number; ``prefixes``: likewise, by how they begin;
    ``numbers``: beginnings of names that are kept with a number or boolean only.

    ``scopes``, ``services``, ``spans``: what the scopes, services and spans of known stacks are
    called (each pattern must match the whole), so that unknown senders can be told.
    """

    names: frozenset[str]
    prefixes: tuple[str, ...] = ()
    numbers: tuple[str, ...] = NUMBER_PREFIXES
    scopes: tuple[re.Pattern[str], ...] = ()
    services: tuple[re.Pattern[str], ...] = ()
    spans: tuple[re.Pattern[str], ...] = ()
    known: re.Pattern[str] = re.compile(r"(?!)")

    @classmethod
    def of(cls, stacks: Sequence[Stack]) -> Keep:
        """What these stacks name: attributes of signals, of keys and of roles, and ``texts``."""
        names: set[str] = set()
        prefixes: set[str] = set()
        for stack in stacks:
            names.update(stack.texts, stack.ranks)
            names.update(key.attribute for key in stack.keys)
            names.update(role.attribute[0] for role in stack.roles if role.attribute)
            names.update(role.same for role in stack.roles if role.same)
            for signal in stack.signals:
                if signal.kind == "attribute":
                    (prefixes if signal.prefix else names).add(signal.foreign)
        return cls(
            frozenset(names),
            tuple(sorted(prefixes)),
            scopes=_patterns(stacks, "scope"),
            services=_patterns(stacks, "service"),
            spans=_patterns(stacks, "span"),
            known=_span_names(stacks),
        )

    def span_name(self, name: str) -> str:
        """What is kept of a span's name: all of it if a stack has such spans, else its first word.

        Frameworks put tasks, URLs and arguments into the names of their spans.
        """
        if self.known.match(name) and not holds_secret(name[:MAX_TEXT]):
            return name[:MAX_TEXT]
        found = _WORD.match(name)
        return found[0] if found and not holds_secret(found[0]) else "?"

    def text(self, name: str) -> bool:
        """Whether an attribute of this name is kept even if its value is text."""
        return name in self.names or name.startswith(self.prefixes)

    def number(self, name: str) -> bool:
        """Whether an attribute of this name is kept if its value is a number or boolean."""
        return name.startswith(self.numbers) or self.text(name)


def _span_names(stacks: Iterable[Stack]) -> re.Pattern[str]:
    """What the names of the stacks' spans look like: those of signals and of marks."""
    spans = [s for stack in stacks for s in stack.signals if s.kind == "span"]
    exact = [re.escape(s.foreign) + ("" if s.prefix else r"\Z") for s in spans]
    marks = [f"(?:{m.pattern})\\Z" for st in stacks for m in st.marks if m.where == "span"]
    return re.compile("|".join([*exact, *marks]) or r"(?!)")


def _patterns(stacks: Iterable[Stack], where: str) -> tuple[re.Pattern[str], ...]:
    marks = (mark for stack in stacks for mark in stack.marks if mark.where == where)
    return tuple(re.compile(pattern) for pattern in sorted({mark.pattern for mark in marks}))
