"""Where servers' own time went, of traffic that no client of ours has seen (interval ``server``).

A request is a trace that an engine or a gateway has spans of. Its interval is what those take,
laid on one axis; what the client and the network took is not known, and not counted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.ledger import Ledger, Origin
from latdiag.attribution.parts import Parts
from latdiag.attribution.settle import Whole, settle
from latdiag.attribution.spans import claims
from latdiag.attribution.spans.columns import NEVER, Spans
from latdiag.attribution.spans.complete import LEAST, complete
from latdiag.attribution.spans.explain import LEAF_ORIGIN, note_senders, server_claims
from latdiag.attribution.spans.findings import Findings
from latdiag.attribution.spans.join import Requests, join
from latdiag.attribution.spans.owners import merges_of, table_of
from latdiag.measurement.answered import Answered


def served(found: Spans) -> tuple[Parts | None, Findings]:
    """(Parts of all traces, None where there are too few; what became of the evidence)."""
    traces, first = np.unique(found.trace.astype(str), return_index=True)
    # In the order of time, as far as their senders' clocks agree on one.
    traces = traces[np.argsort(found.start[first], kind="stable")]
    none: list[str | None] = [None] * len(traces)
    spans = join(found, Requests(traces.tolist(), none, none, none))
    facts = Findings(requests=len(traces), by=spans.joined_by, duplicates=spans.duplicates)
    facts.joined, facts.spans = len(np.unique(spans.row)), spans.n
    note_senders(facts, spans)
    if not (spans.signal >= 0).any():
        return None, facts
    told = claims.claimed(spans, len(traces))
    seen = _as_seen(told, traces)
    table = table_of(told, seen)
    keep = complete(told, table, seen, facts)
    facts.told = len(keep)
    if len(keep) < min(LEAST, len(traces)):
        return None, facts
    joined = np.zeros(seen.n, dtype=bool)
    joined[told.claims.row] = True
    merges = merges_of(table, joined)
    place = np.full(seen.n, -1, dtype=np.int64)
    place[keep] = np.arange(len(keep))
    total = seen.done[keep]
    whole = Whole(
        total,
        seen.first[keep],
        total - seen.first[keep],
        np.zeros(len(keep), bool),
        interval="server",
    )
    ledger = Ledger(
        server_claims(told, table, place, len(keep), merges, facts.all_kept),
        remainder=Origin("A", "the whole less everything that is stated or stamped"),
        leaf_origin=LEAF_ORIGIN,
        merges=merges,
    )
    parts = settle(whole, ledger, seen.n - len(keep))
    facts.medians = {name: float(np.median(values)) for name, values in parts.parts.items()}
    return parts, facts


def _as_seen(told: claims.Claimed, traces: NDArray[np.str_]) -> Answered:
    """What a client would have seen that sat in the first server."""
    n = len(traces)
    zero, ids = np.zeros(n, dtype=np.int64), traces.astype(object)
    done = told.hi - told.lo
    first = np.where(told.first > NEVER, told.first - told.lo, done)
    return Answered(
        *(ids, ids, ids, ids, ids, ids),
        *(zero, zero, np.clip(first, 0, done), done, done, zero, zero, zero, zero),
        delayed=np.zeros(n, dtype=bool),
        kernel=np.ones(n, dtype=bool),
    )
