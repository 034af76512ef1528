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

from latdiag.attribution.laws.curves import Curve, grows, scale_of
from latdiag.attribution.laws.delivery import Delivery, delivery_of
from latdiag.attribution.laws.engine_time import Before, before_engine
from latdiag.attribution.laws.output_rate import output_rate_of
from latdiag.attribution.laws.overlap import Company
from latdiag.attribution.laws.pacing import Pacing, pacing_of
from latdiag.attribution.laws.path import (
    Loaded,
    Path,
    Refusals,
    loaded_of,
    path_of,
    refusals_of,
)
from latdiag.attribution.laws.sharing import Sharing, sharing_of
from latdiag.attribution.laws.together import in_step, ticks
from latdiag.attribution.laws.turns import Turns, turns_of
from latdiag.measurement.stages import ALONE
from latdiag.model.units import NS_PER_MS
from latdiag.stats.robust import deviation, huber_mean, huber_nnls

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Gaps are summed in blocks: delivery moves single tokens by more than a step takes, and the
#: median of single gaps is then wrong by half.
_BLOCK, _FEWEST_GAPS = 8, 2
_FEWEST = 4
#: What a prompt beside running streams takes more than alone, as a share of its own work, where
#: idleness costs.
_QUICKER = -0.3
#: Replies of so many tokens that come within such a share of their time come at once.
_LONG, _AT_ONCE = 12, 0.03
#: What each further stream adds to a step, as a share of it, where streams slow each other.
_SLOWED = 0.1
#: So many further streams and tokens of context change the pace of one by less than this share
#: where nothing does.
_COMPANY, _LENGTH, _MOVED = 7, 2048, 0.02
#: Blocks of gaps that a law of three terms needs.
_FEWEST_BLOCKS = 9
#: Tokens after the first arrival from which on a stream shows its own pace.
_PACED = 4
#: A share of the workload's replies that is more than an exception; a share of a stream's time
#: that says nothing of its pace.
_MANY = 0.1


@dataclass(frozen=True, slots=True)
class Step:
    """One decode step, ns: ``base + stream * others + context * tokens of context``.

    ``spread``: standard deviation of a block's mean about it, relative; ``n``: blocks, 0 where
    there is only a median of requests alone; ``together``: those of bursts.
    """

    base: float
    stream: float
    context: float
    spread: float
    n: int
    together: int = 0

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

    ``own``: TTFT behind path and queue, alone, by input length, less the tokens that were made
    before the first arrival. ``refusals``: what of it a refused request shows. ``before``: what of
    it passes before the engine takes a prompt up. ``loaded``: how path and refusals grow under
    load.
    """

    path: Path | None
    own: Curve
    refusals: Refusals | None
    before: Before | None
    loaded: Loaded | None
    delivery: Delivery
    step: Step
    transfer: Transfer | None
    sharing: Sharing
    turns: Turns
    pacing: Pacing | None
    #: whether streams that began apart bring their tokens together; None: they do not tell
    in_step: bool | None = None
    #: all streams together get the same tokens/s, however many run
    one_rate: bool = False
    #: and one stream alone is faster than that, until what it has in hand is spent
    spends: bool = False
    #: many of the workload's replies come in their first arrivals, so that none shows its pace
    unseen: bool = False
    #: whether a timer lets tokens go
    ticks: bool = False
    #: whether replies come at once, when they are whole: then no time is seen to be decode's
    at_once: bool = False

    @property
    def way_ns(self) -> float:
        """What lies behind the first hop and is more than an HTTP layer."""
        return self.path.floor_ns if self.path is not None and self.path.is_way else 0.0

    @property
    def launch_ns(self) -> float:
        """What the shortest prompt takes alone beyond a refusal and one step of the engine, which
        no first token comes without."""
        refused = self.refusals.constant_ns if self.refusals is not None else 0.0
        return max(0.0, self.own.constant - refused - self.step.base)

    @property
    def idle_waits(self) -> bool:
        """Whether prompts beside running streams are quicker than alone: an idle engine waits for
        more to come, or sleeps."""
        return self.turns.beside is not None and self.turns.beside < _QUICKER

    @property
    def paced_apart(self) -> bool:
        """Whether each stream may have a pace of its own, which no engine sets: it keeps no step
        with others, or neither prompts nor other streams nor its own length change it. Where both
        prompts and other streams slow it, an engine serves its streams by turns."""
        if self.delivery.held is not None:
            return False
        slowed = self.step.stream > _SLOWED * self.step.base and self.step.together > 0
        if slowed and self.sharing.verdict == "shared" and not (self.ticks or self.spends):
            return False
        if self.one_rate and self.in_step:
            return True  # they share a step, and something else lets so many tokens go
        if self.ticks or self.in_step is not None:
            return self.ticks or self.in_step is False
        more = self.step.stream * _COMPANY + self.step.context * _LENGTH
        alone = more < _MOVED * self.step.base
        apart = self.sharing.verdict == "separate" and self.transfer is None
        return apart and alone and self.step.together > 0

    def drawn(self, random: np.random.Generator, times: int) -> list[Laws]:
        """Laws that the same probe might have given, so many times."""
        paths = [self.path and self.path.again(random) for _ in range(times)]
        owns = self.own.refitted([self.own.again(random) for _ in range(times)])
        refusals = self._refused_again(random, times)
        befores = [self.before and self.before.again(random) for _ in range(times)]
        return [
            # The path is taken off before the fit: what it is more, the prompt costs less.
            replace(self, path=path, own=self._moved(own, path), refusals=refused, before=before)
            for path, own, refused, before in zip(paths, owns, refusals, befores, strict=True)
        ]

    def _refused_again(self, random: np.random.Generator, times: int) -> Sequence[Refusals | None]:
        found = self.refusals
        if found is None:
            return [None] * times
        if found.curve is None:
            drawn = random.choice(found.values, (times, len(found.values)))
            return [replace(found, flat_ns=huber_mean(each)) for each in drawn]
        curves = found.curve.refitted([found.curve.again(random) for _ in range(times)])
        return [replace(found, curve=each) for each in curves]

    def _moved(self, own: Curve, path: Path | None) -> Curve:
        """``own`` of a draw, behind the path of that draw."""
        if path is None or self.path is None or not self.path.is_way:
            return own
        weights = own.weights.copy()
        weights[0] += self.path.floor_ns - path.floor_ns
        return replace(own, weights=weights)


def learn(seen: Observations) -> Laws | None:
    """The laws from the designed stages of a probe; None where too few requests came back."""
    rows = seen.of(*ALONE)
    if len(rows) < _FEWEST or len(set(seen.isl[rows].tolist())) < 2:
        return None
    delivery = delivery_of(seen)
    seen = delivery.visible(seen)
    step = _step(seen, delivery)
    if step is None:
        return None
    path = path_of(seen)
    behind = path.floor_ns if path is not None and path.is_way else 0.0
    noise = path.noise_ns if path is not None else 0.05 * NS_PER_MS
    rows = delivery.telling(rows, seen.isl[rows])
    made = delivery.early_ns(step.alone(seen.isl[rows].astype(float)), rows)
    values = np.maximum(seen.server[rows] - behind - made, 0.0)
    own = Curve.fit(seen.isl[rows].astype(float), values, scale_of(values, noise))
    refusals = refusals_of(seen, behind, noise)
    sharing = sharing_of(seen, own, refusals)
    before = None
    if sharing.verdict == "shared" and delivery.held is None:
        before = before_engine(seen, path)
    return Laws(
        path=path,
        own=own,
        refusals=refusals,
        before=before,
        loaded=loaded_of(seen, refusals),
        delivery=delivery,
        step=step,
        transfer=_transfer(seen, step, sharing, delivery.chunk),
        sharing=sharing,
        turns=turns_of(seen, own, step.base, behind),
        pacing=pacing_of(seen),
        # Where no burst shows how long a token takes, decode is in what comes before the first.
        at_once=_at_once(seen) or (delivery.held is not None and not delivery.step_ns),
        ticks=ticks(seen),
        in_step=in_step(
            seen, path.jitter_ns / step.base if path is not None else 1.0, delivery.chunk
        ),
    )


# ---------------------------------------------------------------------- decode
def _at_once(seen: Observations) -> bool:
    """Of requests alone with many tokens."""
    rows = seen.of("S2", "S5")
    rows = rows[seen.osl[rows] >= _LONG]
    if not len(rows):
        return False
    whole = np.maximum(seen.last[rows] - seen.begin[rows], 1)
    return float(np.median((seen.last - seen.first)[rows] / whole)) < _AT_ONCE


def company(seen: Observations, rows: NDArray[np.int64]) -> tuple[Company, Company]:
    """(streams, tokens of context) that decode at an instant, of these rows."""
    starts, ends = seen.first[rows], seen.last[rows]
    context = (seen.isl + seen.osl / 2)[rows]
    return Company(starts, ends, np.ones(len(rows))), Company(starts, ends, context)


def _step(seen: Observations, delivery: Delivery) -> Step | None:
    """From blocks of gaps of all stages in which no prompt met running streams."""
    if delivery.held is not None:
        return Step(delivery.step_ns, 0.0, 0.0, 0.0, 0) if delivery.step_ns else _plain_step(seen)
    # A gap between arrivals of several tokens is as many steps long.
    size = max(1, round(_BLOCK / delivery.chunk))
    alone, together = _blocks(seen, seen.of(*ALONE), size), _blocks(seen, seen.of("S6"), size)
    if len(alone) + len(together) < _FEWEST_BLOCKS or len(alone) < _FEWEST:
        return _plain_step(seen)
    begin, end, steps, own = alone.T
    gap = (end - begin) / steps
    # What runs alone says what a step costs alone: batches may grow by any law.
    features = np.column_stack([np.ones(len(gap)), own])
    base, per_token = huber_nnls(features, gap, _gap_scale(gap))
    if base <= 0:
        return _plain_step(seen)
    fitted = features @ np.array([base, per_token])
    spread = 0.05 * deviation((gap - fitted) / _gap_scale(gap))
    stream = _batch_cost(seen, together, base, per_token)
    return Step(base, stream, per_token, spread, len(alone) + len(together), len(together))


def _batch_cost(
    seen: Observations, together: NDArray[np.float64], base: float, per_token: float
) -> float:
    """What each further stream adds to a step, ns, from blocks of bursts."""
    if not len(together):
        return 0.0
    streams, contexts = company(seen, np.flatnonzero(seen.usable))
    begin, end = together[:, 0].astype(np.int64), together[:, 1].astype(np.int64)
    steps, own = together[:, 2], together[:, 3]
    gap = (end - begin) / steps
    others = np.maximum(streams.between(begin, end) - 1, 0)
    context = np.maximum(contexts.between(begin, end), own)
    more = gap - base - per_token * context
    (stream,) = huber_nnls(others[:, None], more, _gap_scale(gap))
    return float(stream)


def _gap_scale(gap: NDArray[np.float64]) -> NDArray[np.float64]:
    """A way that delays may bring a whole block at once: short gaps are not precise ones."""
    scale: NDArray[np.float64] = 0.05 * np.maximum(gap, np.median(gap))
    return scale


def _plain_step(seen: Observations) -> Step | None:
    """Too few blocks for a law: the median time per token of requests alone, and no more."""
    rows = seen.of(*ALONE)
    later = seen.later(rows)
    many = later >= 1
    if not many.any():
        return None
    pace = (seen.last - seen.first)[rows][many] / later[many]
    return Step(float(np.median(pace)), 0.0, 0.0, 0.0, 0)


def _blocks(seen: Observations, rows: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """(begin, end, tokens, context) of blocks of ``size`` gaps, the first gap of a reply left
    out."""
    found = []
    for row in rows.tolist():
        span = slice(int(seen.offsets[row]), int(seen.offsets[row + 1]))
        times, tokens = seen.arrivals[span], np.cumsum(seen.brought[span])
        exact = seen.exact[span]
        places = list(range(1, len(times), size))
        if len(times) > 3 and len(times) - 1 - places[-1] < size // 2:
            places[-1] = len(times) - 1  # a short rest goes to the block before
        else:
            places.append(len(times) - 1)
        for a, b in itertools.pairwise(places):
            known = exact[a] and exact[b] and b - a >= min(size, _FEWEST_GAPS)
            if known and tokens[b] > tokens[a] and times[b] > times[a]:
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


def _transfer(seen: Observations, step: Step, sharing: Sharing, chunk: float) -> Transfer | None:
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
    arrival = step.base * chunk
    if middle < arrival / 2 or float(np.quantile(medians, 0.01)) < arrival / 4:
        return None
    a, b = np.triu_indices(len(isl), 1)
    apart = isl[a] != isl[b]
    slopes = (extra[b] - extra[a])[apart] / (isl[b] - isl[a])[apart]
    slope = max(0.0, float(np.median(slopes))) if len(slopes) else 0.0
    proven = sharing.verdict != "shared" and grows(isl, extra)
    return Transfer(middle, slope, len(extra), proven or sharing.verdict == "separate")


def token_ns(seen: Observations, rows: NDArray[np.int64], laws: Laws) -> NDArray[np.float64]:
    """Of each row, as its own stream shows it where that is long enough, else alone."""
    later = seen.later(rows)
    own = (seen.last - seen.first)[rows] / np.maximum(later, 1.0)
    alone = laws.step.alone(seen.isl[rows].astype(float))
    return np.where(later >= _PACED, np.maximum(own, alone), alone)


def of_workload(laws: Laws, seen: Observations, rows: NDArray[np.int64]) -> Laws:
    """With what the workload's ``rows`` show of how far the laws reach."""
    before = laws.delivery.early_ns(token_ns(seen, rows, laws), rows)
    arrived = (seen.last - seen.first)[rows]
    hidden = (before > 0) & (arrived < _MANY * (before + arrived))
    unseen = bool(len(rows)) and float(hidden.mean()) > _MANY
    rate = output_rate_of(seen)
    exact = rate is not None and rate.is_exact
    spends = exact and rate is not None and rate.spends
    return replace(laws, one_rate=exact, spends=spends, unseen=unseen)
