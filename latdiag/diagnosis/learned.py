"""What the designed stages of a probe have taught of the server, in words of the field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws.admission import at_once, tried
from latdiag.model.units import ms

if TYPE_CHECKING:
    from latdiag.attribution.laws.laws import Laws
    from latdiag.measurement.observations import Observations

#: Input lengths at which a law is shown, tokens.
_SHOWN_AT = (128, 512, 1024)
_DRAWS = 200


@dataclass(frozen=True, slots=True)
class LengthBand:
    """What a law says for prompts of ``isl`` tokens, with its 95 % interval, ms."""

    isl: int
    value: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class PathBand:
    """What ``n`` cheap GETs took behind the first hop, with its 95 % interval, ms. ``is_way``:
    it is more than HTTP takes, so a gateway or a way."""

    value: float
    lo: float
    hi: float
    n: int
    is_way: bool


@dataclass(frozen=True, slots=True)
class Range:
    """The median of what ``n`` requests showed, with the least and the most of it, ms."""

    value: float
    least: float
    most: float
    n: int


@dataclass(frozen=True, slots=True)
class TransferTime:
    """How much later than a step the second token comes: the median of ``n`` requests, ms, and
    ms for each 1,000 tokens of prompt. Not ``proven``: it may be anything, and stays in decode."""

    value: float
    per_1000_tokens: float
    n: int
    proven: bool


@dataclass(frozen=True, slots=True)
class Learned:
    """The laws. ``alone_ms``, ``frontend_ms``: a prompt alone and the frontend's part of it, by
    length, of ``alone_n`` requests. ``step_ms``: a decode step alone, out of ``step_blocks``
    blocks of gaps. ``let_in``: streams that run at once, None for all of the largest burst,
    which had ``tried``. ``prefill_stops_decode``: shared, separate or unknown; what running
    streams lose to a prompt in all, and in one pause, are shares of its own time."""

    alone_ms: tuple[LengthBand, ...]
    alone_n: int
    step_ms: float
    step_per_stream_ms: float
    step_per_1000_context_ms: float
    step_blocks: int
    let_in: int | None
    tried: int
    prefill_stops_decode: str
    prefill_stops_decode_share: float | None
    prefill_pause_share: float | None
    connect_ms: Range | None
    round_trip_ms: Range | None
    bursts_ms: float | None
    path_ms: PathBand | None
    frontend_ms: tuple[LengthBand, ...] | None
    transfer_ms: TransferTime | None


def learned_from(laws: Laws, seen: Observations) -> Learned:
    """The laws with 95 % intervals, where they were drawn again."""
    tokens = np.array(_SHOWN_AT)
    random = np.random.default_rng(1)
    again = laws.drawn(random, _DRAWS)
    prefill = _bounds([each.own.at(tokens) for each in again])
    sharing = laws.sharing if laws.sharing.n else None
    return Learned(
        alone_ms=_by_length(laws.own.at(tokens), prefill),
        alone_n=len(laws.own.tokens),
        step_ms=ms(laws.step.base),
        step_per_stream_ms=ms(laws.step.stream),
        step_per_1000_context_ms=ms(1000 * laws.step.context),
        step_blocks=laws.step.n,
        let_in=at_once(seen),
        tried=tried(seen),
        prefill_stops_decode=laws.sharing.verdict,
        prefill_stops_decode_share=sharing.lost if sharing else None,
        prefill_pause_share=sharing.pause if sharing else None,
        connect_ms=_range(seen.connect),
        round_trip_ms=_range(seen.trip),
        bursts_ms=ms(laws.delivery.bursts_ns) if laws.delivery.bursts_ns else None,
        path_ms=_path(laws, again),
        frontend_ms=_frontend(laws, again),
        transfer_ms=_transfer(laws),
    )


def _path(laws: Laws, again: Sequence[Laws]) -> PathBand | None:
    if laws.path is None:
        return None
    floors = [np.array([each.path.floor_ns]) for each in again if each.path is not None]
    lo, hi = _bounds(floors)
    value = float(np.array([laws.path.floor_ns])[0])
    return PathBand(
        ms(value), ms(float(lo[0])), ms(float(hi[0])), len(laws.path.values), laws.path.is_way
    )


def _frontend(laws: Laws, again: Sequence[Laws]) -> tuple[LengthBand, ...] | None:
    if laws.refusals is None or laws.refusals.curve is None:
        return None
    tokens = np.array(_SHOWN_AT)
    parse = [each.refusals.at(tokens) for each in again if each.refusals is not None]
    return _by_length(laws.refusals.at(tokens), _bounds(parse))


def _transfer(laws: Laws) -> TransferTime | None:
    found = laws.transfer
    if found is None:
        return None
    return TransferTime(ms(found.extra_ns), ms(1000 * found.per_token_ns), found.n, found.proven)


def _range(values: NDArray[np.int64] | None) -> Range | None:
    """Of what is known (-1 is not); None where nothing is."""
    known = values[values >= 0] if values is not None else np.zeros(0)
    if not len(known):
        return None
    lo, middle, hi = (ms(float(v)) for v in np.quantile(known, [0.0, 0.5, 1.0]))
    return Range(middle, lo, hi, len(known))


def _bounds(again: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """(lower, upper) ends over the laws that were drawn again, ns, by length."""
    found: NDArray[np.float64] = np.quantile(np.array(again), [0.025, 0.975], axis=0)
    return np.maximum(found, 0.0)  # they are times


def _by_length(values: NDArray[Any], bounds: NDArray[np.float64]) -> tuple[LengthBand, ...]:
    rows = zip(_SHOWN_AT, values, *bounds, strict=True)
    return tuple(LengthBand(n, ms(float(v)), ms(float(a)), ms(float(b))) for n, v, a, b in rows)
