"""What the replies of a run stated of times that lie in a span."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from latdiag.attribute.answered import Answered
from latdiag.ingest import replies
from latdiag.stacks.signal import Stack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latdiag.store.batch import Batch
    from latdiag.store.run import Run

_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}


def stated(run: Run, seen: Answered, known: Sequence[Stack]) -> dict[str, NDArray[np.float64]]:
    """What replies stated of each answered request that a span bears, by the signal's foreign
    name and in its unit; NaN where one did not."""
    import numpy as np

    borne = [s for stack in known for s in stack.signals if s.kind == "reply" and s.bearer]
    found = {signal.foreign: np.full(seen.n, np.nan) for signal in borne}
    place = {name: row for row, name in enumerate(seen.request_id.tolist())}
    at: list[int] = []

    def noted() -> Iterator[Batch]:
        for batch in run.batches(["request_id", *replies.COLUMNS]):
            at.extend(place.get(name, -1) for name in batch.texts["request_id"].tolist())
            yield batch

    for column in replies.replies(noted(), borne).columns.values():
        rows = np.array(at, dtype=np.int64)[column.rows]
        mine = rows >= 0
        values = column.values[mine] / _NS[column.signal.unit]
        found[column.signal.foreign][rows[mine]] = values
    return found
