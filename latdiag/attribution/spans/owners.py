"""Who owns the time of requests: the claims of their servers, swept, as one table."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import MASK, components
from latdiag.attribution.ledger import OVER_NS, OVER_SHARE, united
from latdiag.attribution.nest import narrower
from latdiag.attribution.spans import claims as claiming
from latdiag.attribution.spans.columns import NEVER
from latdiag.attribution.sweep import sweep
from latdiag.measurement.frame import Frame

#: Components that may be told together where no signal parts them: all lie before the first token
#: or between servers.
_MERGEABLE = frozenset({"gateway", "frontend", "queue", "prefill", "interconnect"})
#: Time that no signal parts, of one request, above which it is noticeable.
UNPARTED = 0.01


@dataclass(frozen=True, slots=True)
class Table:
    """Owned time: entry i says that ``ns`` of request ``row``, ``before`` of it until the first
    token, belong to the leaves ``leaves``, by the signal ``meaning``; ``stated``: because a
    signal says so, not because it is left over when others are taken away."""

    row: NDArray[np.int64]
    ns: NDArray[np.int64]
    before: NDArray[np.int64]
    leaves: NDArray[np.int64]
    meaning: NDArray[np.int64]
    stated: NDArray[np.bool_]


def client_stream(
    told: claiming.Claimed, seen: Frame
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last token on the rows' axes: the servers' time lies in the middle of the
    client's, whatever their clocks say."""
    since = seen.sent + seen.client - (seen.sent - seen.begin)
    room = (seen.last - since) - (told.hi - told.lo)
    zero = since + room // 2 - told.lo
    return seen.first - zero, seen.last - zero


def made_stream(
    told: claiming.Claimed, seen: Frame, held: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last token on the rows' axes, as they were made. ``held``: rows whose stream
    something on the path held back: it is shorter at the client than what the servers did after
    all prefill, which is taken instead."""
    first, last = client_stream(told, seen)
    decode, prefill = MASK["decode"], MASK["prefill"]
    covers = told.claims.covers
    mine = told.engine & (covers & prefill != 0) & (covers & decode == 0)
    until = np.full(seen.n, np.iinfo(np.int64).min)
    np.maximum.at(until, told.claims.row[mine], told.claims.end[mine])
    end = np.full(seen.n, np.iinfo(np.int64).min)
    mine = told.engine & (covers & decode != 0)
    np.maximum.at(end, told.claims.row[mine], told.claims.end[mine])
    known = held & (until > np.iinfo(np.int64).min) & (end > until)
    longer = known & (np.where(known, end - until, 0) > last - first)
    return np.where(longer, until, first), np.where(longer, end, last)


def table_of(told: claiming.Claimed, seen: Frame) -> Table:
    leaves = claiming.meanings(told, seen.n)
    good = leaves != 0
    claims = told.claims
    kept = type(claims)(*(getattr(claims, f.name)[good] for f in fields(claims)))
    first, _ = client_stream(told, seen)
    decode = np.array([components(int(v)) == ("decode",) for v in np.unique(leaves[good])])
    streams = decode[np.unique(leaves[good], return_inverse=True)[1]]
    begun = np.full(seen.n, np.iinfo(np.int64).max)
    long = streams & (kept.end > kept.start)
    np.minimum.at(begun, kept.row[long], kept.start[long])
    cut = np.where(begun < np.iinfo(np.int64).max, begun, first)
    cut = np.where(told.first > NEVER, told.first, cut)
    owned = sweep(kept, cut)
    # Where a server hands the first token over before this one begins, the client knows better.
    early = np.zeros(seen.n, dtype=np.int64)
    np.add.at(early, kept.row[owned.claim], owned.before)
    beyond = early - (seen.first - seen.begin - seen.client)
    other = beyond > np.maximum(OVER_NS, (OVER_SHARE * (seen.first - seen.begin)))
    if other.any():
        owned = sweep(kept, np.where(other, first, cut))
    return Table(
        kept.row[owned.claim],
        owned.ns,
        owned.before,
        leaves[good][owned.claim],
        told.meaning[good][owned.claim],
        (narrower(kept) == 0)[owned.claim],
    )


def merges_of(
    table: Table, joined: NDArray[np.bool_], streams: bool = True
) -> dict[str, tuple[str, ...]]:
    """Components that are told together, because in most requests no signal parts a noticeable
    time of theirs. ``streams``: it is known when the first token came, so decode is never among
    them."""
    together = []
    spoken = np.zeros(len(joined), dtype=np.int64)
    np.add.at(spoken, table.row, table.ns)
    for leaves in np.unique(table.leaves).tolist():
        names = set(components(leaves))
        if len(names) < 2 or not names <= (_MERGEABLE if streams else {*_MERGEABLE, "decode"}):
            continue
        mine = table.leaves == leaves
        open_ = np.zeros(len(joined), dtype=np.int64)
        np.add.at(open_, table.row[mine], table.ns[mine])
        if 2 * int((open_ > UNPARTED * spoken).sum()) > int(joined.sum()):
            together.append(names)
    return united(together)
