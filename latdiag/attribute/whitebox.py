"""End-to-end latency in components, as servers state them of each request (grade A).

The client's interval is the whole; the servers' intervals enter it as lengths alone::

    client + network     the client's own stamps (``ttft_split``), up to the first hop
    server's components  who owns each nanosecond of the servers' spans (``sweep``)
    the way              what is left, where even the fastest request has some of it
    unattributed         what is left else; less than nothing where servers state too much
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from latdiag.attribute import claiming
from latdiag.attribute.answered import Answered
from latdiag.attribute.leafbits import BIT, components
from latdiag.attribute.ownership import (
    OVER_NS,
    OVER_SHARE,
    Table,
    client_stream,
    merges_of,
    table_of,
)
from latdiag.attribute.parts import Parts, Source
from latdiag.attribute.spans import Requests, Spans, join
from latdiag.model.components import COMPONENTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Fewer requests with complete evidence bear no breakdown.
LEAST = 30
#: An HTTP layer answers within this: what is more, in the fastest requests too, is a way.
WAY_NS = 5_000_000
#: Time that no signal parts, of one request, above which its evidence is not complete.
_UNPARTED = 0.01
#: Requests with whole evidence stand for all, if they are at least this share of the joined.
_ENOUGH = 0.2
_WAY_QUANTILE = 0.05


@dataclass(slots=True)
class Findings:
    """What became of the evidence: counts of requests, by what they were joined, and why others
    are left out. ``medians``: ns per component, of the requests that are told."""

    requests: int = 0
    joined: int = 0
    told: int = 0
    by: dict[str, int] = field(default_factory=dict)
    contradicted: int = 0
    partial: int = 0
    all_kept: bool = False
    duplicates: int = 0
    spans: int = 0
    senders: dict[str, dict[str, object]] = field(default_factory=dict)
    stacks: tuple[str, ...] = ()
    user_stamps: bool = False
    way: bool = False
    medians: dict[str, float] = field(default_factory=dict)


def explain(found: Spans, seen: Answered) -> tuple[Parts | None, Findings, Spans]:
    """(Parts of the requests whose servers spoke, None where too few did; what became of the
    evidence; the spans that were joined)."""
    import numpy as np

    ids = (seen.trace_id, seen.span_id, seen.request_id, seen.response_id)
    spans = join(found, Requests(*(each.tolist() for each in ids)))
    facts = Findings(requests=seen.n, by=spans.joined_by, duplicates=spans.duplicates)
    facts.joined = len(np.unique(spans.row))
    facts.spans = spans.n
    facts.user_stamps = bool(seen.n and not seen.kernel.all())
    _note_senders(facts, spans)
    if not (spans.signal >= 0).any():
        return None, facts, spans
    told = claiming.claimed(spans, seen.n)
    told = claiming.with_client_decode(told, *client_stream(told, seen))
    table = table_of(told, seen)
    keep = _complete(told, table, seen, facts)
    facts.told = len(keep)
    if not len(keep) or (len(keep) < LEAST and 2 * len(keep) < seen.n):
        return None, facts, spans
    return _parts(told, table, seen, keep, facts), facts, spans


def _note_senders(facts: Findings, spans: Spans) -> None:
    import numpy as np

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


# ---------------------------------------------------------------------- whose evidence is whole
def _complete(
    told: claiming.Claimed, table: Table, seen: Answered, facts: Findings
) -> NDArray[np.int64]:
    """The requests whose evidence is whole; all that are joined, where they are too few to stand
    for those (and what no signal parts is then unattributed)."""
    import numpy as np

    joined = np.zeros(seen.n, dtype=bool)
    joined[told.claims.row] = True
    whole = seen.done - seen.begin
    server = np.zeros(seen.n, dtype=np.int64)
    np.add.at(server, table.row, table.ns)
    limit = np.maximum(OVER_NS, (OVER_SHARE * whole).astype(np.int64))
    over = np.maximum(server - (whole - seen.client), 0)
    contradicted = joined & ((over > limit) | (told.over > limit))
    merges = merges_of(table, joined)
    unparted = np.zeros(seen.n, dtype=np.int64)
    for leaves in np.unique(table.leaves).tolist():
        names = components(leaves)
        if len(names) > 1 and merges.get(names[0], ()) != merges.get(names[-1]):
            mine = table.leaves == leaves
            np.add.at(unparted, table.row[mine], table.ns[mine])
    partial = joined & ((unparted > _UNPARTED * whole) | _lacks_a_server(told.spans, seen.n))
    facts.contradicted = int(contradicted.sum())
    facts.partial = int((partial & ~contradicted).sum())
    keep = np.flatnonzero(joined & ~contradicted & ~partial)
    if len(keep) < max(min(LEAST, int(joined.sum())), _ENOUGH * int(joined.sum())):
        facts.all_kept = True
        keep = np.flatnonzero(joined)
    return keep


def _lacks_a_server(spans: Spans, rows: int) -> NDArray[np.bool_]:
    """Requests without a kind of server (stack and role) that most requests have."""
    import numpy as np

    kinds = [f"{s}|{r}" for s, r in zip(spans.stack.tolist(), spans.role.tolist(), strict=True)]
    words, codes = np.unique(np.array(kinds, dtype=str), return_inverse=True)
    has = np.zeros((rows, len(words)), dtype=bool)
    has[spans.row, codes] = True
    joined = has.any(axis=1)
    usual = 2 * has.sum(axis=0) > int(joined.sum())
    lacks: NDArray[np.bool_] = (usual & ~has).any(axis=1)
    return lacks


# ---------------------------------------------------------------------- the parts
def _parts(
    told: claiming.Claimed,
    table: Table,
    seen: Answered,
    keep: NDArray[np.int64],
    facts: Findings,
) -> Parts:
    import numpy as np

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
        columns[which] = _server_columns(table, amounts, place, len(keep), merges)
        spoken = sum(columns[which].values(), np.zeros(len(keep), dtype=np.int64))
        sums[which] = whole - kept.client - kept.network - spoken
    gateways = {spec.name for spec in told.spans.stacks if spec.layer == "gateway"}
    way = _is_way(sums["all"], kept)
    facts.way = way
    found = {"client": kept.client, "network": kept.network.copy(), **columns["all"]}
    early = {"client": kept.client, "network": kept.network.copy(), **columns["first"]}
    members: tuple[str, ...] = ()
    if way:
        found["network"] += np.maximum(sums["all"], 0)
        early["network"] += np.maximum(sums["first"], 0)
        sums = {name: np.minimum(values, 0) for name, values in sums.items()}
        members = () if gateways & set(facts.stacks) else ("network", "gateway")
        if members and "gateway" in found:
            members = ()
    found["unattributed"], early["unattributed"] = sums["all"], sums["first"]
    late = {name: found[name] - early[name] for name in columns["all"]}
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
        sources=_sources(told, table, merges, members, kept, facts),
        slack=_slack(kept, way),
        leaves=_leaves(table, place, len(keep)),
        leaf_source=Source("A", "spans that hold nothing but it"),
        segment=np.unique(kept.scenario.astype(str), return_inverse=True)[1],
        within={
            "client_ttft": {name: early[name] for name in order},
            "decode": {name: late[name] for name in COMPONENTS if name in late},
        },
    )


def _server_columns(
    table: Table,
    amounts: NDArray[np.int64],
    place: NDArray[np.int64],
    rows: int,
    merges: Mapping[str, tuple[str, ...]],
) -> dict[str, NDArray[np.int64]]:
    """ns per request and component; what no signal parts stays out."""
    import numpy as np

    found: dict[str, NDArray[np.int64]] = {}
    at = place[table.row]
    for leaves in np.unique(table.leaves).tolist():
        names = components(leaves)
        together = merges.get(names[0], (names[0],))
        if len(names) > 1 and not set(names) <= set(together):
            continue
        column = found.setdefault(together[0], np.zeros(rows, dtype=np.int64))
        mine = (table.leaves == leaves) & (at >= 0)
        np.add.at(column, at[mine], amounts[mine])
    return found


def _is_way(left: NDArray[np.int64], kept: Answered) -> bool:
    """Whether even the fastest requests have more left over than an HTTP layer takes.

    A client that stamps in user space may have made it itself: there it proves nothing.
    """
    import numpy as np

    if not kept.n or not kept.kernel.all():
        return False
    return float(np.quantile(left, _WAY_QUANTILE)) > WAY_NS


def _slack(
    kept: Answered, way: bool
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """What the client's stamps leave open between network and what is left over."""
    less = (kept.network - kept.network_lo).astype(float)
    more = (kept.network_hi - kept.network).astype(float)
    if way:  # both are in the same part
        return {}
    return {"network": (less, more * 0), "unattributed": (more * 0, less)}


def _leaves(table: Table, place: NDArray[np.int64], rows: int) -> dict[str, NDArray[np.int64]]:
    """Time that belongs to one leaf and no other, by leaf."""
    import numpy as np

    found = {}
    at = place[table.row]
    for leaf, bit in BIT.items():
        mine = (table.leaves == bit) & (at >= 0)
        if mine.any():
            column = np.zeros(rows, dtype=np.int64)
            np.add.at(column, at[mine], table.ns[mine])
            found[leaf] = column
    return found


def _sources(
    told: claiming.Claimed,
    table: Table,
    merges: Mapping[str, tuple[str, ...]],
    way: tuple[str, ...],
    kept: Answered,
    facts: Findings,
) -> dict[str, Source]:
    """What each component rests on: the signals that its time came from."""
    import numpy as np

    stamps = "user and kernel transmit stamps" if kept.kernel.all() else "user stamps"
    network = "transmit and ACK stamps, TCP_INFO min_rtt"
    if not kept.kernel.all():
        network = "the smallest round trip of the connection where it is known, else nothing"
    if facts.way:
        network += "; and what is left beyond every server's own span"
    found = {
        "client": Source("A", f"{stamps} of this client"),
        "network": Source("A" if kept.kernel.all() else "D", network, way),
        "unattributed": Source("A", "end to end less everything that is stated or stamped"),
    }
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
            foreign = told.signals[code].foreign.strip()
            said.setdefault(key, {})[f"{stack.title}: {foreign}"] = None
            if stack.provenance != "captured":
                worst[key] = "B"
    for name, words in said.items():
        members = merges.get(name, ())
        grade = "E" if members else worst.get(name, "A")
        found[name] = Source(grade, "spans of " + ", ".join(words), members)
    return found
