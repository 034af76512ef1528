"""Fits that a few wild values cannot bend.

A gap behind a garbage collection, or a prompt that met another one, is no part of a law.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec

import numpy as np
from numpy.typing import NDArray

from latdiag.stats.distributions import normal_quantile

#: Beyond so many deviations a residual counts linearly: 95 % efficient for normal errors
#: (Huber, Robust Statistics, 1981, section 4.5).
_BEND = 1.345
#: A median absolute deviation of 1 belongs to this standard deviation of a normal law.
_MAD = 1.4826
_ROUNDS = 25


def deviation(residuals: NDArray[np.float64]) -> float:
    """Standard deviation from the median absolute deviation about 0."""
    return float(_deviations(residuals)) if len(residuals) else 0.0


def _deviations(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same of each row: ``np.median`` without its preparations, which take longer than a
    short median itself."""
    sizes, half = np.abs(residuals), residuals.shape[-1] // 2
    if residuals.shape[-1] % 2:
        middle = np.partition(sizes, half)[..., half]
    else:
        ranked = np.partition(sizes, (half - 1, half))
        middle = (ranked[..., half - 1] + ranked[..., half]) / 2
    return np.asarray(_MAD * middle)


@cache
def compiled_nnls() -> Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
    """Non-negative least squares of scipy: (features, values) -> coefficients.

    Its compiled part alone, where it is the one that is known here: all of ``scipy.optimize``
    takes as long to load as a probe takes to explain, and its own front checks each small system
    for longer than it takes to solve.
    """
    package = find_spec("scipy.optimize")
    folders = package.submodule_search_locations if package is not None else None
    spec = PathFinder.find_spec("scipy.optimize._slsqplib", folders)
    module = module_from_spec(spec) if spec is not None else None
    if spec is not None and spec.loader is not None and module is not None:
        spec.loader.exec_module(module)
    compiled = getattr(module, "nnls", None)
    if compiled is not None:

        def solve(
            features: NDArray[np.float64], values: NDArray[np.float64]
        ) -> NDArray[np.float64]:
            found, _, failed = compiled(features, values, 3 * features.shape[1])
            if failed == 3:
                raise RuntimeError("non-negative least squares did not come to an end")
            weights: NDArray[np.float64] = found
            return weights

        return solve
    from scipy.optimize import nnls

    return lambda features, values: nnls(features, values)[0]


def huber_nnls(
    features: NDArray[np.float64], values: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coefficients >= 0 of ``features`` (n, k) that fit ``values`` (n).

    ``scale``: expected size of each residual, > 0. Huber's loss by reweighting, each round a
    non-negative least squares (Lawson and Hanson, Solving Least Squares Problems, 1974).
    """
    weights: NDArray[np.float64] = huber_nnls_each(features, values[None], scale)[0]
    return weights


def huber_nnls_each(
    features: NDArray[np.float64], values: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``huber_nnls`` of each row of ``values`` (times, n), all by the same design: (times, k)."""
    solve = compiled_nnls()
    # Columns of unlike size (1 and L**2) would cost digits.
    size = np.abs(features).max(axis=0)
    size[size == 0] = 1.0
    rows = features / size / scale[:, None]
    target = values / scale
    found = np.zeros((len(values), features.shape[1]))
    open_, weight = np.arange(len(values)), np.ones(values.shape)
    for _ in range(_ROUNDS):
        root, before = np.sqrt(weight), found[open_]
        weighed = target[open_] * root
        for at, one in enumerate(open_.tolist()):
            found[one] = solve(rows * root[at][:, None], weighed[at])
        after = found[open_]
        residual = target[open_] - np.array([rows @ each for each in after])
        spread = _deviations(residual)[:, None]
        still = (np.abs(after - before) > 1e-6 * np.abs(before)).any(axis=1) & (spread[:, 0] > 0)
        if not still.any():
            break
        open_, residual, spread = open_[still], residual[still], spread[still]
        weight = np.minimum(1.0, _BEND * spread / np.maximum(np.abs(residual), spread * 1e-9))
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


def least_slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The lower end of the 95 % interval of the slope of ``y`` over ``x``, from all pairs (Sen,
    JASA 63, 1968, equation 2.6). NaN where values that are alike leave none."""
    rise, run = y[:, None] - y, x[:, None] - x
    slopes = np.sort(rise[run > 0] / run[run > 0])
    n = len(y)
    ties = sum(
        int((k * (k - 1) * (2 * k + 5)).sum())
        for k in (np.unique(values, return_counts=True)[1] for values in (x, y))
    )
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    if variance < 0 or not len(slopes):
        return float("nan")
    reach = normal_quantile((1 - 0.95) / 2) * variance**0.5
    return float(slopes[max(round((len(slopes) + reach) / 2) - 1, 0)])
