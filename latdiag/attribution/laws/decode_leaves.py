"""What decode consists of: steps alone, in a batch, and what is beyond both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws.laws import Laws, company
from latdiag.attribution.laws.pauses import Pauses

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations


def leaves_of(
    seen: Observations,
    rows: NDArray[np.int64],
    laws: Laws,
    decode: NDArray[np.int64],
    pauses: Pauses,
) -> dict[str, NDArray[np.int64]]:
    """Decode as alone, in a batch, and beyond both: others' prefills, or stalls."""
    if not laws.step.n:
        return {}
    begin, end = seen.first[rows], seen.last[rows]
    steps = seen.later(rows)
    own = seen.isl[rows] + seen.osl[rows] / 2
    streams, contexts = company(seen, np.flatnonzero(seen.usable))
    spans = np.maximum(end, begin + 1)
    others = np.maximum(streams.between(begin, spans) - 1, 0)
    context = np.maximum(contexts.between(begin, spans) - own, 0)
    base = np.minimum(_whole(steps * laws.step.alone(own)), decode)
    batch = _whole(steps * (laws.step.stream * others + laws.step.context * context))
    batch = np.minimum(batch, decode - base)
    found, rest = {"decode.base": base, "decode.batch": batch}, decode - base - batch
    if laws.sharing.verdict != "shared":
        return found | {"decode.stall": rest}
    stalled = np.clip(pauses.stalled, 0, np.maximum(rest, 0))
    found["decode.interference"] = rest - stalled
    return found | {"decode.stall": stalled} if stalled.any() else found


def _whole(ns: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(ns).astype(np.int64)
