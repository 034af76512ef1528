"""Which requests have whole evidence: nothing lost, nothing that contradicts the client."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.evidence import SenderSpans
from latdiag.attribution.ledger import OVER_NS, OVER_SHARE, Merges, is_parted
from latdiag.attribution.spans import claims
from latdiag.attribution.spans.columns import Spans
from latdiag.attribution.spans.owners import UNPARTED, Table
from latdiag.measurement.frame import Frame

#: Fewer requests with whole evidence bear no breakdown.
LEAST = 30
#: And they stand for all, if they are at least this share of the joined.
_ENOUGH = 0.2
#: A span that so many of a server's requests have is missing where it is not there.
_USUAL = 0.9


@dataclass(slots=True)
class Findings:
    """What became of the evidence: counts of requests, by what they were joined, and why others
    are left out. ``medians``: ns per component, of the requests in the breakdown."""

    requests: int = 0
    joined: int = 0
    told: int = 0
    by: dict[str, int] = field(default_factory=dict)
    contradicted: int = 0
    partial: int = 0
    all_kept: bool = False
    duplicates: int = 0
    spans: int = 0
    senders: list[SenderSpans] = field(default_factory=list)
    stacks: tuple[str, ...] = ()
    user_stamps: bool = False
    way: bool = False
    medians: dict[str, float] = field(default_factory=dict)
    #: median end to end of those told and of those left out, ns; 0 where there are too few
    told_ns: float = 0.0
    left_ns: float = 0.0


def complete(
    told: claims.Claimed, table: Table, seen: Frame, facts: Findings, merges: Merges
) -> NDArray[np.int64]:
    """The requests whose evidence is whole. Where they are too few to stand for the others, those
    too whose servers all spoke (``facts.all_kept``): what no signal parts is unattributed then.
    """
    joined = np.zeros(seen.n, dtype=bool)
    joined[told.claims.row] = True
    whole = seen.done - seen.begin
    server = np.zeros(seen.n, dtype=np.int64)
    np.add.at(server, table.row, table.ns)
    limit = np.maximum(OVER_NS, (OVER_SHARE * whole).astype(np.int64))
    over = np.maximum(server - (whole - seen.client), 0)
    contradicted = joined & ((over > limit) | (told.over > limit))
    unparted = np.zeros(seen.n, dtype=np.int64)
    for leaves in np.unique(table.leaves).tolist():
        if not is_parted(leaves, merges):
            mine = table.leaves == leaves
            np.add.at(unparted, table.row[mine], table.ns[mine])
    lacking = _lacks_a_server(told.spans, seen.n)
    gaps = (unparted > UNPARTED * whole) | _lacks_a_span(told.spans, seen.n)
    partial = joined & (gaps | lacking)
    facts.contradicted = int(contradicted.sum())
    facts.partial = int((partial & ~contradicted).sum()) + facts.joined - int(joined.sum())
    keep = np.flatnonzero(joined & ~contradicted & ~partial)
    n = int(joined.sum())
    if len(keep) < max(min(LEAST, n), _ENOUGH * n):
        facts.all_kept = True
        keep = np.flatnonzero(joined & ~contradicted & ~lacking)
    return keep


def _lacks_a_server(spans: Spans, rows: int) -> NDArray[np.bool_]:
    """Requests without a kind of server (stack and role) that goes with one that they have."""
    has, _ = _presence(
        [f"{s}|{r}" for s, r in zip(spans.stack.tolist(), spans.role.tolist(), strict=True)],
        spans.row,
        rows,
    )
    together = has.T.astype(np.int64) @ has.astype(np.int64)
    # Row j: of the requests with kind j, most have kind k too.
    wanted = 2 * together > np.diag(together)[:, None]
    lacks: NDArray[np.bool_] = np.any((has.astype(np.int64) @ wanted > 0) & ~has, axis=1)
    return lacks


def _lacks_a_span(spans: Spans, rows: int) -> NDArray[np.bool_]:
    """Requests without a span around others that nearly all have that were at such a server: with
    it goes where the others lie. One that holds nothing may not be there because nothing was.
    """
    kinds = [f"{s}|{r}" for s, r in zip(spans.stack.tolist(), spans.role.tolist(), strict=True)]
    of_kind, kind_codes = _presence(kinds, spans.row, rows)
    of_span, span_codes = _presence([str(code) for code in spans.signal], spans.row, rows)
    lacks: NDArray[np.bool_] = np.zeros(rows, dtype=bool)
    around = [any(other.covers < one.covers for other in spans.signals) for one in spans.signals]
    for code in range(of_span.shape[1]):
        at = int(spans.signal[int(np.argmax(span_codes == code))])
        if not around[at]:
            continue
        kind = int(kind_codes[int(np.argmax(span_codes == code))])
        there, all_ = of_span[:, code], of_kind[:, kind]
        if there.sum() > _USUAL * all_.sum():
            lacks[all_ & ~there] = True
    return lacks


def _presence(
    words: list[str], row: NDArray[np.int64], rows: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(rows x distinct words: whether a row has the word; the word of each entry)."""
    distinct, codes = np.unique(np.array(words, dtype=str), return_inverse=True)
    has = np.zeros((rows, len(distinct)), dtype=bool)
    has[row, codes] = True
    return has, codes
