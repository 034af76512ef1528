"""What a caveat is: a code, words for the case at hand, a remedy, and the general case."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caveat:
    """``text`` is a template of the facts in braces; ``:share`` and ``:ms`` say their unit
    (a share of 1; integer nanoseconds). ``meaning`` is the general case, for ``explain``."""

    code: str
    text: str
    remedy: str
    meaning: str
