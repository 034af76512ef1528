"""What designed requests teach of a server: the laws that the workload's latency is split by.

Each law comes from requests that isolate one cause, and each can be drawn again from its own
residuals: that is what the intervals of the shares rest on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws.overlap import Company
from latdiag.attribution.laws.sharing import Sharing, sharing_of
from latdiag.model.units import NS_PER_MS
from latdiag.stats.robust import (
    deviation,
    huber_mean,
    huber_nnls,
    huber_nnls_each,
    least_slope,
)

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Requests of these stages ran alone.
_ALONE = ("S2", "S3", "S5")
#: Prompts from here on cost more a token than shorter ones may: below, a step's fixed part rules.
_BENDS = (96, 192, 384, 768, 1536)
#: Gaps are summed in blocks: delivery moves single tokens by more than a step takes, and the
#: median of single gaps is then wrong by half.
_BLOCK = 8
#: A cheap GET that is answered faster than this may as well be the server's own HTTP layer;
#: what takes longer lies on a way that TCP's round trip does not see.
HTTP_LAYER_NS = 5 * NS_PER_MS
_FEWEST = 4
#: Blocks of gaps that a law of three terms needs.
_FEWEST_BLOCKS = 9


@dataclass(frozen=True, slots=True)
class Path:
    """Time behind the first hop of the cheapest request. ``floor_ns``; ``values``: each GET's.

    ``is_way``: it is more than an HTTP layer: a way or a gateway behind the first hop.
    ``jitter_ns``: by how much more one may take than another.
    """

    floor_ns: float
    values: NDArray[np.float64]
    is_way: bool
    jitter_ns: float

    def again(self, random: np.random.Generator) -> NDArray[np.float64]:
        """The GETs that the same probe might have made."""
        return random.choice(self.values, len(self.values))


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


@dataclass(frozen=True, slots=True)
class Step:
    """One decode step, ns: ``base + stream * others + context * tokens of context``.

    ``spread``: standard deviation of a block's mean about it, relative; ``n``: blocks, 0 where
    there is only a median of requests alone.
    """

    base: float
    stream: float
    context: float
    spread: float
    n: int

    def alone(self, context: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.base + self.context * context


@dataclass(frozen=True, slots=True)
class Transfer:
    """What comes between the first and the second token beyond a step, alone: median ns.

    ``proven``: it grows with the prompt, or prompts do not slow running streams; and nothing
    says that prefill and decode share an engine. Else it may be anything.
    """

    extra_ns: float
    per_token_ns: float
    n: int
    proven: bool


@dataclass(frozen=True, slots=True)
class Laws:
    """All laws of a probe. None: the design could not teach it.

    ``own``: TTFT behind path and queue, alone, by input length: frontend and prefill.
    ``frontend``: the part of it that a refused request shows, or None. ``bursts_ns``: time
    between the bursts in which tokens come; 0 where they come one by one.
    """

    path: Path | None
    own: Curve
    frontend: Curve | None
    step: Step
    transfer: Transfer | None
    sharing: Sharing
    bursts_ns: float = 0.0

    def drawn(self, random: np.random.Generator, times: int) -> list[Laws]:
        """Laws that the same probe might have given, so many times."""
        parts = (self.path, self.own, self.frontend)
        again = [[p and p.again(random) for p in parts] for _ in range(times)]
        gets, own, frontend = (list(each) for each in zip(*again, strict=True))
        owns = self.own.refitted(own)
        fronts = self.frontend.refitted(frontend) if self.frontend is not None else [None] * times
        paths = [self.path and replace(self.path, floor_ns=huber_mean(each)) for each in gets]
        return [
            # The path is taken off before the fit: what it is more, the prompt costs less.
            replace(self, path=path, own=self._moved(own, path), frontend=front)
            for path, own, front in zip(paths, owns, fronts, strict=True)
        ]

    def _moved(self, own: Curve, path: Path | None) -> Curve:
        """``own`` of a draw, behind the path of that draw."""
        if path is None or self.path is None or not self.path.is_way:
            return own
        weights = own.weights.copy()
        weights[0] += self.path.floor_ns - path.floor_ns
        return replace(own, weights=weights)


def learn(seen: Observations) -> Laws | None:
    """The laws from the designed stages of a probe; None where too few requests came back."""
    rows = seen.of(*_ALONE)
    if len(rows) < _FEWEST or len(set(seen.isl[rows].tolist())) < 2:
        return None
    path = _path(seen)
    behind = path.floor_ns if path is not None and path.is_way else 0.0
    noise = _noise(path)
    values = (seen.server[rows] - behind).astype(float)
    own = Curve.fit(seen.isl[rows].astype(float), values, _scale(values, noise))
    step = _step(seen)
    if step is None:
        return None
    sharing = sharing_of(seen, path.floor_ns if path is not None else 0.0)
    return Laws(
        path=path,
        own=own,
        frontend=_frontend(seen, behind, noise),
        step=step,
        transfer=_transfer(seen, step, sharing),
        sharing=sharing,
        bursts_ns=_bursts(seen),
    )


def _bursts(seen: Observations) -> float:
    """Time between bursts, ns, where most tokens of the long stream (S2) come right behind
    another and the rest long after; 0 where they do not."""
    rows = seen.of("S2")
    gaps = [np.diff(seen.arrivals[seen.offsets[r] : seen.offsets[r + 1]]) for r in rows.tolist()]
    joined = np.concatenate(gaps) if gaps else np.zeros(0)
    if len(joined) < 16:
        return 0.0
    behind = joined < 0.1 * joined.mean()
    return float(joined[~behind].mean()) if behind.mean() > 0.5 else 0.0


def _noise(path: Path | None) -> float:
    """What delivery alone moves a reply by, ns: from the GETs, at least 50 us."""
    floor = 0.05 * NS_PER_MS
    return floor if path is None else max(floor, deviation(path.values - np.median(path.values)))


def _scale(values: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """Errors grow with what is measured: a step's noise is a share of the step."""
    scale: NDArray[np.float64] = noise + 0.03 * np.abs(values)
    return scale


def _path(seen: Observations) -> Path | None:
    values = seen.answer[(seen.scenario == "get") & (seen.answer >= 0)].astype(float)
    if len(values) < _FEWEST:
        return None
    floor = huber_mean(values)
    jitter = float(np.quantile(values, 0.9) - np.quantile(values, 0.1))
    return Path(floor, values, floor > HTTP_LAYER_NS, jitter)


def _frontend(seen: Observations, behind: float, noise: float) -> Curve | None:
    """Parse, template and tokenise, from requests that were refused after it."""
    refused = (seen.scenario == "refused") & (seen.answer >= 0)
    refused &= (seen.status == 400) | (seen.status == 422)
    tokens = seen.isl[refused].astype(float)
    if len(tokens) < _FEWEST or len(set(tokens.tolist())) < 2:
        return None
    values = (seen.answer[refused] - behind).astype(float)
    # A refusal that costs the same whatever the prompt was made before anything was read of it.
    if not _grows(tokens, values):
        return None
    return Curve.fit(tokens, values, _scale(values, noise))


def _grows(tokens: NDArray[np.float64], values: NDArray[np.float64]) -> bool:
    """Whether values grow with tokens beyond doubt: the lower end of Theil-Sen's interval."""
    return len(set(tokens.tolist())) > 1 and least_slope(tokens, values) > 0


# ---------------------------------------------------------------------- decode
def company(seen: Observations, rows: NDArray[np.int64]) -> tuple[Company, Company]:
    """(streams, tokens of context) that decode at an instant, of these rows."""
    starts, ends = seen.first[rows], seen.last[rows]
    context = (seen.isl + seen.osl / 2)[rows]
    return Company(starts, ends, np.ones(len(rows))), Company(starts, ends, context)


def _step(seen: Observations) -> Step | None:
    """From blocks of gaps of all stages in which no prompt met running streams."""
    all_rows = np.flatnonzero(seen.usable)
    streams, contexts = company(seen, all_rows)
    blocks = _blocks(seen, seen.of(*_ALONE, "S6"))
    if len(blocks) < _FEWEST_BLOCKS:
        return _plain_step(seen)
    begin, end, steps, own = blocks.T
    begin, end = begin.astype(np.int64), end.astype(np.int64)
    gap = (end - begin) / steps
    others = np.maximum(streams.between(begin, end) - 1, 0)
    context = own + np.maximum(contexts.between(begin, end) - own, 0)
    features = np.column_stack([np.ones(len(gap)), others, context])
    # A way that delays may bring a whole block at once: short gaps are not precise ones.
    scale = 0.05 * np.maximum(gap, np.median(gap))
    base, stream, per_token = huber_nnls(features, gap, scale)
    if base <= 0:
        return _plain_step(seen)
    fitted = features @ np.array([base, stream, per_token])
    return Step(base, stream, per_token, 0.05 * deviation((gap - fitted) / scale), len(gap))


def _plain_step(seen: Observations) -> Step | None:
    """Too few blocks for a law: the median time per token of requests alone, and no more."""
    rows = seen.of(*_ALONE)
    later = seen.later(rows)
    many = later >= 1
    if not many.any():
        return None
    pace = (seen.last - seen.first)[rows][many] / later[many]
    return Step(float(np.median(pace)), 0.0, 0.0, 0.0, 0)


def _blocks(seen: Observations, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(begin, end, tokens, context) of blocks of gaps, the first gap of a reply left out."""
    found = []
    for row in rows.tolist():
        span = slice(int(seen.offsets[row]), int(seen.offsets[row + 1]))
        times, tokens = seen.arrivals[span], np.cumsum(seen.brought[span])
        exact = seen.exact[span]
        places = list(range(1, len(times), _BLOCK))
        if len(times) > 3 and len(times) - 1 - places[-1] < _BLOCK // 2:
            places[-1] = len(times) - 1  # a short rest goes to the block before
        else:
            places.append(len(times) - 1)
        for a, b in itertools.pairwise(places):
            known = exact[a] and exact[b]
            if known and b - a >= 2 and tokens[b] > tokens[a] and times[b] > times[a]:
                own = seen.isl[row] + (tokens[a] + tokens[b]) / 2
                found.append((times[a], times[b], tokens[b] - tokens[a], own))
    return np.array(found, dtype=float).reshape(-1, 4)


def first_gap(seen: Observations, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Per row: first to second arrival, less the row's own later time per token; NaN: unknown."""
    out = np.full(len(rows), np.nan)
    for place, row in enumerate(rows.tolist()):
        span = slice(int(seen.offsets[row]), int(seen.offsets[row + 1]))
        times, brought = seen.arrivals[span], seen.brought[span]
        later = float(brought[2:].sum())
        if len(times) >= 3 and later > 0 and seen.exact[span][:2].all():
            step = (times[-1] - times[1]) / later
            out[place] = times[1] - times[0] - step * brought[1]
    return out


def _transfer(seen: Observations, step: Step, sharing: Sharing) -> Transfer | None:
    """A KV transfer shows where the second token takes longer than a step, reliably."""
    rows = seen.of("S3", "S5")
    extra = first_gap(seen, rows)
    known = np.isfinite(extra)
    extra, isl = extra[known], seen.isl[rows][known].astype(float)
    if len(extra) < 2 * _FEWEST:
        return None
    random = np.random.default_rng(len(extra))
    medians = np.median(random.choice(extra, (400, len(extra))), axis=1)
    middle = float(np.median(extra))
    # Less than half a step may be how the scheduler hands over; beyond doubt means all but 1 %.
    if middle < step.base / 2 or float(np.quantile(medians, 0.01)) < step.base / 4:
        return None
    a, b = np.triu_indices(len(isl), 1)
    apart = isl[a] != isl[b]
    slopes = (extra[b] - extra[a])[apart] / (isl[b] - isl[a])[apart]
    slope = max(0.0, float(np.median(slopes))) if len(slopes) else 0.0
    proven = sharing.verdict != "shared" and _grows(isl, extra)
    return Transfer(middle, slope, len(extra), proven or sharing.verdict == "separate")
