"""How the output of each request came: chunks, and the gaps between them.

Gaps are summed up row by row while the arrivals go by, so that nothing of the arrivals is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.streams import Streams
from latdiag.model.records import StampSource

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: Chunks that come within this of each other were sent together: an engine's step takes longer.
TOGETHER_NS = 300_000


@dataclass(frozen=True, slots=True)
class Chunks:
    """One entry per row of a frame.

    ``chunks``: events with output; ``tokens`` in them. ``known``: gaps between them that are
    known; ``together``: those that are next to nothing. ``apart``: ns, sum of the others.
    ``judged``: there are some, the kernel stamped them, and no segment was lost among them.
    """

    chunks: NDArray[np.int64]
    tokens: NDArray[np.int64]
    known: NDArray[np.int64]
    together: NDArray[np.int64]
    apart: NDArray[np.int64]
    judged: NDArray[np.bool_]

    def select(self, rows: NDArray[Any]) -> Chunks:
        """These rows alone, in the given order."""
        return Chunks(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def chunks_of(batch: Batch, streams: Streams) -> dict[str, NDArray[Any]]:
    """The columns of ``Chunks`` for the rows of a batch."""
    gaps = streams.icl
    near = gaps.values <= TOGETHER_NS
    ends = np.cumsum(gaps.sizes)

    def per_row(values: NDArray[np.int64]) -> NDArray[np.int64]:
        sums = np.concatenate(([0], np.cumsum(values)))
        found: NDArray[np.int64] = sums[ends] - sums[ends - gaps.sizes]
        return found

    lost, osl = batch.ints["out_of_order"], batch.ints["osl"]
    judged = ~(lost.valid & (lost.values > 0)) & (gaps.sizes > 0)
    return {
        "chunks": streams.outputs,
        "tokens": np.where(osl.valid, osl.values, streams.outputs),
        "known": gaps.sizes,
        "together": per_row(near.astype(np.int64)),
        "apart": per_row(np.where(near, 0, gaps.values)),
        "judged": judged & (batch.texts["stamp_source"] == StampSource.KERNEL.value),
    }


def joined_chunks(pieces: Sequence[dict[str, NDArray[Any]]]) -> Chunks:
    """The rows of one batch after the other."""
    names = [f.name for f in fields(Chunks)]
    if not pieces:
        none = np.zeros(0, dtype=np.int64)
        return Chunks(none, none, none, none, none, np.zeros(0, dtype=bool))
    return Chunks(**{n: np.concatenate([piece[n] for piece in pieces]) for n in names})
