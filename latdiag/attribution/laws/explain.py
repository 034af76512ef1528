"""End-to-end latency in components, from outside, by what designed requests have taught.

For each request of the workload, behind the first hop and before the first token::

    way       what a cheap GET takes there: a gateway, or a path that TCP does not see
    made      steps of decode before the first arrival: it brings several tokens, or tokens came
              before it that are never sent
    refusal   what a refused POST of that length takes
    before    what passes until the engine takes the prompt up, beyond a refusal
    launch    the part of a short prompt's time that nobody was seen to take
    prompt    what the engine takes for the prompt alone
    crowd     by how much longer GETs and refusals take beside the workload; the share of each
              wait that a refused POST at the same moment shows
    door      the same, of requests that found as many streams running as ever run at once
    misfit    what requests that met no other of ours take beyond all of that
    full      the rest, of requests that found as many streams running as ever run at once
    wait      the rest of all others: waiting to be scheduled, and others' work in the same steps

``pieces`` says whose each of them can be. Signed differences go into the sums: cutting each at
nothing would turn noise into queueing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.client_only import AFTER_THE_STREAM, held_end
from latdiag.attribution.laws.admission import at_limit
from latdiag.attribution.laws.decode_leaves import leaves_of
from latdiag.attribution.laws.doubt import LONE, Columns, doubts
from latdiag.attribution.laws.laws import Laws, first_gap, learn, of_workload, token_ns
from latdiag.attribution.laws.line import Line, line_of
from latdiag.attribution.laws.pauses import Pauses, pauses_of
from latdiag.attribution.laws.pieces import Piece, limits, merged, room
from latdiag.attribution.laws.suspicion import MADE, PIECES, pieces_of
from latdiag.attribution.leaves import BIT, MASK
from latdiag.attribution.ledger import Claim, Ledger, Merges, Origin, key_of
from latdiag.attribution.parts import Parts
from latdiag.attribution.settle import Whole, settle
from latdiag.measurement.company import lone
from latdiag.measurement.stages import WORKLOAD

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: How often the laws are drawn again for the intervals.
_DRAWS = 100
#: Standard errors that are no chance.
_SURE = 3.0
_DECODE = "kernel receive stamps, first to last token; includes time on links between steps"
_LEAVES = Origin("C", "the laws learned in designed stages, applied to each request")
#: Where a class, a difference of estimates, comes out below nothing, the next of these gives.
_LINE = ("queue", "prefill", "frontend", "gateway", "interconnect", "decode", "network")


def explain(seen: Observations) -> tuple[Parts, Laws] | None:
    """Parts of the workload's requests; None where the designed stages taught too little."""
    laws = learn(seen)
    if laws is None:
        return None
    ok = int((seen.ok & (seen.stage == WORKLOAD)).sum())
    seen = laws.delivery.visible(seen)
    rows = seen.of(WORKLOAD)
    laws = of_workload(laws, seen, rows)
    gaps = np.nan_to_num(first_gap(seen, rows))
    met_none = lone(seen, seen.begin[rows], seen.first[rows])
    full = at_limit(seen, rows)
    own, waits = _own(seen, rows, laws)
    waiting = np.concatenate((seen.of("S6"), rows))
    noise = laws.own.noise_ns
    if full.any() and float(waits[full].mean()) < _SURE * noise:
        full = np.zeros_like(full)  # what comes late by itself leaves as few running as a limit
    waited_all = _own(seen, waiting, laws)[1]
    line = line_of(seen, laws.refusals, laws.way_ns, waiting, waited_all, noise)
    pauses = pauses_of(seen, rows, laws)

    def columns_by(of: Laws) -> Columns:
        found, left = (own, waits) if of is laws else _own(seen, rows, of)
        waited = _waits(left, of, line, met_none, full)
        return found | waited | _stream(seen, rows, of, gaps, pauses)

    columns = columns_by(laws)
    random = np.random.default_rng(len(seen.first))
    again = [columns_by(each) for each in laws.drawn(random, _DRAWS)]
    drawn = {name: np.array([each[name] for each in again], dtype=float) for name in columns}
    whole = Whole(
        (seen.done - seen.begin)[rows],
        (seen.first - seen.begin)[rows],
        (seen.last - seen.first)[rows],
        seen.delayed[rows],
        np.unique(seen.scenario[rows].astype(str), return_inverse=True)[1],
        row=seen.row[rows],
    )
    paced = _paced(seen, rows, laws, columns)
    pieces = pieces_of(laws, columns, gaps, paced, line, pauses)
    merges = merged(pieces, whole.total)
    moves = doubts(seen, rows, laws, columns, line, merges)
    small = limits(pieces, merges)
    for move in moves:
        if move.giver in small:
            small[move.giver] = small[move.giver] + move.ns
    leaves = leaves_of(seen, rows, laws, columns["decode"], pauses)
    claims = _claims(laws, columns, drawn, pieces, leaves)
    ledger = Ledger(
        claims,
        remainder=AFTER_THE_STREAM,
        leaf_origin=_LEAVES,
        merges=merges,
        filled=frozenset({"client_ttft", "decode"}),
        moves=[*moves, *room(pieces, merges)],
        limits=small,
        settles=_settles(claims, merges),
    )
    return settle(whole, ledger, ok - len(rows), _alone(seen, rows, laws, columns)), laws


# ---------------------------------------------------------------------- the pieces of each row
def _own(
    seen: Observations, rows: NDArray[np.int64], laws: Laws
) -> tuple[Columns, NDArray[np.int64]]:
    """What each row would take alone before its first token, and what it took beyond that: signed
    int64 ns that add up to first - begin in every row."""
    server, isl = seen.server[rows], seen.isl[rows]
    found: Columns = {"client": seen.client[rows], "network": seen.network[rows]}
    found["way"] = np.minimum(round(laws.way_ns), server)
    left = server - found["way"]
    early = laws.delivery.early_ns(token_ns(seen, rows, laws), rows)
    found["made"] = np.minimum(_whole(early), np.maximum(left, 0))
    left = left - found["made"]
    own = np.maximum(laws.own.at(isl), 0.0)
    refusal = laws.refusals.at(isl) if laws.refusals is not None else np.zeros(len(rows))
    refusal = np.minimum(refusal, own)
    before, launch = np.zeros(len(rows)), np.zeros(len(rows))
    if laws.before is not None:
        before = np.clip(laws.before.at(isl) - refusal, 0.0, own - refusal)
    if laws.before is None or laws.idle_waits:
        launch = np.clip(laws.launch_ns - before, 0.0, own - refusal - before)
    for name, ns in (("refusal", refusal), ("before", before), ("launch", launch)):
        found[name] = _whole(ns)
        left = left - found[name]
    found["prompt"] = _whole(own - refusal - before - launch)
    return found, left - found["prompt"]


def _waits(
    left: NDArray[np.int64],
    laws: Laws,
    line: Line | None,
    met_none: NDArray[np.bool_],
    full: NDArray[np.bool_],
) -> Columns:
    """``left`` in pieces. ``met_none``: rows that met no other request before their first token;
    ``full``: that came while no further stream could run."""
    there = np.maximum(left, 0)
    door = np.zeros(len(left), dtype=np.int64)
    crowd = np.minimum(round(laws.loaded.most_ns if laws.loaded is not None else 0.0), there)
    if line is not None and line.before:
        behind = _whole(line.before * there)
        door, crowd = np.where(full, behind, 0), np.where(full, 0, behind)
    left = left - door - crowd
    misfit = np.clip(_misfit(left, met_none), 0, np.maximum(left, 0))
    left = left - misfit
    at_limit = np.where(full, left, 0)
    found = {"crowd": crowd, "door": door, "misfit": misfit, "full": at_limit}
    return found | {"wait": left - at_limit}


def _stream(
    seen: Observations,
    rows: NDArray[np.int64],
    laws: Laws,
    gaps: NDArray[np.float64],
    pauses: Pauses,
) -> Columns:
    """What follows the first arrival; ``end`` comes after the last."""
    events, network = np.diff(seen.offsets)[rows], seen.network[rows]
    after, between = (seen.done - seen.last)[rows], (seen.last - seen.first)[rows]
    found: Columns = {"end": held_end(after, between, events, network)}
    if laws.pacing is not None or laws.paced_apart:
        # Whoever takes a time for each event takes it for the last one too.
        found["end"] = np.maximum(after, 0)
    stream = (seen.last - seen.first)[rows]
    if laws.delivery.held is not None:
        found["held"] = np.minimum(_whole(laws.delivery.held.last[rows]), stream)
        stream = stream - found["held"]
    if laws.transfer is not None and laws.transfer.proven:
        found["interconnect"] = np.minimum(_whole(gaps), stream)
        stream = stream - found["interconnect"]
    if pauses.preempts:
        found["lone"] = np.minimum(pauses.lone, np.maximum(stream, 0))
        stream = stream - found["lone"]
    found["decode"] = stream
    return found


def _paced(
    seen: Observations, rows: NDArray[np.int64], laws: Laws, columns: Columns
) -> NDArray[np.int64]:
    """ns of each stream in which something that sends one event after the other was busy."""
    if laws.pacing is None:
        paced = columns["decode"] if laws.paced_apart else np.zeros(len(rows), dtype=np.int64)
        return np.maximum(paced, 0)
    inside = laws.pacing.inside(seen.first[rows], seen.last[rows])
    return np.minimum(_whole(inside), columns["decode"])


def _misfit(left: NDArray[np.int64], met_none: NDArray[np.bool_]) -> int:
    """What requests that met no other took beyond the laws, ns: no queue of ours; 0 where it may
    be chance."""
    values = left[met_none].astype(float)
    if len(values) < LONE:
        return 0
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    mean = float(values.mean())
    return round(mean) if mean > _SURE * error else 0


def _whole(ns: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(ns).astype(np.int64)


# ---------------------------------------------------------------------- claims
def _claims(
    laws: Laws,
    columns: Columns,
    drawn: dict[str, NDArray[np.float64]],
    pieces: list[Piece],
    leaves: Columns,
) -> list[Claim]:
    client = Origin("A", "this client's due and send times, user and kernel transmit stamps")
    network = Origin("A", "transmit and ACK stamps, TCP_INFO min_rtt")
    claims = [
        Claim(MASK["client"], columns["client"], (client,)),
        Claim(MASK["network"], columns["network"], (network,), drawn=drawn["network"]),
    ]
    for each in pieces:
        if each.name in columns and (each.ns.any() or each.name in ("prompt", "wait")):
            claims.append(
                Claim(
                    MASK[each.likely],
                    each.ns,
                    (PIECES[each.name](laws, each),),
                    late=each.name in ("interconnect", "held", "lone"),
                    ended=each.name == "end",
                    drawn=drawn[each.name],
                )
            )
    stream = (_stream_origin(laws),)
    if columns["made"].any():
        claims.append(Claim(MASK["decode"], columns["made"], (MADE,), drawn=drawn["made"]))
    *fixed, last = leaves or ["decode"]
    decode, again = columns["decode"], drawn["decode"]
    for leaf in fixed:
        claims.append(Claim(BIT[leaf], leaves[leaf], stream, late=True, stated=True))
        decode, again = decode - leaves[leaf], again - leaves[leaf]
    mask = BIT.get(last, MASK["decode"])
    claims.append(Claim(mask, decode, stream, late=True, stated=bool(leaves), drawn=again))
    return claims


def _stream_origin(laws: Laws) -> Origin:
    if laws.transfer is not None and not laws.transfer.proven:
        return Origin("E", f"{_DECODE}; the second token arrives late, and nothing shows why")
    shaken = laws.path is not None and laws.path.jitter_ns > laws.step.base
    uneven = shaken or laws.delivery.bursts_ns or laws.transfer is not None
    return Origin("C" if uneven else "A", _DECODE)


def _settles(claims: list[Claim], merges: Merges) -> dict[str, str]:
    """By class the one that gives where its sum comes out below nothing: the next in line."""
    there = {key_of(claim.leaves, merges) for claim in claims}
    classes = list(dict.fromkeys(merges.get(name, (name,)) for name in _LINE))
    classes = [members for members in classes if members[0] in there]
    found = {}
    for members in classes:
        last = max(_LINE.index(name) for name in members if name in _LINE)
        after = [each for each in classes if _LINE.index(each[0]) > last or each[-1] == _LINE[-1]]
        after = [each for each in after if each != members]
        if after:
            found[members[0]] = after[0][0]
    return found


def _alone(
    seen: Observations, rows: NDArray[np.int64], laws: Laws, columns: Columns
) -> NDArray[np.int64]:
    """What each request would take on an idle server."""
    tokens = np.maximum(seen.osl[rows] - 1, 0) + laws.delivery.hidden[rows]
    stream = tokens * laws.step.alone(seen.isl[rows] + seen.osl[rows] / 2)
    stream = np.maximum(stream - columns["made"], 0)
    still: Any = columns["network"] + (seen.done - seen.last)[rows]
    for name in ("way", "made", "refusal", "before", "launch", "prompt"):
        still = still + columns[name]
    if "interconnect" in columns and laws.transfer is not None:
        still = still + np.minimum(columns["interconnect"], round(laws.transfer.extra_ns))
    alone: NDArray[np.int64] = np.rint(still + stream).astype(np.int64)
    return alone
