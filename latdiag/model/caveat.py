"""What a caveat is: a code, words for the case at hand, and a remedy; and a row of their table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caveat:
    """A reason to read a result with care, and what to do about it."""

    code: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class CaveatRow:
    """``text`` and ``remedy`` are templates of the facts in braces; ``:share`` and ``:ms`` say
    their unit (a share of 1; integer nanoseconds). ``meaning``: the general case, for
    ``explain``."""

    code: str
    text: str
    remedy: str
    meaning: str
