"""End-to-end latency in components, as any load proves it without a designed probe.

What lies behind the first hop until the first token cannot be told apart then: it is one merged
class under ``queue``. As much of it may be decode as the tokens take that are counted and did not
come.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import MASK
from latdiag.attribution.ledger import Claim, Ledger, Move, Origin, client_claims, mask_of
from latdiag.attribution.parts import Parts
from latdiag.attribution.settle import Whole, settle
from latdiag.measurement.frame import Frame
from latdiag.measurement.unsent import unsent_of
from latdiag.model.units import NS_PER_MS

#: What the client cannot tell apart: everything behind the first hop until the first token.
BEHIND_THE_HOP = ("queue", "prefill", "frontend", "gateway")
#: The stream, as the client's own stamps have it.
STREAM = Origin(
    "A", "kernel receive stamps, first to last token; includes time on links between steps"
)
#: What follows the last token (usage, end mark) belongs to no component known here.
AFTER_THE_STREAM = Origin("A", "from the last token to the last byte that counts")
#: The end of a stream comes with its last token, or when the engine has made a stop token more:
#: so many steps later at most.
_STOP_STEPS = 2
#: Later than this, whatever the step; below it the end is as good as there.
_AT_ONCE_NS = 2 * NS_PER_MS
#: So much of the requests' time has to lie there to look for who had it.
_WORTH = 0.005
#: Tokens that are counted and were not sent, made before those that were.
_WITHHELD = Origin(
    "E",
    "tokens that replies count and do not send, each as long as from one that came to the next",
)
_BEHIND = Origin(
    "E", "kernel receive stamp of the first token minus the ACK: everything behind the first hop"
)


def held_end(
    after: NDArray[np.int64],
    stream: NDArray[np.int64],
    outputs: NDArray[np.int64],
    trip: NDArray[np.int64],
) -> NDArray[np.int64]:
    """How long something held the end of each stream back, ns; 0 where nothing needs to have.

    ``after``: from the last token to the end of the reply; ``stream``: from the first token to
    the last; ``outputs``: events with output; ``trip``: a round trip of the connection.
    """
    step = stream // np.maximum(outputs - 1, 1)
    limit = np.maximum(_STOP_STEPS * step, trip) + _AT_ONCE_NS
    return np.where(after > limit, after, 0)


def end_claim(held: NDArray[np.int64], total: NDArray[np.int64], gateway: bool) -> Claim | None:
    """The claim on ``held_end``: a gateway's where one showed itself (``gateway``), else its or
    the frontend's. None where it is next to nothing of ``total``, the whole of each request."""
    if int(held.sum()) <= _WORTH * int(total.sum()):
        return None
    what = "from the last token to the end of the stream, more than a step or the network explain"
    if gateway:
        origin = Origin("C", f"{what}; a gateway showed itself")
        return Claim(MASK["gateway"], held, (origin,), ended=True)
    return Claim(mask_of(("frontend", "gateway")), held, (Origin("E", what),), ended=True)


def partition(frame: Frame) -> Parts:
    """Every successful row of the workload; those without exact stamps are counted.

    In the order of ``sent``, then of length: equal instants are told apart, so that the order in
    which a run is read does not matter.
    """
    ok = frame.ok & frame.workload
    at = np.flatnonzero(ok & frame.kernel)
    keys = (frame.first - frame.begin - frame.client - frame.network, frame.done - frame.begin)
    rows = frame.select(at[np.lexsort((keys[0][at], keys[1][at], frame.sent[at]))])
    rows = replace(rows, last=np.maximum(rows.last, rows.first))
    whole = Whole(
        rows.done - rows.begin,
        rows.first - rows.begin,
        rows.last - rows.first,
        rows.delayed,
        row=rows.row,
    )
    claims = client_claims(rows)
    behind = rows.first - rows.begin - rows.client - rows.network
    unsent = unsent_of(rows)
    most, made = unsent.early_ns(behind), unsent.withheld_ns(behind)
    claims.append(Claim(mask_of(BEHIND_THE_HOP), behind - made, (_BEHIND,)))
    claims.append(Claim(MASK["decode"], rows.last - rows.first, (STREAM,), late=True))
    if made.any():
        claims.append(Claim(MASK["decode"], made, (_WITHHELD,)))
    held = held_end(rows.done - rows.last, rows.last - rows.first, rows.outputs, rows.network)
    if (end := end_claim(held, whole.total, gateway=False)) is not None:
        claims.append(end)  # as what lies before the first token, it may be anybody's there
    ledger = Ledger(
        claims,
        remainder=AFTER_THE_STREAM,
        leaf_origin=Origin("A", "nothing is known of leaves"),
        merges=dict.fromkeys(BEHIND_THE_HOP, BEHIND_THE_HOP),
        filled=frozenset({"client_ttft", "decode"}),
        moves=(
            Move("network", "queue", (rows.network - rows.network_lo).astype(float)),
            Move("queue", "network", (rows.network_hi - rows.network).astype(float)),
            Move("queue", "decode", (most - made).astype(float)),
            Move("decode", "queue", made.astype(float)),
        ),
    )
    return settle(whole, ledger, int(ok.sum()) - rows.n)
