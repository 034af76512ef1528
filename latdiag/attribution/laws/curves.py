"""What a prompt costs as a function of its length, fitted so that it never costs less for more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latdiag.stats.robust import huber_nnls, huber_nnls_each, least_slope

#: Prompts from here on cost more a token than shorter ones may: below, a step's fixed part rules.
_BENDS = (96, 192, 384, 768, 1536)


@dataclass(frozen=True, slots=True)
class Curve:
    """ns as a function of tokens: increasing and convex, a sum of ramps and a square.

    ``relative``: residuals of the fit in shares of ``scale``, the size expected of them.
    """

    weights: NDArray[np.float64]
    tokens: NDArray[np.float64]
    fitted: NDArray[np.float64]
    scale: NDArray[np.float64]
    relative: NDArray[np.float64]

    @classmethod
    def fit(
        cls, tokens: NDArray[np.float64], values: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> Curve:
        features = _ramps(tokens)
        weights = huber_nnls(features, values, scale)
        fitted = features @ weights
        return cls(weights, tokens, fitted, scale, (values - fitted) / scale)

    def at(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        return _ramps(tokens.astype(float)) @ self.weights

    @property
    def constant(self) -> float:
        """What a prompt of no length would cost, ns."""
        return float(self.weights[0])

    @property
    def noise_ns(self) -> float:
        """By how much nearly the furthest of the values lies off the fit."""
        return float(np.quantile(np.abs(self.relative * self.scale), 0.9))

    def again(self, random: np.random.Generator) -> NDArray[np.float64]:
        """Residuals that the same design might have left, in shares of ``scale``."""
        return random.choice(self.relative, len(self.relative))

    def refitted(self, residuals: Sequence[NDArray[np.float64]]) -> list[Curve]:
        """The laws that each of these residuals (``again``) would have given."""
        n, used = len(self.fitted), int((self.weights > 0).sum())
        # Fitted residuals are smaller than the errors were.
        widen = np.sqrt(n / max(n - used, 1))
        values = self.fitted + widen * self.scale * np.array(residuals)
        weights = huber_nnls_each(_ramps(self.tokens), values, self.scale)
        return [replace(self, weights=each) for each in weights]


def _ramps(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    ramps = [np.maximum(tokens - bend, 0.0) for bend in _BENDS]
    return np.column_stack([np.ones(len(tokens)), tokens, *ramps, tokens * tokens / 2])


def scale_of(values: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """Errors grow with what is measured: a step's noise is a share of the step."""
    scale: NDArray[np.float64] = noise + 0.03 * np.abs(values)
    return scale


def grows(tokens: NDArray[np.float64], values: NDArray[np.float64], by_ns: float = 0.0) -> bool:
    """Whether values grow by more than so many ns a token beyond doubt: the lower end of
    Theil-Sen's interval."""
    return len(set(tokens.tolist())) > 1 and least_slope(tokens, values) > by_ns
