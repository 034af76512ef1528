"""The form of an explained word."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """``also``: other words that lead here; ``see``: words to read next."""

    word: str
    title: str
    text: str
    also: tuple[str, ...] = ()
    see: tuple[str, ...] = ()
