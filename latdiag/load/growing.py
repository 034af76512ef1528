"""Whether a text field that no dialect knows holds output: told by how its texts vary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from latdiag.model.records import Kind

#: Fields of one reply that are watched.
_FIELDS = 4
#: From so many different texts on a field holds output: a label repeats itself, or is one of few.
_VARIED = 4


class _Kinds(Protocol):
    def __setitem__(self, place: int, kind: int, /) -> None: ...


class Growing:
    """The unlisted text fields of one reply."""

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        #: by name: hashes of the texts, and the arrivals that are undecided
        self._fields: dict[str, tuple[set[int], list[int]]] = {}

    def note(self, texts: Iterable[tuple[str, int]], place: int, kinds: _Kinds) -> None:
        """The arrival at ``place`` of ``kinds`` bore ``texts``, each a field and a hash. Once a
        field holds output, its arrivals so far and from then on are reasoning."""
        for name, text in texts:
            if name not in self._fields and len(self._fields) >= _FIELDS:
                continue
            seen, undecided = self._fields.setdefault(name, (set(), []))
            undecided.append(place)
            if len(seen) < _VARIED:
                seen.add(text)
            if len(seen) >= _VARIED:
                for each in undecided:
                    kinds[each] = Kind.REASONING
                undecided.clear()
