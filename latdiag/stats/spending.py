"""When a measurement may be looked at, and how much of its error each look may spend.

The function is that of O'Brien and Fleming's type (Lan and DeMets, Biometrika 70, 1983). A look
tests at what it adds to the function, so the sum over looks is the whole by the union bound,
however the looks depend on each other; what that costs against exact boundaries is small, because
nearly all is spent at the last one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from latdiag.stats.distributions import normal_quantile
from latdiag.stats.flips import tail_critical


def spent(alpha: float, fraction: float) -> float:
    """What of ``alpha`` (one-sided) may be spent when ``fraction`` of the pairs are measured."""
    if fraction >= 1.0:
        return alpha
    z = -normal_quantile(alpha / 2) / math.sqrt(fraction)
    return math.erfc(z / math.sqrt(2))


@dataclass(frozen=True, slots=True)
class Look:
    """After ``pairs`` measured pairs: ``level`` for worse (and for better), ``safe_level`` for not
    worse. ``by``: what the levels' boundary comes from, draws of flips or the stated tail."""

    pairs: int
    level: float
    safe_level: float
    by: Literal["flips", "tail"]


def looks_of(
    pairs: int, looks: int, alpha: float, safe_alpha: float, flips: int, tests: int, least: int
) -> tuple[Look, ...]:
    """The looks of a plan of ``pairs``, the last one at all of them.

    A look that no measurement could pass (all pairs on one side are not enough), or of under
    ``least`` pairs, is not planned; what it would have spent goes to the next one.
    """
    return tuple(_looks(pairs, looks, alpha, safe_alpha, flips, tests, least))


def _looks(
    pairs: int, looks: int, alpha: float, safe_alpha: float, flips: int, tests: int, least: int
) -> Iterator[Look]:
    before = safe_before = 0.0
    for number in range(1, looks + 1):
        at = -(-pairs * number // looks)
        level = spent(alpha, at / pairs) - before
        safe = spent(safe_alpha, at / pairs) - safe_before
        by_flips = level * (1 + flips) >= 1
        reach = (
            _reach(at) > tail_critical(level, tests)
            if not by_flips
            else decidable(at, level, tests)
        )
        if number == looks or (at >= least and reach):
            yield Look(at, level, safe, "flips" if by_flips else "tail")
            before, safe_before = before + level, safe_before + safe


def decidable(pairs: int, level: float, tests: int) -> bool:
    """Whether ``pairs`` that all lie on one side are enough for ``level`` over ``tests``."""
    return tests * 2.0**-pairs <= level


def _reach(pairs: int) -> float:
    """The largest signed-rank statistic of so many pairs, in standard deviations."""
    return math.sqrt(1.5 * pairs * (pairs + 1) / (2 * pairs + 1))
