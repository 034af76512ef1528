"""Which names of spans go together in a request, learned from those that are complete.

A prefill server sends its spans when its part is done; those of the server that decodes may follow
minutes later. A trace that lacks what goes with what it has is waited for.
"""

from __future__ import annotations

from collections.abc import Callable

#: Names that are told apart; each is one bit.
_MOST = 60
#: A name is expected beside another that had it so often, of at least so many.
_SHARE, _LEAST = 0.9, 10
#: What was so many requests ago counts half.
_MEMORY = 2_000


class Usual:
    """``known``: whether a name means something to a stack."""

    def __init__(self, known: Callable[[str], bool]) -> None:
        self._known = known
        self._bits: dict[str, int] = {}
        self._counts = [0.0] * _MOST
        self._both = [[0.0] * _MOST for _ in range(_MOST)]
        self._lacks: dict[int, bool] = {}

    def bit(self, name: str) -> int:
        """The bit of a name; 0 for one that means nothing, or is one too many."""
        found = self._bits.get(name)
        if found is None:
            used = sum(1 for bit in self._bits.values() if bit)
            found = 1 << used if used < _MOST and self._known(name) else 0
            if len(self._bits) < 10 * _MOST:
                self._bits[name] = found
        return found

    def lacks(self, names: int) -> bool:
        """Whether a trace with these names lacks one that goes with them."""
        found = self._lacks.get(names)
        if found is None:
            found = self._lacks[names] = any(
                not names >> other & 1 and self._both[one][other] >= _SHARE * self._counts[one]
                for one in _places(names)
                if self._counts[one] >= _LEAST
                for other in range(_MOST)
            )
        return found

    def complete(self, names: int) -> None:
        """A trace with these names left."""
        places = _places(names)
        for one in places:
            self._counts[one] += 1
            for other in places:
                self._both[one][other] += 1
            if self._counts[one] > _MEMORY:
                self._counts[one] /= 2
                self._both[one] = [value / 2 for value in self._both[one]]
        self._lacks.clear()

    def late(self, names: int, name: int) -> int:
        """One more name came of a trace that had left with ``names``; all of its names."""
        if name and not names & name:
            (other,) = _places(name)
            for one in _places(names):
                self._both[one][other] += 1
            self._lacks.clear()
        return names | name


def _places(names: int) -> list[int]:
    return [place for place in range(names.bit_length()) if names >> place & 1]
