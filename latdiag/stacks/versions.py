"""Versions of stacks: whether one that showed itself has what came, or went, with another."""

from __future__ import annotations

import re

_NUMBERS = re.compile(r"\d{1,9}")
_LEADING = re.compile(r"v?(\d[\d.]{0,60})")


def numbers(version: str) -> tuple[int, ...]:
    """``0.24.0rc1`` as (0, 24, 0); () for what does not begin with a number."""
    match = _LEADING.match(version.strip())
    return tuple(int(each) for each in _NUMBERS.findall(match[1])) if match else ()


def has(version: str | None, since: str, until: str = "") -> bool | None:
    """Whether ``version`` is neither before ``since`` nor ``until`` or later; an empty bound is
    none. None: it is not known which version is there, and that decides."""
    if not since and not until:
        return True
    there = numbers(version or "")
    if not there:
        return None
    return there >= numbers(since) and not (until and there >= numbers(until))
