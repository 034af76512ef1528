"""End-to-end latency in components, as servers state them of each request (grade A).

The client's interval is the whole; the servers' intervals enter it as lengths alone::

    client + network     the client's own stamps (``ttft_split``), up to the first hop
    server's components  who owns each nanosecond of the servers' spans (``sweep``)
    the way              what is left, where even the fastest request has some of it
    unattributed         what is left else; less than nothing where servers state too much
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import BIT, MASK, components
from latdiag.attribution.parts import Parts, Source
from latdiag.attribution.spans import claims as claiming
from latdiag.attribution.spans.borne import with_replies
from latdiag.attribution.spans.columns import Spans
from latdiag.attribution.spans.complete import LEAST, complete
from latdiag.attribution.spans.findings import Findings
from latdiag.attribution.spans.join import Requests, join
from latdiag.attribution.spans.owners import Table, client_stream, is_parted, merges_of, table_of
from latdiag.measurement.answered import Answered
from latdiag.model.components import COMPONENTS

#: An HTTP layer answers within this: what is more, in the fastest requests too, is a way.
WAY_NS = 5_000_000
_WAY_QUANTILE = 0.05


def explain(
    found: Spans, seen: Answered, stated: Mapping[str, NDArray[np.float64]] = MappingProxyType({})
) -> tuple[Parts | None, Findings, Spans]:
    """(Parts of the requests whose servers spoke, None where too few did; what became of the
    evidence; the spans that were joined). ``stated``: in replies, see ``with_replies``."""
    ids = (seen.trace_id, seen.span_id, seen.request_id, seen.response_id)
    spans = with_replies(join(found, Requests(*(each.tolist() for each in ids))), stated)
    facts = Findings(requests=seen.n, by=spans.joined_by, duplicates=spans.duplicates)
    facts.joined = len(np.unique(spans.row))
    facts.spans = spans.n
    facts.user_stamps = bool(seen.n and not seen.kernel.all())
    note_senders(facts, spans)
    if not (spans.signal >= 0).any():
        return None, facts, spans
    told = claiming.claimed(spans, seen.n)
    told = claiming.with_client_decode(told, *client_stream(told, seen))
    table = table_of(told, seen)
    keep = complete(told, table, seen, facts)
    facts.told = len(keep)
    _note_left(facts, seen, keep)
    if not len(keep) or (len(keep) < LEAST and 2 * len(keep) < seen.n):
        return None, facts, spans
    return _parts(told, table, seen, keep, facts), facts, spans


def _note_left(facts: Findings, seen: Answered, keep: NDArray[np.int64]) -> None:
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
        facts.senders[name] = {
            "stack": spans.stacks[stack].name if stack >= 0 else None,
            "roles": roles,
            "spans": len(mine),
            "requests": len(np.unique(spans.row[mine])),
        }
    facts.stacks = tuple(
        dict.fromkeys(str(s["stack"]) for s in facts.senders.values() if s["stack"])
    )


# ---------------------------------------------------------------------- the parts
def _parts(
    told: claiming.Claimed,
    table: Table,
    seen: Answered,
    keep: NDArray[np.int64],
    facts: Findings,
) -> Parts:
    joined = np.zeros(seen.n, dtype=bool)
    joined[told.claims.row] = True
    merges = merges_of(table, joined)
    place = np.full(seen.n, -1, dtype=np.int64)
    place[keep] = np.arange(len(keep))
    kept = seen.select(keep)
    books = {"all": (kept.done - kept.begin, table.ns)}
    books["first"] = (kept.first - kept.begin, table.before)
    columns, sums = {}, {}
    for which, (whole, amounts) in books.items():
        columns[which] = columns_of(table, amounts, place, len(keep), merges)
        spoken = sum(columns[which].values(), np.zeros(len(keep), dtype=np.int64))
        sums[which] = whole - kept.client - kept.network - spoken
    silent = {w: _silent(table, a, place, len(keep), merges) for w, (_, a) in books.items()}
    way = _way(sums, silent, kept)
    facts.way = bool(way["all"].any())
    found = {"client": kept.client, "network": kept.network + way["all"], **columns["all"]}
    early = {"client": kept.client, "network": kept.network + way["first"], **columns["first"]}
    members = _way_members(told, facts) if facts.way else ()
    if "frontend" in members and "frontend" in found:
        for each in (found, early):
            each["network"] = each["network"] + each.pop("frontend")
        columns["all"].pop("frontend")
    found["unattributed"] = sums["all"] - way["all"]
    early["unattributed"] = sums["first"] - way["first"]
    after = [*columns["all"], "network"] if facts.way else columns["all"]
    late = {name: found[name] - early[name] for name in after}
    stream = kept.last - kept.first
    late["unattributed"] = stream - sum(late.values(), np.zeros(len(keep), dtype=np.int64))
    order = [name for name in COMPONENTS if name in found]
    found = {name: found[name] for name in order}
    facts.medians = {name: float(np.median(values)) for name, values in found.items()}
    return Parts(
        total=kept.done - kept.begin,
        ttft=kept.first - kept.begin,
        parts=found,
        delayed=kept.delayed & kept.kernel,
        left_out=seen.n - len(keep),
        sources=sources_of(told, table, merges, facts.all_kept) | client_sources(kept, members),
        slack=_slack(kept, found, facts, _waits(told, table, place, len(keep))),
        leaves=leaves_of(table, place, len(keep)),
        leaf_source=Source("A", "spans that hold nothing but it"),
        segment=np.unique(kept.scenario.astype(str), return_inverse=True)[1],
        within={
            "client_ttft": {name: early[name] for name in order},
            "decode": {name: late[name] for name in COMPONENTS if name in late},
        },
    )


def columns_of(
    table: Table,
    amounts: NDArray[np.int64],
    place: NDArray[np.int64],
    rows: int,
    merges: Mapping[str, tuple[str, ...]],
) -> dict[str, NDArray[np.int64]]:
    """ns per request and component; what no signal parts stays out."""
    found: dict[str, NDArray[np.int64]] = {}
    at = place[table.row]
    for leaves in np.unique(table.leaves).tolist():
        if not is_parted(leaves, merges):
            continue
        first = components(leaves)[0]
        name = merges.get(first, (first,))[0]
        column = found.setdefault(name, np.zeros(rows, dtype=np.int64))
        mine = (table.leaves == leaves) & (at >= 0)
        np.add.at(column, at[mine], amounts[mine])
    return found


def _silent(
    table: Table,
    amounts: NDArray[np.int64],
    place: NDArray[np.int64],
    rows: int,
    merges: Mapping[str, tuple[str, ...]],
) -> NDArray[np.int64]:
    """ns per request inside a server's own span that no signal parts."""
    found = np.zeros(rows, dtype=np.int64)
    at = place[table.row]
    for leaves in np.unique(table.leaves).tolist():
        if not is_parted(leaves, merges):
            mine = (table.leaves == leaves) & (at >= 0)
            np.add.at(found, at[mine], amounts[mine])
    return found


def _way(
    left: Mapping[str, NDArray[np.int64]],
    silent: Mapping[str, NDArray[np.int64]],
    kept: Answered,
) -> dict[str, NDArray[np.int64]]:
    """ns per request that are left beyond every server's span, in all and until the first token,
    where even the fastest requests have more of it than an HTTP layer takes.

    What comes after the first token is of the way too: it may draw a stream out. A client that
    stamps in user space may have made it itself: there it proves nothing.
    """
    none = dict.fromkeys(left, np.zeros(kept.n, dtype=np.int64))
    if 2 * int(kept.kernel.sum()) <= kept.n:
        return none
    beyond = {name: np.maximum(values - silent[name], 0) for name, values in left.items()}
    both = np.minimum(beyond["all"], beyond["first"])
    if float(np.quantile(both[kept.kernel], _WAY_QUANTILE)) <= WAY_NS:
        return none
    whole = np.where(kept.kernel, beyond["all"], 0)
    return {"all": whole, "first": np.minimum(beyond["first"], whole)}


def _way_members(told: claiming.Claimed, facts: Findings) -> tuple[str, ...]:
    """What the way may be: a gateway that says nothing, and, where no server has a span of all
    that it does with a request, what it does before."""
    layers = {stack.name: stack.layer for stack in told.spans.stacks}
    if any(layers[name] == "gateway" for name in facts.stacks if name in layers):
        return ()
    front = BIT["frontend.parse"]
    claims = told.claims
    around = (claims.rest == front) & (claims.covers != MASK["frontend"])
    several = 2 * len(set(claims.row[around].tolist())) > len(set(claims.row.tolist()))
    return ("network", "gateway") if several else ("network", "gateway", "frontend")


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


def _slack(
    kept: Answered,
    found: Mapping[str, NDArray[np.int64]],
    facts: Findings,
    waits: NDArray[np.float64],
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """What is left open: between network and what nobody claims, as far as the client's stamps
    prove it; with gaps in the evidence, between that and every server's component."""
    none = np.zeros(kept.n)
    rest = np.maximum(found["unattributed"], 0).astype(float)
    less = (kept.network - kept.network_lo).astype(float)
    room = (kept.network_hi - kept.network).astype(float)
    more = np.where(kept.kernel, np.minimum(room, rest), rest)
    slack = {"network": (less, more), "unattributed": (more, less)}
    if facts.way:  # what the stamps leave open is in the same part
        slack = {"network": (none, more * 0), "unattributed": (none, none)}
    if not kept.kernel.all():
        slack["client"] = (none, np.where(kept.kernel, 0.0, rest))
    if waits.any():
        slack |= {"interconnect": (waits, none), "frontend": (none, waits)}
    if facts.all_kept:
        slack["unattributed"] = (rest, slack["unattributed"][1])
        servers = set(found) - {"client", "network", "unattributed"}
        slack |= dict.fromkeys(servers, (none, rest))
    return slack


def leaves_of(table: Table, place: NDArray[np.int64], rows: int) -> dict[str, NDArray[np.int64]]:
    """Time that a signal states of one leaf and no other, by leaf."""
    found = {}
    at = place[table.row]
    for leaf, bit in BIT.items():
        mine = (table.leaves == bit) & table.stated & (at >= 0)
        if mine.any():
            column = np.zeros(rows, dtype=np.int64)
            np.add.at(column, at[mine], table.ns[mine])
            found[leaf] = column
    return found


def client_sources(kept: Answered, way: tuple[str, ...] = ()) -> dict[str, Source]:
    """What client and network rest on. ``way``: what network is merged with, where what is left
    beyond every server's span is in it."""
    stamps = "user and kernel transmit stamps" if kept.kernel.all() else "user stamps"
    network = "transmit and ACK stamps, TCP_INFO min_rtt"
    if not kept.kernel.all():
        network = "the smallest round trip of the connection where it is known, else nothing"
    if way:
        network += "; and what is left beyond every server's own span"
    return {
        "client": Source("A", f"{stamps} of this client"),
        "network": Source("E" if way else "A" if kept.kernel.all() else "D", network, way),
    }


def sources_of(
    told: claiming.Claimed,
    table: Table,
    merges: Mapping[str, tuple[str, ...]],
    gaps: bool = False,
) -> dict[str, Source]:
    """What each component of the servers rests on: the signals that its time came from.
    ``gaps``: spans were lost, so that it may be more."""
    found = {"unattributed": Source("A", "the whole less everything that is stated or stamped")}
    titles = {stack.name: stack for stack in told.spans.stacks}
    said: dict[str, dict[str, None]] = {}
    worst: dict[str, str] = {}
    for leaves in np.unique(table.leaves).tolist():
        names = components(leaves)
        key = merges.get(names[0], (names[0],))[0]
        for code in np.unique(table.meaning[table.leaves == leaves]).tolist():
            if code < 0:
                said.setdefault(key, {})["the client's first to last token"] = None
                continue
            stack = titles[told.stack_of[code]]
            signal = told.signals[code]
            said.setdefault(key, {})[f"{stack.title}: {signal.foreign.strip()}"] = None
            if stack.provenance != "captured" or signal.documented:
                worst[key] = "B"
    for name, words in said.items():
        members = merges.get(name, ())
        grade = "E" if members else "D" if gaps else worst.get(name, "A")
        found[name] = Source(grade, "spans of " + ", ".join(words), members)
    return found
