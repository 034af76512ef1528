"""What things cost, as a probe's laws have it: what advice promises an effect from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latdiag.attribution.parts import chosen_rows
from latdiag.diagnosis.shares import POPULATIONS
from latdiag.measurement.stages import WORKLOAD

if TYPE_CHECKING:
    from latdiag.attribution.laws.laws import Laws
    from latdiag.attribution.parts import Parts
    from latdiag.measurement.observations import Observations

#: The stage in which prompts are thrown at running streams.
_THROWN = "S8"


@dataclass(frozen=True, slots=True)
class Costs:
    """ns. ``tpot``: of each population, its decode over its tokens after the first. ``stream``: by
    which each further stream makes a step longer. ``token``: of a prompt's token, computed alone.
    ``pause``: for which one prompt of ``thrown`` tokens stopped running streams in one go, which
    is the time of ``chunk`` of its tokens; 0 where that is not known. ``longest``: prompt of the
    workload, tokens. ``several``: arrivals bring several tokens."""

    tpot: Mapping[str, float]
    stream: float
    token: float
    pause: float
    thrown: int
    chunk: int
    longest: int
    several: bool


def costs_of(laws: Laws, seen: Observations, parts: Parts) -> Costs:
    """``parts``: of the workload."""
    rows = seen.of(WORKLOAD)
    longest = int(laws.own.tokens.max()) if len(laws.own.tokens) else 0
    far, half = (float(laws.own.at(np.array([at]))[0]) for at in (longest, longest // 2))
    token = max(0.0, far - half) / max(1, longest - longest // 2)
    streams = seen.of(_THROWN)
    thrown = int(seen.isl[streams].max()) if len(streams) and laws.sharing.n else 0
    pause = laws.sharing.pause if thrown else 0.0
    work = float(laws.own.at(np.array([thrown]))[0]) - laws.own.constant
    return Costs(
        tpot=_tpot(seen, parts),
        stream=laws.step.stream if laws.step.n else 0.0,
        token=token,
        pause=max(0.0, pause * work),
        thrown=thrown,
        chunk=round(max(0.0, pause) * thrown),
        longest=int(seen.isl[rows].max()) if len(rows) else 0,
        several=laws.delivery.chunk > 1,
    )


def _tpot(seen: Observations, parts: Parts) -> dict[str, float]:
    """Of the populations whose rows are known to be these."""
    rows = seen.of(WORKLOAD)
    source = parts.sources.get("decode")
    alone = "decode" in parts.parts and source is not None and not source.members
    if len(rows) != len(parts.total) or not alone:
        return {}
    later = np.maximum(seen.later(rows), 0)
    found = {}
    for population in POPULATIONS:
        mine = chosen_rows(parts.total, population)
        tokens = int(later[mine].sum())
        if tokens:
            found[population] = float(parts.parts["decode"][mine].sum()) / tokens
    return found
