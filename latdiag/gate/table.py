"""A table of a configuration file, read value by value; an error names the key and the nearest
right word."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from latdiag.model.errors import LocalFault, UsageFault
from latdiag.model.units import parse_duration

_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_MOST_BYTES = 1 << 20


def nearest(word: str, words: Iterable[str]) -> str:
    """``did you mean 'ttft'?``, or all that there are where none is near."""
    known = list(words)
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def table_of(file: Path, path: tuple[str, ...]) -> Table | None:
    """The table at ``path`` of a TOML file; None where there is no such file or table."""
    place = f"[{'.'.join(path)}] of {file.name}"
    try:
        with file.open("rb") as stream:
            text = stream.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as fault:
        raise LocalFault(f"{file.name} cannot be read: {fault.strerror}") from fault
    if len(text) > _MOST_BYTES:
        raise UsageFault(f"{file.name} is larger than 1 MiB", "keep only settings in it")
    try:
        found: object = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise UsageFault(f"{file.name} is not TOML: {fault}", "correct the file") from fault
    for key in path:
        if not isinstance(found, dict):
            raise UsageFault(f"{place} is not a table", f"write it as [{'.'.join(path)}]")
        if key not in found:
            return None
        found = found[key]
    return Table(found, place)


class Table:
    """Keys with their values; ``place`` is where it stands, for errors, which are UsageFaults."""

    def __init__(self, raw: object, place: str) -> None:
        if not isinstance(raw, dict):
            raise UsageFault(f"{place} is not a table", "write its keys below a line [table]")
        self._values: Mapping[str, object] = raw
        self.place = place

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def only(self, keys: Iterable[str]) -> None:
        """UsageFault for any other key."""
        known = tuple(keys)
        for key in self._values:
            if key not in known:
                raise UsageFault(f"{self.place} has an unknown key {key!r}", nearest(key, known))

    def number(self, key: str, usual: float, least: float, most: float) -> float:
        """A number, or a text like ``"3%"``; what is written without % is a share of 1."""
        raw = self._values.get(key, usual)
        match = _PERCENT.fullmatch(raw) if isinstance(raw, str) else None
        value = float(match[1]) / 100 if match else raw
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, f'write {key} = "{100 * usual:g}%"')
        if not least <= value <= most:  # NaN too
            raise self._wrong(key, f"it lies between {least:.4g} and {most:.4g}")
        return round(float(value), 12)

    def whole(self, key: str, usual: int, least: int, most: int) -> int:
        """A whole number."""
        value = self._values.get(key, usual)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._wrong(key, f"it is a whole number between {least} and {most}")
        return value

    def truth(self, key: str, usual: bool) -> bool:
        """true or false."""
        value = self._values.get(key, usual)
        if not isinstance(value, bool):
            raise self._wrong(key, f"write {key} = true or false")
        return value

    def duration(self, key: str, usual_ns: int) -> int:
        """Nanoseconds from a text with a unit, like ``"5ms"``."""
        if key not in self._values:
            return usual_ns
        raw = self._values[key]
        if not isinstance(raw, str) or not raw.strip()[-1:].isalpha():
            raise self._wrong(key, f'write it with its unit: {key} = "5ms"')
        try:
            return parse_duration(raw)
        except UsageFault as fault:
            raise self._wrong(key, fault.remedy) from fault

    def word(self, key: str, usual: str, words: Iterable[str]) -> str:
        """One of ``words``."""
        return self._one_of(key, self._values.get(key, usual), tuple(words))

    def words(self, key: str, usual: tuple[str, ...], words: Iterable[str]) -> tuple[str, ...]:
        """One or a list of ``words``, each once."""
        known = tuple(words)
        raw = self._values.get(key, list(usual))
        each = raw if isinstance(raw, list) else [raw]
        return tuple(dict.fromkeys(self._one_of(key, one, known) for one in each))

    def texts(self, key: str, example: str) -> tuple[tuple[str, str], ...]:
        """A table of texts, as sorted pairs; ``example``: of one, for errors."""
        raw = self._values.get(key, {})
        if not isinstance(raw, dict) or not all(isinstance(v, str) for v in raw.values()):
            raise self._wrong(key, f"write {key} = {{ {example} }}")
        return tuple(sorted(raw.items()))

    def text(self, key: str, usual: str) -> str:
        """A text of at most 1,000 characters."""
        value = self._values.get(key, usual)
        if not isinstance(value, str) or len(value) > 1_000:
            raise self._wrong(key, f'write {key} = "..."')
        return value

    def lines(self, key: str, most: int) -> tuple[str, ...]:
        """One text or a list of them."""
        raw = self._values.get(key, [])
        each = raw if isinstance(raw, list) else [raw]
        if len(each) > most or not all(isinstance(one, str) for one in each):
            raise self._wrong(key, f'write {key} = ["...", "..."], at most {most} texts')
        return tuple(map(str, each))

    def table(self, key: str) -> Table:
        """A table inside of this one; empty where there is none."""
        return Table(self._values.get(key, {}), f"{self.place.replace(']', f'.{key}]', 1)}")

    def tables(self, key: str, most: int) -> list[Table]:
        """A list of tables."""
        raw = self._values.get(key, [])
        if not isinstance(raw, list) or len(raw) > most:
            raise UsageFault(
                f"{key} in {self.place} is not a list of at most {most} tables",
                f"write [[gate.{key}]] above each",
            )
        return [Table(one, f"{key} {n} in {self.place}") for n, one in enumerate(raw, 1)]

    def _one_of(self, key: str, value: object, words: tuple[str, ...]) -> str:
        if not isinstance(value, str) or value not in words:
            raise self._wrong(key, nearest(str(value)[:80], words), value)
        return value

    def _wrong(self, key: str, remedy: str, value: object = None) -> UsageFault:
        shown = repr(self._values.get(key) if value is None else value)[:80]
        return UsageFault(f"{key} in {self.place} is {shown}", remedy)
