"""What the evidence of a probe leaves open between two parts, beside whose a piece is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws.laws import Laws, token_ns
from latdiag.attribution.laws.line import Line
from latdiag.attribution.laws.path import HTTP_LAYER_NS
from latdiag.attribution.ledger import Merges, Move

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Requests that met no other, from which on they say something of all.
LONE = 8
#: How far the time of tokens that no arrival shows may be off.
_UNSEEN = 0.06

#: By the name of a piece: ns of each row.
Columns = dict[str, NDArray[np.int64]]


def doubts(
    seen: Observations,
    rows: NDArray[np.int64],
    laws: Laws,
    columns: Columns,
    line: Line | None,
    merges: Merges,
) -> list[Move]:
    """How much of each row's time may be of another class than the one that has it."""
    return [
        *_known_shapes(seen, rows, laws, merges),
        *_behind_a_place(laws, columns, merges),
        *_first_of_many(seen, rows, laws, columns, merges),
        *_slowed_unseen(laws, columns, merges),
        *_beside_the_line(line, columns, merges),
    ]


def _known_shapes(
    seen: Observations, rows: NDArray[np.int64], laws: Laws, merges: Merges
) -> list[Move]:
    """What the shapes of the laws leave open."""

    def key(name: str) -> str:
        return merges.get(name, (name,))[0]

    def move(giver: str, taker: str, ns: Any) -> None:
        if key(giver) != key(taker):
            moves.append(Move(key(giver), key(taker), ns))

    moves: list[Move] = []
    move("network", "prefill", (seen.network - seen.network_lo)[rows].astype(float))
    front = "frontend" if laws.refusals is not None else "prefill"
    if laws.path is None:
        move("prefill", "network", (seen.network_hi - seen.network)[rows].astype(float))
    else:
        # A way that delays unevenly, and keeps the order, draws a stream out.
        move("decode", "network", laws.path.jitter_ns)
        if not laws.path.is_way:
            # So short a GET may be an HTTP layer as well as a way.
            move(front, "network", laws.path.floor_ns)
    if laws.before is not None:
        move("prefill", "frontend", laws.before.room_ns)
        move("frontend", "prefill", min(laws.before.room_ns, laws.before.constant_ns))
    elif laws.refusals is not None and laws.refusals.curve is not None:
        least = laws.own.tokens[laws.own.tokens.argmin()][None]
        hidden = float(laws.own.at(least)[0] - laws.refusals.at(least)[0])
        # Whoever has read a prompt has little left to do: no more than it took to come so far.
        most = max(laws.refusals.constant_ns, HTTP_LAYER_NS)
        move("prefill", "frontend", min(max(0.0, hidden), most))
    if laws.delivery.held is not None:
        held = laws.delivery.held
        move("decode", "gateway", (held.last_hi - held.last)[rows])
        move("gateway", "decode", (held.last - held.last_lo)[rows])
        move("decode", "prefill", (held.first - held.first_lo)[rows])
        move("prefill", "decode", (held.first_hi - held.first)[rows])
    early = (laws.delivery.hidden + laws.delivery.gathered)[rows]
    if early.any():
        unsure = _UNSEEN * early * token_ns(seen, rows, laws)
        move("decode", "prefill", unsure)
        move("prefill", "decode", unsure)
    if laws.delivery.open:
        # Whether the first arrival brings one token or as many as the others.
        steps = (laws.delivery.chunk - 1) * laws.step.alone(seen.isl[rows].astype(float))
        move("prefill", "decode", np.minimum(steps, seen.server[rows].astype(float)))
    return moves


def _behind_a_place(laws: Laws, columns: Columns, merges: Merges) -> list[Move]:
    """Who waited for a place meets others' prompts behind it, as do those who need not wait: what
    these wait is no part of admission, and more than a step is likely."""
    moves = []
    free = columns["wait"][(columns["full"] == 0) & (columns["door"] == 0)]
    more = max(laws.step.base, float(free.mean()) if len(free) >= LONE else 0.0)
    for name, owner in (("full", "queue"), ("door", "gateway")):
        giver, taker = (merges.get(each, (each,))[0] for each in (owner, "prefill"))
        if giver != taker and columns[name].any():
            moves.append(Move(giver, taker, np.clip(columns[name], 0, more).astype(float)))
    return moves


def _first_of_many(
    seen: Observations,
    rows: NDArray[np.int64],
    laws: Laws,
    columns: Columns,
    merges: Merges,
) -> list[Move]:
    """Whoever takes a time for each event takes it for the first ones too, which no refused POST
    shows: it may be of what a short prompt seems to take. An event without text comes before the
    first token."""
    if laws.pacing is None and not laws.paced_apart:
        return []
    each = token_ns(seen, rows, laws) if laws.paced_apart else 0.0
    if laws.pacing is not None:
        each = np.maximum(each, laws.pacing.event_ns)
    giver, taker = (merges.get(name, (name,))[0] for name in ("prefill", "gateway"))
    open_ns = np.minimum(columns["launch"] + columns["prompt"], 2 * each)
    return [Move(giver, taker, open_ns.astype(float))] if giver != taker else []


def _slowed_unseen(laws: Laws, columns: Columns, merges: Merges) -> list[Move]:
    """Where a stream is over with its first arrival, others may have slowed it before that."""
    giver, taker = (merges.get(name, (name,))[0] for name in ("queue", "decode"))
    if not laws.unseen or giver == taker:
        return []
    return [Move(giver, taker, np.maximum(columns["wait"], 0).astype(float))]


def _beside_the_line(line: Line | None, columns: Columns, merges: Merges) -> list[Move]:
    """What refused POSTs that waited leave open: how much of the waits lies before whatever
    refuses."""
    if line is None or not line.doubt:
        return []
    giver, taker = (merges.get(each, (each,))[0] for each in ("gateway", "queue"))
    open_ns = (columns["door"] + columns["crowd"]) * (line.doubt / line.before)
    return [Move(giver, taker, open_ns.astype(float))] if giver != taker else []
