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

from latdiag.attribution.laws.admission import admitted
from latdiag.attribution.laws.laws import Laws, company, first_gap, learn
from latdiag.attribution.parts import Parts, Source
from latdiag.measurement.stages import WORKLOAD

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: How often the laws are drawn again for the intervals.
_DRAWS = 100

#: Between which evidence may leave time open.
PARTS = ("network", "frontend", "queue", "prefill", "decode")
_CLIENT = Source("A", "due and sent, user and kernel transmit stamps of this client")
_QUEUE = (
    "until the first token, beyond what the same prompt takes alone: admission and others' work"
)
_OWN = "designed prompts alone (S3, S5), by input length"
_PARSE = (
    "refused requests of growing length (S1): a lower bound, since nothing says how far one gets"
    " before it is refused"
)
_DECODE = "kernel receive stamps, first to last token; time on links between steps is inside"


def explain(seen: Observations) -> tuple[Parts, Laws] | None:
    """Parts of the workload's requests; None where the designed stages taught too little."""
    laws = learn(seen)
    rows = seen.of(WORKLOAD)
    if laws is None:
        return None
    ok = int((seen.ok & (seen.stage == WORKLOAD)).sum())
    columns = _columns(seen, rows, laws)
    random = np.random.default_rng(len(seen.first))
    again = [_columns(seen, rows, laws.drawn(random)) for _ in range(_DRAWS)]
    draws = {
        name: np.array([each[name] for each in again], dtype=float)
        for name in columns
        if name not in ("client", "unattributed")
    }
    total = (seen.done - seen.begin)[rows]
    waits = 0.0 if admitted(seen) or not len(rows) else float(columns["queue"].mean())
    parts = Parts(
        total=total,
        ttft=(seen.first - seen.begin)[rows],
        parts=columns,
        delayed=seen.delayed[rows],
        left_out=ok - len(rows),
        sources=sources(laws),
        draws=draws,
        slack=_slack(seen, rows, laws, waits),
        leaves=_leaves(seen, rows, laws, columns),
        alone=_alone(seen, rows, laws, columns),
        segment=np.unique(seen.scenario[rows].astype(str), return_inverse=True)[1],
    )
    return parts, laws


def sources(laws: Laws) -> dict[str, Source]:
    """What each part rests on, and what could not be told apart."""
    network = Source("A", "transmit and ACK stamps, TCP_INFO min_rtt")
    if laws.path is not None and laws.path.is_way:
        network = Source(
            "C",
            f"{network.evidence}; and {len(laws.path.values)} cheap GETs (S1), which take longer"
            " than an HTTP layer does",
            ("network", "gateway"),
        )
    merged = ["prefill"]
    if laws.frontend is None:
        merged.append("frontend")
    if laws.sharing.verdict != "shared" and laws.transfer is None:
        # Where prefill may run elsewhere, it may hand its KV over before the first token.
        merged.append("interconnect")
    if laws.bursts_ns and "gateway" not in network.members:
        # Whatever holds tokens back for a burst holds the first one back too.
        merged.append("gateway")
    members = tuple(merged) if len(merged) > 1 else ()
    found = {
        "client": _CLIENT,
        "network": network,
        "queue": Source("C", _QUEUE, settles="prefill"),
        "prefill": Source("E" if members else "C", _OWN, members, settles="frontend"),
        "decode": _decode_source(laws),
        "unattributed": Source("A", "from the last token to the last byte that counts"),
    }
    if laws.frontend is not None:
        found["frontend"] = Source("C", _PARSE)
    if laws.transfer is not None and laws.transfer.proven:
        found["interconnect"] = Source(
            "C",
            "from the first token to the second, beyond a step: alone in"
            f" {laws.transfer.n} designed requests too (S3, S5)",
            settles="decode",
        )
    return found


def _decode_source(laws: Laws) -> Source:
    if laws.transfer is not None and not laws.transfer.proven:
        late = "; the second token comes late, and nothing says why"
        return Source("E", _DECODE + late, ("decode", "interconnect"))
    shaken = laws.path is not None and laws.path.jitter_ns > laws.step.base
    return Source("C" if shaken or laws.bursts_ns or laws.transfer is not None else "A", _DECODE)


def _slack(
    seen: Observations, rows: NDArray[np.int64], laws: Laws, unexplained: float
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(less, more) ns of each row that the evidence leaves open between two parts.

    ``unexplained``: mean wait of a request although all streams were let in at once.
    """
    less = {name: np.zeros(len(rows)) for name in PARTS}
    more = {name: np.zeros(len(rows)) for name in PARTS}

    def may_move(ns: Any, one: str, other: str) -> None:
        less[one] += ns
        more[other] += ns

    may_move((seen.network - seen.network_lo)[rows], "network", "prefill")
    front = "frontend" if laws.frontend is not None else "prefill"
    if laws.path is None:
        may_move((seen.network_hi - seen.network)[rows], "prefill", "network")
    else:
        # A way that delays unevenly, and keeps the order, draws a stream out.
        may_move(laws.path.jitter_ns, "decode", "network")
        if not laws.path.is_way:
            # So short a GET may be an HTTP layer as well as a way.
            may_move(laws.path.floor_ns, front, "network")
    if laws.frontend is not None:
        least = laws.own.tokens[laws.own.tokens.argmin()][None]
        hidden = float(laws.own.at(least)[0] - laws.frontend.at(least)[0])
        may_move(max(0.0, hidden), "prefill", "frontend")
    if laws.sharing.verdict == "separate" and laws.transfer is None and unexplained > 0:
        # Between engines there may be a link, and what waits may wait for that.
        may_move(unexplained, "queue", "prefill")
    return {name: (less[name], more[name]) for name in PARTS}


def _columns(
    seen: Observations, rows: NDArray[np.int64], laws: Laws
) -> dict[str, NDArray[np.int64]]:
    """Signed int64 ns that add up to done - begin in every row."""
    server, isl = seen.server[rows], seen.isl[rows]
    found = {"client": seen.client[rows], "network": seen.network[rows]}
    way = np.zeros(len(rows), dtype=np.int64)
    if laws.path is not None and laws.path.is_way:
        way = np.minimum(round(laws.path.floor_ns), server)
        found["network"] = found["network"] + way
    own = np.rint(np.maximum(laws.own.at(isl), 0.0)).astype(np.int64)
    if laws.frontend is not None:
        parse = np.rint(np.maximum(laws.frontend.at(isl), 0.0)).astype(np.int64)
        found["frontend"] = np.minimum(parse, own)
        own = own - found["frontend"]
    found["queue"] = server - way - own - found.get("frontend", 0)
    found["prefill"] = own
    stream = (seen.last - seen.first)[rows]
    if laws.transfer is not None and laws.transfer.proven:
        extra = np.nan_to_num(first_gap(seen, rows))
        found["interconnect"] = np.minimum(np.rint(extra).astype(np.int64), stream)
        stream = stream - found["interconnect"]
    found["decode"] = stream
    found["unattributed"] = (seen.done - seen.last)[rows]
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
    still: Any = sum(columns[name] for name in ("network", "prefill", "unattributed"))
    still = still + columns.get("frontend", 0)
    if "interconnect" in columns and laws.transfer is not None:
        still = still + np.minimum(columns["interconnect"], round(laws.transfer.extra_ns))
    alone: NDArray[np.int64] = np.rint(still + stream).astype(np.int64)
    return alone
