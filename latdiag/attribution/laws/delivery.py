"""How tokens reach the client: whether the first arrival is the first token, the last the last.

Where several tokens are sent at a time, the first arrival holds tokens that took steps of decode;
where tokens are made and not sent (reasoning), so does the time before it; where something holds
tokens back for a burst, both ends of the stream are late. Told from counts (tokens stated against
arrivals) and from instants (``latdiag.measurement.bursts``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.bursts import Bursts, bursts_of, trains_of
from latdiag.measurement.held import Held, company_steps_ns, held_of
from latdiag.measurement.stages import WORKLOAD
from latdiag.stats.robust import huber_nnls

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Requests by which tokens are set against arrivals.
_DESIGNED = ("S2", "S3", "S5", "S6")
_FEWEST = 6
#: Share of requests that have to agree on a chunk, and that have to hide tokens.
_MOST, _SOME = 0.8, 0.1
#: Where nothing counts tokens: numbers of arrivals that have to occur, the largest chunk that is
#: thought of, and the share of the requests that have to have just its arrivals.
_KINDS, _LARGEST, _EXACT = 3, 128, 0.95
#: A hidden token takes so much of a token's time that is seen, at least.
_TAKES = 0.3


@dataclass(frozen=True, slots=True)
class Delivery:
    """One entry per row of the observations. ``hidden``: tokens that are stated and never sent,
    made before the first arrival; ``gathered``: those in the first arrival beyond the first token.

    ``chunk``: tokens an arrival brings; ``open``: whether counts leave open that the first arrival
    brings as many as the others. ``bursts``: how streams come, None where they come as they are
    made; ``held``: ns by which these hold both ends back; ``several``: rows that came in several;
    ``step_ns``: per token behind them, alone.
    """

    hidden: NDArray[np.float64]
    gathered: NDArray[np.float64]
    chunk: float
    open: bool
    bursts: Bursts | None
    held: Held | None
    several: NDArray[np.bool_] | None = None
    step_ns: float = 0.0
    #: tokens of each row where nobody counts them and the arrivals are those of what was asked for
    asked: NDArray[np.int64] | None = None

    @property
    def bursts_ns(self) -> float:
        """Time between the bursts of something that holds tokens back; 0 where nothing does."""
        return self.bursts.period_ns if self.bursts is not None and self.held is not None else 0.0

    def visible(self, seen: Observations) -> Observations:
        """With the tokens that arrivals brought in place of those that were stated."""
        if self.asked is not None:
            brought = np.full(len(seen.brought), self.chunk)
            return replace(seen, osl=self.asked, brought=brought, asked=None)
        if not self.hidden.any():
            return seen
        osl = np.maximum(np.rint(seen.osl - self.hidden), 0).astype(np.int64)
        return replace(seen, osl=osl, brought=np.full(len(seen.brought), self.chunk))

    def telling(self, rows: NDArray[np.int64], isl: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows whose first token shows: of bursts, those that came in several, if enough did:
        nothing says how long a single one waited."""
        if self.several is None:
            return rows
        chosen = self.several[rows]
        enough = chosen.sum() >= _FEWEST and len(set(isl[chosen].tolist())) > 2
        return rows[chosen] if enough else rows

    def early_ns(
        self, token_ns: NDArray[np.float64], rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Decode before the first arrival of these rows. ``token_ns``: of each, alone."""
        steps = (self.hidden + self.gathered)[rows] * token_ns
        held: NDArray[np.float64] = self.held.first[rows] if self.held is not None else 0.0 * steps
        return steps + held


def delivery_of(seen: Observations) -> Delivery:
    """From the requests of the designed stages, for all rows."""
    arrivals = np.diff(seen.offsets).astype(float)
    rows = seen.of(*_DESIGNED)
    rows = rows[arrivals[rows] >= 1]
    none = np.zeros(seen.n)
    bursts, held, several, step = _bursts(seen)
    if len(rows) < _FEWEST:
        return Delivery(none, none, 1.0, False, bursts, held, several, step)
    size = _size_of_asked(seen, arrivals)
    if size is not None and seen.asked is not None:
        asked = np.where(seen.asked > 0, seen.asked, seen.osl)
        gathered = np.where(arrivals > 0, np.clip(asked, 1, size) - 1.0, 0.0)
        return Delivery(none, gathered, size, False, bursts, held, several, step, asked)
    tokens = seen.osl.astype(float)
    unsent = _unsent(seen, arrivals, tokens)
    if unsent is not None:
        return Delivery(unsent[0], none, unsent[1], False, bursts, held, several, step)
    chunk = _chunk(arrivals[rows], tokens[rows])
    first, unsure = _first_brings(arrivals[rows], tokens[rows], chunk)
    gathered = np.where(arrivals > 0, np.clip(first - 1.0, 0.0, np.maximum(tokens - 1, 0)), 0.0)
    return Delivery(none, gathered, chunk, unsure, bursts, held, several, step)


def held_back_ns(seen: Observations) -> float:
    """Time between the bursts in which something lets streams go; 0 where nothing holds them."""
    rows = seen.of("S2", "S5", WORKLOAD)
    trains = trains_of(seen.arrivals, seen.offsets, seen.brought, seen.exact)
    bursts = bursts_of(trains.select(rows))
    return bursts.period_ns if bursts is not None and bursts.held else 0.0


def _bursts(
    seen: Observations,
) -> tuple[Bursts | None, Held | None, NDArray[np.bool_] | None, float]:
    trains = trains_of(seen.arrivals, seen.offsets, seen.brought, seen.exact)
    bursts = bursts_of(trains.select(seen.of("S2", "S5", WORKLOAD)))
    if bursts is None or not bursts.held:
        return bursts, None, None, 0.0
    several = (trains.groups > 1) & (trains.inner_ns + trains.last_ns > 0.5 * bursts.period_ns)
    alone = bursts_of(trains.select(seen.of("S2", "S5"))) or bursts
    # Where streams alone are too short for a rhythm, those in company bound their pace.
    own = alone.step_ns or bursts.step_ns
    least, most = np.full(seen.n, own), np.full(seen.n, own)
    rows = seen.of(WORKLOAD)
    least[rows], most[rows] = company_steps_ns(trains.select(rows), bursts, own)
    return bursts, held_of(trains, bursts, least, most), several, own


def _unsent(
    seen: Observations, arrivals: NDArray[np.float64], tokens: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float] | None:
    """(tokens of each row that no arrival brought, tokens that one brings); None where all came.

    More tokens an arrival in some requests than in others may be larger chunks too, but hidden
    tokens make the first arrival later, each by a step. So of requests alone the tokens stated are
    a sum: those of each arrival, and those of the time before the first, but for the prompt's.
    """
    alone = seen.of("S2", "S3", "S5")
    alone = alone[arrivals[alone] >= 1]
    paced = alone[arrivals[alone] >= 3]
    if len(alone) < _FEWEST or not len(paced):
        return None
    server = seen.server[alone].astype(float)
    pace = float(np.median((seen.last - seen.first)[paced] / (arrivals[paced] - 1)))
    if pace <= 0:
        return None
    features = np.column_stack(
        [arrivals[alone], server / pace, -seen.isl[alone].astype(float), -np.ones(len(alone))]
    )
    stated = tokens[alone]
    each, hidden, *_ = huber_nnls(features, stated, np.full(len(alone), 1.0) + 0.02 * stated)
    chunk = max(1.0, float(each))
    chunk = float(round(chunk)) if abs(chunk - round(chunk)) < 0.2 else chunk
    unsent = np.where(arrivals > 0, np.maximum(tokens - chunk * arrivals, 0.0), 0.0)
    many = unsent > max(chunk, 2.0)
    if hidden < _TAKES * chunk or float(many[alone].mean()) < _SOME:
        return None
    return np.where(many, unsent, 0.0), chunk


def _size_of_asked(seen: Observations, arrivals: NDArray[np.float64]) -> float | None:
    """Tokens that an arrival brings where no reply counts its tokens: the size by which what was
    asked for makes just the arrivals that came, for short replies and long ones."""
    rows = seen.of(*_DESIGNED, WORKLOAD)
    rows = rows[arrivals[rows] >= 1]
    if seen.asked is None or len(rows) < _FEWEST or not (seen.asked[rows] > 0).all():
        return None
    asked, came = seen.asked[rows].astype(float), arrivals[rows]
    if len(set(came.tolist())) < _KINDS:
        return None
    sizes = np.arange(2.0, _LARGEST + 1)
    fits = np.array([(np.ceil(asked / size) == came).mean() for size in sizes])
    return float(sizes[fits.argmax()]) if fits.max() >= _EXACT else None


def _chunk(arrivals: NDArray[np.float64], tokens: NDArray[np.float64]) -> float:
    """Tokens that an arrival brings: the whole number that counts agree on, else the median of
    what one more arrival brings."""
    mean = float(np.median(tokens / arrivals))
    if mean <= 1.05:
        return 1.0
    sizes = np.arange(max(2, int(mean)), int(2 * mean) + 3)
    fits = np.array([_agree(arrivals, tokens, float(size)).mean() for size in sizes])
    if fits.max() >= _MOST:
        return float(sizes[fits.argmax()])
    a, b = np.triu_indices(len(arrivals), 1)
    apart = arrivals[a] != arrivals[b]
    if not apart.any():
        return mean
    slopes = (tokens[b] - tokens[a])[apart] / (arrivals[b] - arrivals[a])[apart]
    return max(1.0, float(np.median(slopes)))


def _agree(
    arrivals: NDArray[np.float64], tokens: NDArray[np.float64], size: float
) -> NDArray[np.bool_]:
    """Whether so many arrivals are what chunks of this size make, with or without the first."""
    whole = np.abs(arrivals - np.ceil(tokens / size)) < 0.5
    agree: NDArray[np.bool_] = whole | (np.abs(arrivals - 1 - np.ceil((tokens - 1) / size)) < 0.5)
    return agree


def _first_brings(
    arrivals: NDArray[np.float64], tokens: NDArray[np.float64], chunk: float
) -> tuple[float, bool]:
    """(tokens in the first arrival, whether counts leave that open)."""
    if chunk <= 1.0:
        return 1.0, False
    as_others = np.abs(arrivals - np.ceil(tokens / chunk)) < 0.5
    alone = np.abs(arrivals - 1 - np.ceil((tokens - 1) / chunk)) < 0.5
    if as_others.mean() >= _MOST and (as_others & ~alone).any():
        return chunk, False
    if alone.mean() >= _MOST and (alone & ~as_others).any():
        return 1.0, False
    # Chunks of changing size: as many tokens as were ready, which one step may have made.
    return (chunk, True) if as_others.mean() >= _MOST else (1.0, True)
