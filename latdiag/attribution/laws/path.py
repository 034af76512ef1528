"""What requests without a token teach: the way to a server, and what stands before its model.

A cheap GET and a POST that is refused take other ways through a server than a request that it
answers. Each bounds from below what a request spends before the engine has it; alone, and beside
the workload, where whatever makes requests wait before the engine makes these wait too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws.curves import Curve, grows, scale_of
from latdiag.load.plan import LOADED_PATH, PATH
from latdiag.model.units import NS_PER_MS
from latdiag.stacks.catalogue import is_refused_by_an_engine
from latdiag.stats.robust import deviation, huber_mean

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: A cheap GET that is answered faster than this may as well be the server's own HTTP layer;
#: what takes longer lies on a way that TCP's round trip does not see.
HTTP_LAYER_NS = 5 * NS_PER_MS
_FEWEST = 4
#: ns a token from which on a prompt was tokenised: whoever only reads its few bytes needs less,
#: and the fastest tokenisers need more.
_TOKENISES_NS = 60.0
#: Standard errors beyond which a mean is not chance.
_SURE = 3.0


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

    def again(self, random: np.random.Generator) -> Path:
        """The path by the GETs that the same probe might have made."""
        drawn = random.choice(self.values, len(self.values))
        return replace(self, floor_ns=huber_mean(drawn))

    @property
    def noise_ns(self) -> float:
        """What delivery alone moves a reply by: at least 50 us."""
        return max(0.05 * NS_PER_MS, deviation(self.values - np.median(self.values)))


@dataclass(frozen=True, slots=True)
class Refusals:
    """What a POST takes that is refused, beyond the way of a GET: ns by input length.

    ``curve``: where it grows with the prompt, so that the prompt was read before: only the
    server's own frontend does that. Else ``flat_ns`` of every length. ``engine``: it is
    refused in the words of an engine that is known.
    """

    flat_ns: float
    values: NDArray[np.float64]
    curve: Curve | None
    engine: bool = False

    @property
    def behind(self) -> bool:
        """Whether a refused POST passes whatever stands before the server."""
        return self.curve is not None or self.engine

    def at(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        if self.curve is None:
            return np.full(len(tokens), max(0.0, self.flat_ns))
        found: NDArray[np.float64] = np.maximum(self.curve.at(tokens), 0.0)
        return found

    @property
    def constant_ns(self) -> float:
        return max(0.0, self.flat_ns if self.curve is None else self.curve.constant)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What GETs and refused POSTs take beside the workload beyond what they take alone, ns.

    ``get_ns``, ``post_ns``: the mean of each, 0 where it is not more than chance; ``room_ns``: the
    most that the other way can be. None: none were sent.
    """

    get_ns: float | None
    post_ns: float | None
    room_ns: float

    @property
    def most_ns(self) -> float:
        return max(self.get_ns or 0.0, self.post_ns or 0.0)


def path_of(seen: Observations) -> Path | None:
    """None where too few GETs were answered."""
    values = _answers(seen, PATH, "get")
    if len(values) < _FEWEST:
        return None
    floor = huber_mean(values)
    jitter = float(np.quantile(values, 0.9) - np.quantile(values, 0.1))
    return Path(floor, values, floor > HTTP_LAYER_NS, jitter)


def refusals_of(seen: Observations, behind: float, noise: float) -> Refusals | None:
    """``behind``: ns of the way of a GET; ``noise``: of delivery, ns. None: too few refusals."""
    chosen = _refused(seen, PATH)
    if chosen.sum() < _FEWEST:
        return None
    tokens = seen.isl[chosen].astype(float)
    values = (seen.answer[chosen] - behind).astype(float)
    curve = None
    # A refusal that costs the same whatever the prompt was made before anything was read of it.
    if grows(tokens, values, _TOKENISES_NS):
        curve = Curve.fit(tokens, values, scale_of(values, noise))
    engine = seen.words is not None and is_refused_by_an_engine(seen.words[chosen].tolist())
    return Refusals(huber_mean(values), values, curve, engine)


def loaded_of(seen: Observations, refusals: Refusals | None) -> Loaded | None:
    """None where none were sent beside the workload."""
    # Those beside the bursts come first, and say nothing of the workload.
    beside = seen.begin > seen.done[seen.stage == "S6"].max(initial=-1)
    idle, gets = _answers(seen, PATH, "get"), _answers(seen, LOADED_PATH, "get")
    get, room = _more(gets, idle)
    post = None
    chosen = _refused(seen, LOADED_PATH) & beside
    if refusals is not None and chosen.sum() >= _FEWEST:
        alone = seen.answer[_refused(seen, PATH)].astype(float)
        post, other = _more(seen.answer[chosen].astype(float), alone)
        room = max(room, other)
    return Loaded(get, post, room) if get is not None or post is not None else None


def _more(loaded: NDArray[np.float64], idle: NDArray[np.float64]) -> tuple[float | None, float]:
    """(by how much the mean of one exceeds the other's, 0 where chance would do; most of it)."""
    if len(loaded) < _FEWEST or len(idle) < _FEWEST:
        return None, 0.0
    error = float(
        np.hypot(loaded.std(ddof=1) / len(loaded) ** 0.5, idle.std(ddof=1) / len(idle) ** 0.5)
    )
    more = float(loaded.mean() - idle.mean())
    return (more if more > _SURE * error else 0.0), max(0.0, more) + 2 * error


def _answers(seen: Observations, stage: str, scenario: str) -> NDArray[np.float64]:
    chosen = (seen.stage == stage) & (seen.scenario == scenario) & (seen.answer >= 0)
    answers: NDArray[np.float64] = seen.answer[chosen].astype(float)
    return answers


def _refused(seen: Observations, stage: str) -> NDArray[np.bool_]:
    chosen = (seen.stage == stage) & (seen.scenario == "refused") & (seen.answer >= 0)
    refused: NDArray[np.bool_] = chosen & ((seen.status == 400) | (seen.status == 422))
    return refused
