"""Fits that a few wild values cannot bend.

A gap behind a garbage collection, or a prompt that met another one, is no part of a law.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Beyond so many deviations a residual counts linearly: 95 % efficient for normal errors
#: (Huber, Robust Statistics, 1981, section 4.5).
_BEND = 1.345
#: A median absolute deviation of 1 belongs to this standard deviation of a normal law.
_MAD = 1.4826
_ROUNDS = 25


def deviation(residuals: NDArray[np.float64]) -> float:
    """Standard deviation from the median absolute deviation about 0."""
    return _MAD * float(np.median(np.abs(residuals))) if len(residuals) else 0.0


def huber_nnls(
    features: NDArray[np.float64], values: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coefficients >= 0 of ``features`` (n, k) that fit ``values`` (n).

    ``scale``: expected size of each residual, > 0. Huber's loss by reweighting, each round a
    non-negative least squares (Lawson and Hanson, Solving Least Squares Problems, 1974).
    """
    from scipy.optimize import nnls

    # Columns of unlike size (1 and L**2) would cost digits.
    size = np.abs(features).max(axis=0)
    size[size == 0] = 1.0
    rows = features / size / scale[:, None]
    target = values / scale
    weight = np.ones(len(values))
    found = np.zeros(features.shape[1])
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        before, (found, _) = found, nnls(rows * root[:, None], target * root)
        residual = target - rows @ found
        spread = deviation(residual)
        if spread == 0.0:
            break
        weight = np.minimum(1.0, _BEND * spread / np.maximum(np.abs(residual), spread * 1e-9))
        if np.allclose(found, before, rtol=1e-6, atol=0.0):
            break
    weights: NDArray[np.float64] = found / size
    return weights


def huber_mean(values: NDArray[np.float64]) -> float:
    """The mean, with values far from the middle drawn in; unlike the median it keeps skew."""
    middle = float(np.median(values))
    spread = deviation(values - middle)
    if spread == 0.0:
        return middle
    for _ in range(_ROUNDS):
        far = np.maximum(np.abs(values - middle), spread * 1e-9)
        weight = np.minimum(1.0, 2 * _BEND * spread / far)
        after = float((weight * values).sum() / weight.sum())
        if abs(after - middle) <= 1e-9 * abs(middle):
            break
        middle = after
    return middle
