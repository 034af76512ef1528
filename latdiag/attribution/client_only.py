"""End-to-end latency in components, as any load proves it without a designed probe.

What lies behind the first hop until the first token cannot be told apart then: it is one merged
class under ``queue``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from latdiag.attribution.leaves import MASK
from latdiag.attribution.ledger import Claim, Ledger, Move, Origin, client_claims, mask_of
from latdiag.attribution.parts import Parts
from latdiag.attribution.settle import Whole, settle
from latdiag.measurement.frame import Frame

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
    return settle(whole, ledger, int(ok.sum()) - rows.n)
