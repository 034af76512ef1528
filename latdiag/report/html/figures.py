"""Numbers on a page, each with its place in the document that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from latdiag.model.units import GLUE, figure, quantity

#: What stands for a number that is not known.
NONE = "–"


class Figures:
    """The numbers of a document, by the JSON pointer of each (RFC 6901)."""

    def __init__(self, found: object) -> None:
        self._document = found

    def at(self, *keys: object) -> object:
        """What lies at a place; None where nothing does."""
        here = self._document
        for key in keys:
            if isinstance(here, Mapping):
                here = here.get(key)
            elif isinstance(here, Sequence) and not isinstance(here, str):
                here = here[key] if isinstance(key, int) and key < len(here) else None
            else:
                return None
        return here

    def value(self, *keys: object) -> float | None:
        """The number at a place; None where there is none."""
        found = self.at(*keys)
        number = isinstance(found, int | float) and not isinstance(found, bool)
        return float(found) if number else None  # type: ignore[arg-type]

    def number(self, *keys: object, unit: str = "", bare: bool = False) -> Markup:
        """It with its unit, three significant digits; ``bare``: without the unit."""
        found = self.value(*keys)
        if found is None:
            return Markup('<span class="none">{}</span>').format(NONE)
        text = figure(found, unit) if bare else quantity(found, unit)
        return self.as_text(text, *keys)

    def count(self, *keys: object) -> Markup:
        """A whole number in groups of three digits."""
        found = self.value(*keys)
        if found is None:
            return Markup('<span class="none">{}</span>').format(NONE)
        return self.as_text(f"{found:,.0f}".replace(",", GLUE), *keys)

    def as_text(self, text: str, *keys: object) -> Markup:
        """``text`` for the number at a place."""
        value, path = attributes(self.at(*keys), keys)
        return Markup('<data value="{}" data-path="{}">{}</data>').format(value, path, text)

    def span(self, lo: Sequence[object], hi: Sequence[object], unit: str) -> Markup:
        """``[205, 219]``; nothing where an end is not known."""
        if self.value(*lo) is None or self.value(*hi) is None:
            return Markup("")
        ends = (self.number(*lo, unit=unit, bare=True), self.number(*hi, unit=unit, bare=True))
        return Markup('<span class="interval">[{}, {}]</span>').format(*ends)


def attributes(value: object, keys: Sequence[object]) -> tuple[str, str]:
    """(The number as JSON writes it, its pointer)."""
    pointer = "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)
    return repr(value), pointer
