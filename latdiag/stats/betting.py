"""A test that may be looked at after every pair: stop the moment something is clearly broken.

Each pair is a bet on its sign. If worse and better are equally likely, no way of betting has a
capital that is expected to grow, so it reaches 1/level with a chance of at most ``level``, at
whatever time one looks (Ville's inequality; Ramdas and others, Statistical Science 38, 2023).
Signs alone need no scale and no law, and what is broken is worse in nearly every pair.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Shares of the capital that are bet; the capital is split among them at the start.
_BETS = np.array([0.3, 0.6, 0.95])


def capital(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Capital after each pair that bets on ``values`` (pairs, tests) above 0, from 1 at the start.

    A value of 0, or none (NaN), is no bet.
    """
    signs = np.sign(np.nan_to_num(values, nan=0.0))
    growth = np.log1p(signs[:, :, None] * _BETS)
    return np.asarray(np.exp(np.cumsum(growth, axis=0)).mean(axis=2))


def won(values: NDArray[np.float64], needed: float) -> NDArray[np.bool_]:
    """Whether the bets on ``values`` (pairs, tests) have made the capital that is needed."""
    return np.asarray(capital(values) >= needed)


def first_crossing(values: NDArray[np.float64], level: float) -> int | None:
    """Pairs after which any of the tests reached tests/level (Bonferroni); None if none did."""
    crossed = won(values, values.shape[1] / level).any(axis=1)
    return int(np.argmax(crossed)) + 1 if crossed.any() else None


def bound(values: NDArray[np.float64], needed: float) -> float:
    """The largest m that bets on ``values`` (pairs) above m refute; -inf where there is none."""
    known = values[~np.isnan(values)]
    for candidate in np.sort(known)[::-1]:
        # Just below a value it is still above; capital only falls as m grows.
        if won((known - np.nextafter(candidate, -np.inf))[:, None], needed).any():
            return float(candidate)
    return -np.inf
