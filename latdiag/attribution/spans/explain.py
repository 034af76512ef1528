"""End-to-end latency in components, as servers state them of each request (grade A).

The client's interval is the whole; the servers' intervals enter it as lengths alone::

    client + network     the client's own stamps (``ttft_split``), up to the first hop
    server's components  who owns each nanosecond of the servers' spans (``sweep``)
    the way              what is left, where even the fastest request has some of it
    unattributed         what is left else; less than nothing where servers state too much
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.evidence import SenderSpans
from latdiag.attribution.leaves import BIT, MASK
from latdiag.attribution.ledger import (
    Claim,
    Ledger,
    Merges,
    Move,
    Origin,
    client_claims,
    is_parted,
    key_of,
    united,
)
from latdiag.attribution.parts import Parts
from latdiag.attribution.settle import Whole, settle, unclaimed
from latdiag.attribution.spans import claims as claiming
from latdiag.attribution.spans.columns import LONGEST_NS, NEVER, Spans
from latdiag.attribution.spans.complete import LEAST, Findings, complete
from latdiag.attribution.spans.join import Requests, join
from latdiag.attribution.spans.owners import Table, made_stream, merges_of, table_of
from latdiag.measurement import frame as frames
from latdiag.measurement.frame import Frame

#: An HTTP layer answers within this: what is more, in the fastest requests too, is a way.
WAY_NS = 5_000_000
_WAY_QUANTILE = 0.05


def explain(
    found: Spans,
    seen: Frame,
    stated: Mapping[str, NDArray[np.float64]] = MappingProxyType({}),
    held: NDArray[np.bool_] | None = None,
) -> tuple[Parts | None, Findings, Spans]:
    """(Parts of the requests whose servers spoke, None where too few did; what became of the
    evidence; the spans that were joined). ``stated``: in replies, see ``with_reply_spans``;
    ``held``: requests whose stream came many events at a time."""
    ids = (seen.trace_id, seen.span_id, seen.request_id, seen.response_id)
    spans = with_reply_spans(join(found, Requests(*(each.tolist() for each in ids))), stated)
    spans = _until_the_reply_ends(spans, seen)
    facts = Findings(requests=seen.n, by=spans.joined_by, duplicates=spans.duplicates)
    facts.joined = len(np.unique(spans.row))
    facts.spans = spans.n
    facts.user_stamps = bool(seen.n and not seen.kernel.all())
    note_senders(facts, spans)
    if not (spans.signal >= 0).any():
        return None, facts, spans
    told = claiming.claimed(spans, seen.n)
    held = np.zeros(seen.n, dtype=bool) if held is None else held
    told = claiming.with_decode(told, *made_stream(told, seen, held), claiming.CLIENT_STREAM)
    table = table_of(told, seen)
    merges = merges_of(table, told.joined)
    keep = complete(told, table, seen, facts, merges)
    _note_left(facts, seen, keep)
    if not len(keep) or (len(keep) < LEAST and 2 * len(keep) < seen.n):
        return None, facts, spans
    facts.told = len(keep)
    return _parts(told, table, seen, keep, facts, merges), facts, spans


def with_reply_spans(spans: Spans, stated: Mapping[str, NDArray[np.float64]]) -> Spans:
    """Joined spans, with what replies stated of their requests among their values.

    ``stated``: by the signal's foreign name, one entry a request, in the signal's unit, NaN where
    a reply did not say it.
    """
    values = {name: column[spans.row] for name, column in stated.items()}
    return replace(spans, values=spans.values | values)


def _until_the_reply_ends(spans: Spans, seen: Frame) -> Spans:
    """With those that may end long after it no longer than their requests, which bear no more."""
    late = np.array([*(signal.outlasts for signal in spans.signals), False])[spans.signal]
    longest = np.where(late, (seen.done - seen.begin)[spans.row], LONGEST_NS)
    return replace(spans, end=np.minimum(spans.end, spans.start + longest))


def _note_left(facts: Findings, seen: Frame, keep: NDArray[np.int64]) -> None:
    """How long those took that are told, and those that are not."""
    whole = seen.done - seen.begin
    left = np.delete(whole, keep)
    if min(len(left), len(keep)) >= 10:
        facts.told_ns, facts.left_ns = float(np.median(whole[keep])), float(np.median(left))


def note_senders(facts: Findings, spans: Spans) -> None:
    for code, name in enumerate(spans.senders):
        mine = np.flatnonzero(spans.sender == code)
        if not len(mine):
            continue
        stack = int(spans.stack[mine[0]])
        roles = sorted({str(role) for role in spans.role[mine]})
        named = spans.stacks[stack].name if stack >= 0 else None
        requests = len(np.unique(spans.row[mine]))
        facts.senders.append(SenderSpans(name, named, tuple(roles), len(mine), requests))
    facts.stacks = tuple(dict.fromkeys(s.stack for s in facts.senders if s.stack))


# ---------------------------------------------------------------------- the parts
def _parts(
    told: claiming.Claimed,
    table: Table,
    seen: Frame,
    keep: NDArray[np.int64],
    facts: Findings,
    merges: Merges,
) -> Parts:
    place = np.full(seen.n, -1, dtype=np.int64)
    place[keep] = np.arange(len(keep))
    kept = seen.select(keep)
    whole = Whole.of(kept)
    servers = server_claims(told, table, place, len(keep), merges, facts.all_kept)
    claims = [*client_claims(kept), *servers]
    left, until_first = unclaimed(whole, claims, merges)
    silent, silent_first = _silent(servers, merges, len(keep))
    way = _way(left - silent, until_first - silent_first, kept)
    if way is not None:
        facts.way = True
        origins = client_claims(kept)[1].origins
        layers = {stack.name: stack.layer for stack in told.spans.stacks}
        if members := _way_members(facts, layers):
            merges = united([members, *merges.values()])
            origins = (Origin("E", "and what is left beyond every server's own span"),)
        claims.append(Claim(MASK["network"], way[0], origins, before=way[1]))
        left = left - way[0]
    ledger = Ledger(
        claims,
        remainder=Origin("A", "the total minus everything that is stated or stamped"),
        leaf_origin=LEAF_ORIGIN,
        merges=merges,
        moves=list(
            _moves(kept, servers, merges, facts, left, _waits(told, table, place, len(keep)))
        ),
        limits={"unattributed": np.maximum(left, 0).astype(float)},
    )
    parts = settle(whole, ledger, seen.n - len(keep))
    facts.medians = {name: float(np.median(values)) for name, values in parts.parts.items()}
    return parts


LEAF_ORIGIN = Origin("A", "spans that cover only this")


def server_claims(
    told: claiming.Claimed,
    table: Table,
    place: NDArray[np.int64],
    rows: int,
    merges: Merges,
    gaps: bool,
) -> list[Claim]:
    """What servers own of each request, a claim per set of leaves. ``place``: where each request
    of the table stands among the ``rows``, -1 for nowhere. ``gaps``: spans were lost, so that it
    may be more."""
    claims = []
    at = place[table.row]
    for leaves in np.unique(table.leaves).tolist():
        mine = table.leaves == leaves
        meanings = np.unique(table.meaning[mine]).tolist()
        merged = key_of(leaves, merges) in merges
        origins = tuple(_origin(told, code, merged, gaps) for code in meanings)
        for stated in (True, False):
            chosen = np.flatnonzero(mine & (table.stated == stated))
            if not len(chosen):
                continue
            columns = []
            chosen = chosen[at[chosen] >= 0]
            for amounts in (table.ns, table.before):
                column = np.zeros(rows, dtype=np.int64)
                np.add.at(column, at[chosen], amounts[chosen])
                columns.append(column)
            alone = stated and len(chosen) > 0 and leaves.bit_count() == 1
            claims.append(Claim(leaves, columns[0], origins, before=columns[1], stated=alone))
    return claims


def _origin(told: claiming.Claimed, code: int, merged: bool, gaps: bool) -> Origin:
    """``code``: of a signal, or of a stream of tokens."""
    grade = "E" if merged else "D" if gaps else "A"
    if code == claiming.CLIENT_STREAM:
        return Origin(grade, "spans of ", "the client's first to last token")
    if code == claiming.SERVER_STREAM:
        return Origin(grade, "spans of ", "the first token that the server states to the end")
    stack = next(s for s in told.spans.stacks if s.name == told.stack_of[code])
    signal = told.signals[code]
    if grade == "A" and (stack.provenance != "captured" or signal.documented):
        grade = "B"
    return Origin(grade, "spans of ", f"{stack.title}: {signal.foreign.strip()}")


def _silent(
    claims: Sequence[Claim], merges: Merges, rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """ns per request inside a server's own span that no signal parts, in all and until the first
    token."""
    open_ = [claim for claim in claims if not is_parted(claim.leaves, merges)]
    nothing = np.zeros(rows, dtype=np.int64)
    return sum((c.ns for c in open_), nothing), sum((c.early for c in open_), nothing)


def _way(
    left: NDArray[np.int64], until_first: NDArray[np.int64], kept: Frame
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """ns per request that are left beyond every server's span, in all and until the first token,
    where even the fastest requests have more of it than an HTTP layer takes; None elsewhere.

    What comes after the first token is of the way too: it may draw a stream out. A client that
    stamps in user space may have made it itself: there it proves nothing.
    """
    if 2 * int(kept.kernel.sum()) <= kept.n:
        return None
    left, until_first = np.maximum(left, 0), np.maximum(until_first, 0)
    both = np.minimum(left, until_first)
    if float(np.quantile(both[kept.kernel], _WAY_QUANTILE)) <= WAY_NS:
        return None
    in_all = np.where(kept.kernel, left, 0)
    return in_all, np.minimum(until_first, in_all)


def _way_members(facts: Findings, layers: Mapping[str, str]) -> tuple[str, ...]:
    """What the way may be: a gateway that says nothing, and what a server does before its span
    begins, as one whose HTTP loop is busy. ``layers``: of the stacks, by name."""
    if any(layers.get(name) == "gateway" for name in facts.stacks):
        return ()
    return ("network", "gateway", "frontend")


def _waits(
    told: claiming.Claimed, table: Table, place: NDArray[np.int64], rows: int
) -> NDArray[np.float64]:
    """ns per request of one server's wait for another that no span states, where the two may have
    begun at different times: then it is the later one's frontend as well."""
    found = np.zeros(rows)
    at = place[table.row]
    open_ = (table.leaves == BIT["interconnect.wait"]) & ~table.stated & told.loose[table.row]
    mine = open_ & (at >= 0)
    np.add.at(found, at[mine], table.ns[mine])
    return found


def _moves(
    kept: Frame,
    servers: Sequence[Claim],
    merges: Merges,
    facts: Findings,
    unattributed: NDArray[np.int64],
    waits: NDArray[np.float64],
) -> Iterator[Move]:
    """What is left open: between network and what nobody claims, as far as the client's stamps
    prove it; with gaps in the evidence, between that and every server's component."""
    rest = np.maximum(unattributed, 0).astype(float)
    if not facts.way:  # else what the stamps leave open is in the same part
        room = (kept.network_hi - kept.network).astype(float)
        less = (kept.network - kept.network_lo).astype(float)
        yield Move("network", "unattributed", less)
        yield Move("unattributed", "network", np.where(kept.kernel, np.minimum(room, rest), rest))
    if not kept.kernel.all():
        yield Move("unattributed", "client", np.where(kept.kernel, 0.0, rest))
    if waits.any():
        yield Move("interconnect", "frontend", waits)
    if facts.all_kept:
        names = dict.fromkeys(key_of(claim.leaves, merges) for claim in servers)
        for name in names.keys() - {"unattributed"}:
            yield Move("unattributed", name, rest)


# ---------------------------------------------------------------------- without a client
@dataclass(frozen=True, slots=True)
class Served:
    """What spans say of traffic that no client of ours has seen. ``parts``: None where too few
    traces could be taken apart; ``traces``: the ids of all; ``kept``: for each row of ``parts``
    its place among them; ``spans``: those that were joined, ``row`` being that place; ``timed``:
    which rows of ``parts`` have a first token that a server states."""

    parts: Parts | None
    facts: Findings
    traces: NDArray[np.str_]
    kept: NDArray[np.int64]
    spans: Spans
    timed: NDArray[np.bool_]


def server_only(found: Spans) -> tuple[Parts | None, Findings]:
    """(Parts of all traces, None where there are too few; what became of the evidence)."""
    made = served(found)
    return made.parts, made.facts


def served(found: Spans) -> Served:
    """Where the servers' own time went.

    Of traffic that no client of ours has seen: a request is a trace that an engine or a gateway
    has spans of. Its interval (``server``) is what those take, laid on one axis; what the client
    and the network took is not known, and not counted.
    """
    traces, first = np.unique(found.trace.astype(str), return_index=True)
    # In the order of time, as far as their senders' clocks agree on one.
    traces = traces[np.argsort(found.start[first], kind="stable")]
    none: list[str | None] = [None] * len(traces)
    spans = join(found, Requests(traces.tolist(), none, none, none))
    facts = Findings(requests=len(traces), by=spans.joined_by, duplicates=spans.duplicates)
    facts.joined, facts.spans = len(np.unique(spans.row)), spans.n
    note_senders(facts, spans)
    nothing = Served(None, facts, traces, np.zeros(0, np.int64), spans, np.zeros(0, bool))
    if not (spans.signal >= 0).any():
        return nothing
    told = claiming.claimed(spans, len(traces))
    told = claiming.with_decode(told, told.first, told.last, claiming.SERVER_STREAM)
    seen = _as_seen(told, traces)
    table = table_of(told, seen)
    # Where no server says when the first token left, decode is merged with what comes before.
    joined = told.joined
    streams = 2 * int((told.first[joined] > NEVER).sum()) > int(joined.sum())
    merges = merges_of(table, joined, streams)
    keep = complete(told, table, seen, facts, merges)
    if len(keep) < min(LEAST, len(traces)):
        return nothing
    facts.told = len(keep)
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
        remainder=Origin("A", "the total minus everything that is stated or stamped"),
        leaf_origin=LEAF_ORIGIN,
        merges=merges,
    )
    parts = settle(whole, ledger, seen.n - len(keep))
    facts.medians = {name: float(np.median(values)) for name, values in parts.parts.items()}
    return Served(parts, facts, traces, keep, spans, told.first[keep] > NEVER)


def _as_seen(told: claiming.Claimed, traces: NDArray[np.str_]) -> Frame:
    """What a client would have seen that sat in the first server."""
    n = len(traces)
    zero, ids = np.zeros(n, dtype=np.int64), traces.astype(object)
    done = told.hi - told.lo
    first = np.where(told.first > NEVER, told.first - told.lo, done)
    columns = {"request_id": ids, "trace_id": ids, "scenario": ids, "clock_id": ids}
    ends = {"first": np.clip(first, 0, done), "last": done, "done": done}
    return frames.joined([columns | ends | {"sent": zero, "kernel": np.ones(n, dtype=bool)}])
