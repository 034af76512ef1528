"""Whether a series of values stays as it is: a step, a spell, a line or a decay in it.

Each value may depend on known circumstances (``known``, columns), which are fitted together with
the shape: only what they leave can be one. Of all instants at which a shape may begin the best is
taken, so its gain has to be far beyond chance; and values that follow each other are worth fewer
(``_worth``), or every slow wave of a queue would be a change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latdiag.stats.distributions import t_quantile

#: Longer series are averaged over consecutive values first.
_MOST = 240
#: Values on each side of an edge, and in all.
_SIDE, FEWEST = 5, 12
#: Instants that a spell may begin or end at.
_EDGES = 24
#: How soon a decay is over, as shares of the series' length.
_FADES = (1 / 40, 1 / 20, 1 / 10, 1 / 5, 1 / 3)
#: Variance that a shape must explain, in units of what it leaves: far beyond the best of some
#: hundred shapes in noise.
_BEYOND_CHANCE = 36.0
#: 95 % quantile of the standard normal.
_CHANCE = 1.645
#: Values further off than this many spreads count as that far.
_FAR = 4.0


@dataclass(frozen=True, slots=True)
class Shape:
    """``kind``: step, spell, line or decay. ``size``: what it adds at most, in the unit of the
    values, with a 95 % interval: after the step, in the spell, at the end of the line, at the
    beginning of the decay. ``at``, in [``at_lo``, ``at_hi``], and ``until``: in the unit of time.
    ``level``: of the values without it, at mean circumstances. ``weights``: of each value given,
    how much of ``size`` is in it. ``fade``: in how long a decay falls to 1/e; 0 of others."""

    kind: str
    size: float
    lo: float
    hi: float
    at: float
    at_lo: float
    at_hi: float
    until: float
    level: float
    weights: NDArray[np.float64]
    fade: float = 0.0


def shape_of(
    at: NDArray[np.float64],
    values: NDArray[np.float64],
    known: NDArray[np.float64] | None = None,
) -> Shape | None:
    """The shape that ``values`` (n) at the ascending instants ``at`` (n) have beyond ``known``
    (n, k); None where they show none."""
    if len(values) < FEWEST or at[-1] <= at[0]:
        return None
    columns = (
        np.ones((len(values), 1))
        if known is None
        else np.column_stack((known, np.ones(len(values))))
    )
    when, y, x = _grouped(at, values, columns)
    basis = np.linalg.qr(x)[0]
    whole = y - basis @ (basis.T @ y)
    y = _tamed(whole)
    y = y - basis @ (basis.T @ y)
    rank = np.linalg.matrix_rank(x)
    best: tuple[float, _Fit] | None = None
    for candidate in _candidates(when):
        fit = _fit(candidate, y, basis, len(y) - int(rank) - candidate.cost)
        if fit is None or fit.gain < _BEYOND_CHANCE:
            continue
        score = len(y) * math.log(max(fit.left, 1e-12)) + candidate.cost * math.log(len(y))
        if best is None or score < best[0]:
            best = (score, fit)
    return None if best is None else _stated(_sized(best[1], whole, basis), at, values)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Shapes of one kind: a column each. ``cost``: numbers that one takes to say."""

    kind: str
    columns: NDArray[np.float64]
    edges: NDArray[np.float64]
    cost: int


@dataclass(frozen=True, slots=True)
class _Fit:
    of: _Candidates
    place: int
    size: float
    error: float
    freedom: int
    gain: float
    left: float
    near: NDArray[np.bool_]


def _candidates(when: NDArray[np.float64]) -> Iterator[_Candidates]:
    n = len(when)
    places = np.arange(_SIDE, n - _SIDE + 1)
    edge = (when[places - 1] + when[np.minimum(places, n - 1)]) / 2
    order = np.arange(n)
    step = (order[:, None] >= places[None, :]).astype(float)
    yield _Candidates("step", step, np.column_stack((edge, np.full(len(edge), when[-1]))), 2)
    coarse = np.unique(np.linspace(0, n, min(_EDGES, n // 2) + 1).round().astype(int))
    pairs = [(a, b) for a in coarse for b in coarse if a >= 2 and b <= n - 2 and b - a >= _SIDE
             and n - (b - a) >= 2 * _SIDE]  # fmt: skip
    if pairs:
        first, last = (np.array(each) for each in zip(*pairs, strict=True))
        spell = ((order[:, None] >= first) & (order[:, None] < last)).astype(float)
        edges = np.column_stack((when[first], when[last]))
        yield _Candidates("spell", spell, edges, 3)
    length = when[-1] - when[0]
    since = (when - when[0]) / length
    ends = np.array([[when[0], when[-1]]])
    yield _Candidates("line", since[:, None], ends, 1)
    decays = np.column_stack([np.exp(-since / share) for share in _FADES])
    fades = np.array([[when[0], when[0] + 3 * share * length] for share in _FADES])
    yield _Candidates("decay", decays, fades, 2)


def _fit(
    of: _Candidates, y: NDArray[np.float64], basis: NDArray[np.float64], freedom: int
) -> _Fit | None:
    """The column that explains most; ``y`` holds nothing of ``basis`` any more."""
    own = of.columns - basis @ (basis.T @ of.columns)
    sizes = (own * own).sum(axis=0)
    good = sizes > 1e-6 * len(y)
    if of.kind == "decay":
        good &= own.T @ y > 0
    if not good.any() or freedom < 4:
        return None
    explained = np.where(good, (own.T @ y) ** 2 / np.where(good, sizes, 1.0), 0.0)
    place = int(explained.argmax())
    size = float(own[:, place] @ y) / float(sizes[place])
    left = y - size * own[:, place]
    variance = float(left @ left) / freedom
    worth = _worth(left)
    noise = max(variance, 1e-12) / worth
    gain = float(explained[place]) / noise
    # Instants that explain nearly as much (a likelihood ratio of 95 %).
    near = explained >= explained[place] - 3.84 * noise
    error = math.sqrt(noise / float(sizes[place]))
    return _Fit(of, place, size, error, freedom, gain, float(left @ left), near)


def _sized(fit: _Fit, whole: NDArray[np.float64], basis: NDArray[np.float64]) -> _Fit:
    """With the size that the values have which were not tamed: a short spell is far off."""
    column = fit.of.columns[:, fit.place]
    own = column - basis @ (basis.T @ column)
    square = float(own @ own)
    size = float(own @ whole) / square
    left = whole - size * own
    variance = float(left @ left) / fit.freedom / _worth(left)
    return replace(fit, size=size, error=max(fit.error, math.sqrt(variance / square)))


def _worth(left: NDArray[np.float64]) -> float:
    """How much a value is worth that resembles the one before: (1 - r) / (1 + r)."""
    alone = float(np.einsum("i,i->", left, left))
    if alone <= 0 or len(left) < 3:
        return 1.0
    r = float(np.einsum("i,i->", left[1:], left[:-1])) / alone
    if r > _CHANCE / math.sqrt(len(left)):
        # What a mean and a shape take out makes neighbours look less alike (Kendall 1954).
        r += 2 * (1 + 3 * r) / len(left)
    r = min(max(r, 0.0), 0.98)
    return (1 - r) / (1 + r)


def _tamed(left: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = float(np.median(left))
    spread = 1.4826 * float(np.median(np.abs(left - middle)))
    if spread <= 0:
        return left
    return np.clip(left, middle - _FAR * spread, middle + _FAR * spread)


def _grouped(
    at: NDArray[np.float64], values: NDArray[np.float64], known: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Means over as many consecutive values as leave at most ``_MOST``."""
    size = -(-len(values) // _MOST)
    if size == 1:
        return at, values, known
    starts = np.arange(0, len(values), size)
    counts = np.diff(np.append(starts, len(values))).astype(float)
    means = [np.add.reduceat(each, starts, axis=0) for each in (at, values, known)]
    return means[0] / counts, means[1] / counts, means[2] / counts[:, None]


def _stated(fit: _Fit, at: NDArray[np.float64], values: NDArray[np.float64]) -> Shape:
    begin, until = (float(each) for each in fit.of.edges[fit.place])
    near = fit.of.edges[fit.near, 0]
    half = t_quantile(max(1, fit.freedom), 0.975) * fit.error
    fade = 0.0
    if fit.of.kind in ("step", "spell"):
        weights = ((at >= begin) & ((at < until) | (fit.of.kind == "step"))).astype(float)
    elif fit.of.kind == "line":
        weights = (at - at[0]) / (at[-1] - at[0])
    else:
        fade = _FADES[fit.place] * float(at[-1] - at[0])
        weights = np.exp(-(at - at[0]) / fade)
    level = float(np.median(values - fit.size * weights))
    ends = (fit.size - half, fit.size + half)
    span = (float(near.min()), float(near.max()))
    return Shape(fit.of.kind, fit.size, *ends, begin, *span, until, level, weights, fade)
