"""How long tokens waited for the burst that they left with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.bursts import SHORT, Bursts, Trains

#: In periods: an end that comes sooner after a burst did not wait for one.
_SOON = 0.9
#: So many tokens after the last full burst show a pace, and so many that of their own stream.
_FEWEST_AFTER, _OWN_AFTER = 3, 8


@dataclass(frozen=True, slots=True)
class Held:
    """For how long each of n streams held tokens back, float64 ns, within [lo, hi].

    ``first``: the first token, so TTFT is longer by it and the stream seems shorter. ``last``:
    the last token; by this the whole request is longer.
    """

    first: NDArray[np.float64]
    first_lo: NDArray[np.float64]
    first_hi: NDArray[np.float64]
    last: NDArray[np.float64]
    last_lo: NDArray[np.float64]
    last_hi: NDArray[np.float64]


def _once(trains: Trains, period_ns: float) -> Trains:
    """The same, where streams that are far shorter than a period are one burst."""
    short = (trains.groups > 1) & (trains.inner_ns + trains.last_ns < SHORT * period_ns)
    zero = np.zeros(len(short))
    return replace(
        trains,
        groups=np.where(short, 1, trains.groups),
        first_tokens=np.where(short, trains.tokens, trains.first_tokens),
        last_tokens=np.where(short, zero, trains.last_tokens),
        inner_tokens=np.where(short, zero, trains.inner_tokens),
        last_ns=np.where(short, zero, trains.last_ns),
    )


def paces_of(trains: Trains, bursts: Bursts) -> NDArray[np.float64]:
    """Time per token (ns) that each stream itself shows between or after its bursts; NaN: none.

    Where ends leave at once (most come sooner than a burst would), what comes after the last full
    burst was made in the time since.
    """
    trains = _once(trains, bursts.period_ns)
    known, two = trains.inner_tokens > 0, trains.groups > 1
    soon = trains.last_ns[two] < _SOON * bursts.period_ns
    free = bursts.kind in ("timer", "size") and 2 * int(soon.sum()) >= len(soon)
    after = two & ~known & (trains.last_tokens >= _FEWEST_AFTER) & free
    # At the burst of a timer the next token was half made, at that of a buffer not begun; which of
    # them it is, streams of one pace do not show.
    made = trains.last_tokens - 0.25
    shown = np.full(len(two), np.nan)
    shown[known] = (trains.inner_ns / np.maximum(trains.inner_tokens, 1.0))[known]
    shown[after] = (trains.last_ns / np.maximum(made, 1.0))[after]
    return shown


def company_steps_ns(trains: Trains, bursts: Bursts, least: float) -> tuple[float, float]:
    """Time per token of streams in company, (least, most): at least ``least``, that of one alone.

    What most of them show themselves is both. Where few do, these may be the odd ones: the others
    lie between. Where none does, a burst's tokens took no longer than the time since the last one.
    """
    shown = paces_of(trains, bursts)
    there = ~np.isnan(shown)
    if there.any() and 2 * int(there.sum()) >= len(shown):
        pace = max(least, float(np.median(shown[there])))
        return pace, pace
    inner = trains.inner_tokens
    many = there & (np.where(inner > 0, inner, trains.last_tokens) >= _OWN_AFTER)
    if many.any():
        return least, max(least, float(np.median(shown[many])))
    after = (trains.groups > 1) & (trains.last_tokens >= _OWN_AFTER)
    if not after.any():
        return least, least
    return least, max(
        least, float((trains.last_ns / np.maximum(trains.last_tokens, 1))[after].min())
    )


def held_of(
    trains: Trains,
    bursts: Bursts,
    least_ns: float | NDArray[np.float64] | None = None,
    most_ns: float | NDArray[np.float64] | None = None,
) -> Held:
    """For how long each stream held its first and its last token back.

    A token waits while those behind it in its burst are made: the first for all others of the
    first burst, and up to one step more for a timer; the last for what is left of the last gap.
    ``least_ns``, ``most_ns``: bounds of the time per token, where a stream does not show its own;
    else ``bursts.step_ns``. Nothing is held where tokens come by step, nor in a stream of one
    event.
    """
    shown = paces_of(trains, bursts)
    trains = _once(trains, bursts.period_ns)
    least = bursts.step_ns if least_ns is None else least_ns
    most = least if most_ns is None else most_ns
    inner = trains.inner_tokens > 0
    own = (inner | (trains.last_tokens >= _OWN_AFTER)) & ~np.isnan(shown)
    # Of what was made after the last full burst one token more or less may have been.
    share = np.where(own & ~inner, 0.5 / np.maximum(trains.last_tokens, 1.0), 0.0)
    fast = np.where(own, shown * (1 - share), least)
    slow = np.where(own, shown * (1 + share), most)
    holds = np.where((trains.groups > 0) & (trains.near > 0), float(bursts.held), 0.0)
    after = np.zeros(len(slow)) if bursts.kind == "size" else slow
    others = holds * np.maximum(trains.first_tokens - 1, 0.0)
    lo, hi = others * fast, others * slow + holds * after
    step = (fast + slow) / 2
    waited = trains.last_ns - trains.last_tokens * step
    last_lo = holds * np.clip(trains.last_ns - (trains.last_tokens + 0.5) * slow, 0.0, None)
    last_hi = holds * np.clip(
        trains.last_ns - (trains.last_tokens - 0.5) * fast, 0.0, trains.last_ns
    )
    last = holds * np.clip(waited, 0.0, None)
    return Held((lo + hi) / 2, lo, hi, last, last_lo, np.maximum(last_hi, last))
