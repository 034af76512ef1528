"""End-to-end latency in components, from outside, by what designed requests have taught.

For each request of the workload, behind the first hop and before the first token::

    way       what a cheap GET takes there: a gateway, or a path that TCP does not see
    own       what the same prompt takes alone: frontend and prefill
    queue     the rest: waiting to be let in, and others' work in the same steps

Signed differences go into the sums: cutting each at nothing would turn noise into queueing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.client_only import AFTER_THE_STREAM
from latdiag.attribution.laws.admission import admitted
from latdiag.attribution.laws.laws import Laws, company, first_gap, learn
from latdiag.attribution.leaves import BIT, MASK
from latdiag.attribution.ledger import Claim, Ledger, Merges, Move, Origin
from latdiag.attribution.parts import Parts
from latdiag.attribution.settle import Whole, settle
from latdiag.measurement.stages import WORKLOAD

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: How often the laws are drawn again for the intervals.
_DRAWS = 100

_CLIENT = "this client's due and send times, user and kernel transmit stamps"
_QUEUE = Origin(
    "C",
    "time to the first token beyond what the same prompt takes alone: admission and other"
    " requests' work",
)
_OWN = "designed prompts, alone (S3, S5), by input length"
_PARSE = Origin(
    "C",
    "refused requests of growing length (S1): a lower bound, because a request may be refused"
    " before the frontend is done",
)
_DECODE = "kernel receive stamps, first to last token; includes time on links between steps"
_LEAVES = Origin("C", "the laws learned in designed stages, applied to each request")


def explain(seen: Observations) -> tuple[Parts, Laws] | None:
    """Parts of the workload's requests; None where the designed stages taught too little."""
    laws = learn(seen)
    rows = seen.of(WORKLOAD)
    if laws is None:
        return None
    ok = int((seen.ok & (seen.stage == WORKLOAD)).sum())
    gaps = np.nan_to_num(first_gap(seen, rows))
    columns = _columns(seen, rows, laws, gaps)
    random = np.random.default_rng(len(seen.first))
    again = [_columns(seen, rows, each, gaps) for each in laws.drawn(random, _DRAWS)]
    drawn = {name: np.array([each[name] for each in again], dtype=float) for name in columns}
    whole = Whole(
        (seen.done - seen.begin)[rows],
        (seen.first - seen.begin)[rows],
        (seen.last - seen.first)[rows],
        seen.delayed[rows],
        np.unique(seen.scenario[rows].astype(str), return_inverse=True)[1],
        row=seen.row[rows],
    )
    waits = 0.0 if admitted(seen) or not len(rows) else float(columns["queue"].mean())
    ledger = Ledger(
        _claims(seen, rows, laws, columns, drawn),
        remainder=AFTER_THE_STREAM,
        leaf_origin=_LEAVES,
        merges=_merges(laws),
        filled=frozenset({"client_ttft", "decode"}),
        moves=_moves(seen, rows, laws, waits),
        settles={"queue": "prefill", "prefill": "frontend", "interconnect": "decode"},
    )
    return settle(whole, ledger, ok - len(rows), _alone(seen, rows, laws, columns)), laws


def _merges(laws: Laws) -> Merges:
    """What the probe could not tell apart."""
    merges: dict[str, tuple[str, ...]] = {}
    is_way = laws.path is not None and laws.path.is_way
    merged = ["prefill"]
    if laws.frontend is None:
        merged.append("frontend")
    if laws.sharing.verdict != "shared" and laws.transfer is None:
        # Where prefill may run elsewhere, it may hand its KV over before the first token.
        merged.append("interconnect")
    if laws.bursts_ns and not is_way:
        # Whatever holds tokens back for a burst holds the first one back too.
        merged.append("gateway")
    classes: list[tuple[str, ...]] = [("network", "gateway")] if is_way else []
    classes += [tuple(merged)] if len(merged) > 1 else []
    if laws.transfer is not None and not laws.transfer.proven:
        classes.append(("decode", "interconnect"))
    for members in classes:
        merges |= dict.fromkeys(members, members)
    return merges


def _claims(
    seen: Observations,
    rows: NDArray[np.int64],
    laws: Laws,
    columns: dict[str, NDArray[np.int64]],
    drawn: dict[str, NDArray[np.float64]],
) -> list[Claim]:
    merges = _merges(laws)
    origins = {
        "network": Origin("A", "transmit and ACK stamps, TCP_INFO min_rtt"),
        "frontend": _PARSE,
        "queue": _QUEUE,
        "prefill": Origin("E" if "prefill" in merges else "C", _OWN),
    }
    if laws.path is not None and laws.path.is_way:
        gets = f"and {len(laws.path.values)} cheap GETs (S1)"
        origins["way"] = Origin("C", f"{gets}, which take longer than an HTTP layer does")
    if laws.transfer is not None:
        origins["interconnect"] = Origin(
            "C",
            "from the first token to the second, beyond one step; seen alone in"
            f" {laws.transfer.n} designed requests too (S3, S5)",
        )
    claims = [Claim(MASK["client"], columns["client"], (Origin("A", _CLIENT),))]
    for name, origin in origins.items():
        if name in columns:
            mask = MASK["network" if name == "way" else name]
            late = name == "interconnect"
            claims.append(Claim(mask, columns[name], (origin,), late=late, drawn=drawn[name]))
    stream = (_stream_origin(laws),)
    rest = MASK["decode"]
    leaves = _leaves(seen, rows, laws, columns)
    *fixed, last = leaves or ["decode"]
    for leaf in fixed:
        claims.append(Claim(BIT[leaf], leaves[leaf], stream, late=True, stated=True))
        columns["decode"] = columns["decode"] - leaves[leaf]
        drawn["decode"] = drawn["decode"] - leaves[leaf]
    claims.append(
        Claim(
            BIT.get(last, rest),
            columns["decode"],
            stream,
            late=True,
            stated=bool(leaves),
            drawn=drawn["decode"],
        )
    )
    return claims


def _stream_origin(laws: Laws) -> Origin:
    if laws.transfer is not None and not laws.transfer.proven:
        return Origin("E", f"{_DECODE}; the second token arrives late, and nothing shows why")
    shaken = laws.path is not None and laws.path.jitter_ns > laws.step.base
    return Origin("C" if shaken or laws.bursts_ns or laws.transfer is not None else "A", _DECODE)


def _moves(
    seen: Observations, rows: NDArray[np.int64], laws: Laws, unexplained: float
) -> list[Move]:
    """What the evidence leaves open between two parts.

    ``unexplained``: mean wait of a request although all streams were admitted at once, ns.
    """
    moves = [Move("network", "prefill", (seen.network - seen.network_lo)[rows].astype(float))]
    front = "frontend" if laws.frontend is not None else "prefill"
    if laws.path is None:
        moves.append(
            Move("prefill", "network", (seen.network_hi - seen.network)[rows].astype(float))
        )
    else:
        # A way that delays unevenly, and keeps the order, draws a stream out.
        moves.append(Move("decode", "network", laws.path.jitter_ns))
        if not laws.path.is_way:
            # So short a GET may be an HTTP layer as well as a way.
            moves.append(Move(front, "network", laws.path.floor_ns))
    if laws.frontend is not None:
        least = laws.own.tokens[laws.own.tokens.argmin()][None]
        hidden = float(laws.own.at(least)[0] - laws.frontend.at(least)[0])
        moves.append(Move("prefill", "frontend", max(0.0, hidden)))
    if laws.sharing.verdict == "separate" and laws.transfer is None and unexplained > 0:
        # Between engines there may be a link, and what waits may wait for that.
        moves.append(Move("queue", "prefill", unexplained))
    return moves


def _columns(
    seen: Observations, rows: NDArray[np.int64], laws: Laws, gaps: NDArray[np.float64]
) -> dict[str, NDArray[np.int64]]:
    """Signed int64 ns that add up to last - begin in every row. ``gaps``: ``first_gap`` of each,
    0 where it is not known."""
    server, isl = seen.server[rows], seen.isl[rows]
    found = {"client": seen.client[rows], "network": seen.network[rows]}
    way = np.zeros(len(rows), dtype=np.int64)
    if laws.path is not None and laws.path.is_way:
        way = found["way"] = np.minimum(round(laws.path.floor_ns), server)
    own = np.rint(np.maximum(laws.own.at(isl), 0.0)).astype(np.int64)
    if laws.frontend is not None:
        parse = np.rint(np.maximum(laws.frontend.at(isl), 0.0)).astype(np.int64)
        found["frontend"] = np.minimum(parse, own)
        own = own - found["frontend"]
    found["queue"] = server - way - own - found.get("frontend", 0)
    found["prefill"] = own
    stream = (seen.last - seen.first)[rows]
    if laws.transfer is not None and laws.transfer.proven:
        found["interconnect"] = np.minimum(np.rint(gaps).astype(np.int64), stream)
        stream = stream - found["interconnect"]
    found["decode"] = stream
    return found


def _leaves(
    seen: Observations,
    rows: NDArray[np.int64],
    laws: Laws,
    columns: dict[str, NDArray[np.int64]],
) -> dict[str, NDArray[np.int64]]:
    """Decode as alone, in a batch, and beyond both: others' prefills, or stalls."""
    if not laws.step.n:
        return {}
    begin, end = seen.first[rows], seen.last[rows]
    steps = seen.later(rows)
    own = seen.isl[rows] + seen.osl[rows] / 2
    streams, contexts = company(seen, np.flatnonzero(seen.usable))
    spans = np.maximum(end, begin + 1)
    others = np.maximum(streams.between(begin, spans) - 1, 0)
    context = np.maximum(contexts.between(begin, spans) - own, 0)
    decode = columns["decode"]
    base = np.minimum(np.rint(steps * laws.step.alone(own)).astype(np.int64), decode)
    batch = np.rint(steps * (laws.step.stream * others + laws.step.context * context))
    batch = np.minimum(batch.astype(np.int64), decode - base)
    rest = "decode.interference" if laws.sharing.verdict == "shared" else "decode.stall"
    return {"decode.base": base, "decode.batch": batch, rest: decode - base - batch}


def _alone(
    seen: Observations,
    rows: NDArray[np.int64],
    laws: Laws,
    columns: dict[str, NDArray[np.int64]],
) -> NDArray[np.int64]:
    """What each request would take on an idle server."""
    steps = seen.later(rows)
    stream = steps * laws.step.alone(seen.isl[rows] + seen.osl[rows] / 2)
    still: Any = columns["network"] + columns["prefill"] + (seen.done - seen.last)[rows]
    still = still + columns.get("way", 0) + columns.get("frontend", 0)
    if "interconnect" in columns and laws.transfer is not None:
        still = still + np.minimum(columns["interconnect"], round(laws.transfer.extra_ns))
    alone: NDArray[np.int64] = np.rint(still + stream).astype(np.int64)
    return alone
