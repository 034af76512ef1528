"""End-to-end latency in components, as any load proves it without a designed probe.

What lies behind the first hop until the first token cannot be told apart then: it is one merged
class under ``queue``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import MASK
from latdiag.attribution.ledger import Claim, Ledger, Move, Origin, client_claims, mask_of
from latdiag.attribution.parts import Parts
from latdiag.attribution.settle import Whole, settle
from latdiag.measurement.answered import Answered
from latdiag.measurement.ttft_split import first_output, split
from latdiag.model.records import Outcome

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: What the client cannot tell apart: everything behind the first hop until the first token.
BEHIND_THE_HOP = ("queue", "prefill", "frontend", "gateway")
#: The stream, as the client's own stamps have it.
STREAM = Origin(
    "A", "kernel receive stamps, first to last token; time on links between steps is inside"
)
#: What follows the last token (usage, end mark) belongs to no component known here.
AFTER_THE_STREAM = Origin("A", "from the last token to the last byte that counts")
_BEHIND = Origin(
    "E", "kernel receive stamp of the first token minus the ACK: everything behind the first hop"
)


def explain(rows: Answered, left_out: int) -> Parts:
    """Parts of requests with kernel stamps; ``left_out`` successful ones have none.

    In the order of ``sent``, then of length: equal instants are told apart, so that the order in
    which a run is read does not matter.
    """
    behind = rows.first - rows.begin - rows.client - rows.network
    rows = rows.select(np.lexsort((behind, rows.done - rows.begin, rows.sent)))
    whole = Whole(
        rows.done - rows.begin, rows.first - rows.begin, rows.last - rows.first, rows.delayed
    )
    claims = client_claims(rows)
    behind = rows.first - rows.begin - rows.client - rows.network
    claims.append(Claim(mask_of(BEHIND_THE_HOP), behind, (_BEHIND,)))
    claims.append(Claim(MASK["decode"], rows.last - rows.first, (STREAM,), late=True))
    ledger = Ledger(
        claims,
        remainder=AFTER_THE_STREAM,
        leaf_origin=Origin("A", "nothing is known of leaves"),
        merges=dict.fromkeys(BEHIND_THE_HOP, BEHIND_THE_HOP),
        filled=frozenset({"client_ttft", "decode"}),
        moves=(
            Move("network", "queue", (rows.network - rows.network_lo).astype(float)),
            Move("queue", "network", (rows.network_hi - rows.network).astype(float)),
        ),
    )
    return settle(whole, ledger, left_out)


def partition(batches: Iterable[Batch]) -> Parts:
    """Partition every successful row; the others, and those without exact stamps, are counted."""
    pieces, left_out = [], 0
    for batch in batches:
        piece = _piece(batch)
        left_out += int((batch.texts["outcome"] == Outcome.OK.value).sum()) - len(piece["sent"])
        pieces.append(piece)
    names = pieces[0] if pieces else dict.fromkeys(_COLUMNS)
    joined = {
        name: np.concatenate([np.zeros(0, dtype=np.int64), *(each[name] for each in pieces)])
        for name in names
    }
    ids = np.zeros(len(joined["sent"]), dtype=object)
    delayed, kernel = joined.pop("delayed").astype(bool), np.ones(len(ids), dtype=bool)
    rows = Answered(*(ids, ids, ids, ids, ids, ids), **joined, delayed=delayed, kernel=kernel)
    return explain(rows, left_out)


_COLUMNS = (
    *("sent", "begin", "first", "last", "done", "client", "network"),
    *("network_lo", "network_hi", "delayed"),
)


def _piece(batch: Batch) -> dict[str, NDArray[Any]]:
    ttft = split(batch)
    _, _, last = first_output(batch)
    good = batch.texts["outcome"][ttft.row] == Outcome.OK.value
    row = ttft.row[good]
    sent = batch.ints["sent_ns"].values[row]
    due, done = batch.ints["due_ns"], batch.ints["done_ns"]
    lag = np.where(due.valid[row], np.maximum(sent - due.values[row], 0), 0)
    first = sent + ttft.ttft[good]
    return {
        "sent": sent,
        "begin": sent - lag,
        "first": first,
        "last": np.maximum(last[row], first),
        "done": np.where(done.valid[row], done.values[row], last[row]),
        "client": ttft.client[good] + lag,
        "network": ttft.network[good],
        "network_lo": ttft.network_lo[good],
        "network_hi": ttft.network_hi[good],
        "delayed": ttft.delayed[good].astype(np.int64),
    }
