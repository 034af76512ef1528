"""End-to-end latency of requests that come through a gateway, by their servers' totals.

Servers that say how long all requests took them, from first to last, bound everything that lies
behind the gateway: what the client waited beyond that, and beyond the network, is the gateway's.
That needs no word of what they did meanwhile. The sums hold; whose they are goes by rank until the
first token, and by tokens after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import MASK, components, visible
from latdiag.attribution.ledger import Claim, Ledger, Move, Origin, client_claims, mask_of
from latdiag.attribution.metrics.claims import Aggregates
from latdiag.attribution.metrics.division import handed_out, poured
from latdiag.attribution.metrics.shares import Share
from latdiag.attribution.metrics.traffic import Own, Total
from latdiag.attribution.parts import Parts
from latdiag.attribution.settle import Whole, settle
from latdiag.measurement.frame import Frame
from latdiag.model.components import COMPONENTS
from latdiag.model.units import NS_PER_S, UNIT_NS

#: Two clocks measure one interval: so much more may servers state than the client waited.
_DRIFT = 0.01
_BY_RANK = "which request has how much of it goes by rank"


@dataclass(frozen=True, slots=True)
class Engine:
    """What the servers took of all own requests of a window, ns. ``first``: until the first
    token, ``stream``: after it, each as (sum, least, most). ``share``: ``first`` as it is handed
    out. ``foreign``: what says so."""

    first: tuple[int, int, int]
    stream: tuple[int, int, int]
    share: Share
    foreign: tuple[str, str]


def engine_of(
    totals: Sequence[Total], found: Aggregates, own: Own, refused: int, refused_ns: int
) -> Engine | None:
    """The totals of the server in front; None where none says both, of all own requests and of no
    others. ``refused``: requests that were refused, which ``refused_ns`` took: some servers count
    them, and none makes a token of them."""
    flight = max(found.traffic.in_flight, own.in_flight)
    sound = [
        each
        for each in totals
        if each.signal.kind == "histogram"
        and each.signal.unit in UNIT_NS
        and each.role == "unified"
        and own.n - flight <= each.n <= own.n + flight + refused
        and each.n > 0
        and {"queue.admission", "prefill.own"} <= each.signal.covers
    ]
    whole = [each for each in sound if "decode.base" in each.signal.covers]
    first = [each for each in sound if not _of_stream(each) and each.n <= own.n + flight]
    if not whole or not first:
        return None
    # Of several layers the one in front has waited for those behind it.
    one, until = max(whole, key=_sum), max(first, key=_sum)
    if until.sum_ns > one.sum_ns:
        return None
    bias = 0.0 if own.n == until.n and not own.in_flight else min(1.0, flight / max(1, until.n))
    known = [(t.sum_ns, t.lo_ns * (1 - bias), t.hi_ns * (1 + bias)) for t in (until, one)]
    (a, a_lo, a_hi), (b, b_lo, b_hi) = known
    members = _members(until)
    scale = UNIT_NS[until.signal.unit]
    bounds, counts = until.buckets
    share = Share(
        members[0], "", until.role, until.signal.foreign, "B", round(a), round(a_lo), round(a_hi),
        tuple(bound * scale for bound in bounds), counts, members,
    )  # fmt: skip
    less = refused_ns if one.n > until.n else 0
    # Whoever is behind the one in front, and counts no refusal, took no longer than it.
    inner = max((each.lo_ns for each in whole if each.n == until.n), default=0.0)
    least = max(b_lo - less, inner * (1 - bias))
    stream = (round(b - a), min(round(b - a), max(0, round(least - a_hi))), round(b_hi - a_lo))
    return Engine(
        (round(a), round(a_lo), round(a_hi)),
        stream,
        share,
        (until.signal.foreign, one.signal.foreign),
    )


def _sum(total: Total) -> float:
    return total.sum_ns


def _of_stream(total: Total) -> bool:
    return any(leaf.startswith("decode.") for leaf in total.signal.covers)


def _members(total: Total) -> tuple[str, ...]:
    """What the servers may have done meanwhile; a router of their own is a part of them."""
    names = {*components(visible(total.signal.covers))} - {"gateway", "decode"}
    return tuple(name for name in COMPONENTS if name in names)


# ---------------------------------------------------------------------- into parts
@dataclass(slots=True)
class _Way:
    """One way to hand the sums out; ns of each request. ``early``: the servers' until the first
    token; ``decode``, of which ``before`` lies before the first token that the client saw."""

    early: NDArray[np.int64]
    decode: NDArray[np.int64]
    before: NDArray[np.int64]


def explain(
    rows: Frame,
    others: Frame,
    engines: Sequence[Engine],
    place: NDArray[np.int64],
    gateways: Sequence[str],
    left_out: int,
) -> Parts | str:
    """Parts of ``rows``, or one sentence's end why there are none. ``others``: requests of the
    same windows that are not asked about; ``place``: the window, an index of ``engines``, of each
    of ``rows`` and then of ``others``. ``gateways``: what is known to be in front, for people."""
    both = {n: np.concatenate([getattr(rows, n), getattr(others, n)]) for n in _USED}
    behind = both["first"] - both["begin"] - both["client"] - both["network"]
    behind = np.maximum(behind, 0)
    stream, after = both["last"] - both["first"], both["done"] - both["last"]
    tokens = np.maximum(both["outputs"] - 1, 1)
    n = len(behind)
    ways = [_Way(*(np.zeros(n, dtype=np.int64) for _ in range(3))) for _ in range(5)]
    for at, engine in enumerate(engines):
        mine = np.flatnonzero(place == at)
        if not len(mine):
            continue
        pieces = _divided(engine, behind[mine], stream[mine], tokens[mine])
        if isinstance(pieces, str):
            return pieces
        for into, piece in zip(ways, pieces, strict=True):
            into.early[mine], into.decode[mine] = piece.early, piece.decode
            into.before[mine] = piece.before
    cut = slice(rows.n)
    return _parts(rows, engines, ways, (behind[cut], stream[cut], after[cut]),
                  gateways, left_out)  # fmt: skip


_USED = ("begin", "client", "network", "first", "last", "done", "outputs")


def _divided(
    engine: Engine,
    behind: NDArray[np.int64],
    stream: NDArray[np.int64],
    tokens: NDArray[np.int64],
) -> list[_Way] | str:
    """The estimate, and what other hand-outs would make of it."""
    room = int(behind.sum() + stream.sum())
    wanted = engine.first[0] + engine.stream[0]
    if engine.first[0] > (1 + _DRIFT) * behind.sum() or wanted > (1 + _DRIFT) * room:
        return (
            f"the servers took {wanted / NS_PER_S:.2f} s by their metrics, and the client waited"
            f" {room / NS_PER_S:.2f} s behind the first hop"
        )
    first = min(engine.first[0], int(behind.sum()))
    whole = behind + stream
    ways = []
    for key in (None, whole, -whole, behind, -behind):
        by = behind if key is None else key
        early = handed_out([engine.share], [first], behind, by, key)[engine.share.component]
        left = whole - early
        decode = poured(tokens * (engine.stream[0] / tokens.sum()), left,
                        min(engine.stream[0], int(left.sum())))  # fmt: skip
        ways.append(_Way(early, decode, np.maximum(decode - stream, 0)))
    return ways


def _parts(
    rows: Frame,
    engines: Sequence[Engine],
    ways: Sequence[_Way],
    waits: tuple[NDArray[np.int64], ...],
    gateways: Sequence[str],
    left_out: int,
) -> Parts:
    behind, stream, after = waits
    n, one = rows.n, ways[0]
    members = engines[0].share.members
    first = sorted({each.foreign[0] for each in engines})
    whole = sorted({each.foreign[1] for each in engines})

    def drawn(of: str) -> NDArray[np.float64]:
        return np.array([_columns(way, n, behind, stream)[of] for way in ways[1:]], dtype=float)

    columns = _columns(one, n, behind, stream)
    name = ", ".join(gateways) or "what is in front"
    gateway = Origin("B", f"what the client waited beyond {', '.join(whole)} ({name}); {_BY_RANK}")
    early = Origin("E" if len(members) > 1 else "B", f"metrics: {', '.join(first)}; {_BY_RANK}")
    decode = Origin("B", f"metrics: {', '.join(whole)} less {', '.join(first)}, by tokens")
    claims = client_claims(rows, "user and kernel transmit stamps of this client", "B")
    claims += [
        Claim(MASK["gateway"], columns["gateway"], (gateway,), before=columns["gateway_before"],
              drawn=drawn("gateway")),
        Claim(MASK["gateway"], after, (gateway,), ended=True),
        Claim(mask_of(members), columns["early"], (early,), drawn=drawn("early")),
        Claim(MASK["decode"], columns["decode"], (decode,), before=one.before[:n],
              drawn=drawn("decode")),
    ]  # fmt: skip
    ledger = Ledger(
        claims,
        remainder=Origin("B", "nothing: the gateway has what is left"),
        leaf_origin=Origin("B", "nothing is known of leaves"),
        merges=dict.fromkeys(members, members) if len(members) > 1 else {},
        filled=frozenset({"client_ttft", "decode"}),
        moves=_moves(rows, engines, columns, members[0]),
    )
    return settle(Whole.of(rows), ledger, left_out)


def _columns(
    way: _Way, n: int, behind: NDArray[np.int64], stream: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    early, decode, before = way.early[:n], way.decode[:n], way.before[:n]
    front = behind - early - before
    return {
        "early": early,
        "decode": decode,
        "gateway_before": front,
        "gateway": front + stream - (decode - before),
    }


def _moves(
    rows: Frame, engines: Sequence[Engine], columns: dict[str, NDArray[np.int64]], first: str
) -> list[Move]:
    """What the sums and the client's stamps leave open; the gateway has what the others lack."""
    moves = [
        Move("network", "gateway", (rows.network - rows.network_lo).astype(float)),
        Move("gateway", "network", (rows.network_hi - rows.network).astype(float)),
    ]
    for name, column, sums in (
        (first, "early", [each.first for each in engines]),
        ("decode", "decode", [each.stream for each in engines]),
    ):
        middle, lo, hi = (sum(each[at] for each in sums) for at in range(3))
        scale = columns[column] / max(1, middle)
        moves.append(Move(name, "gateway", scale * (middle - lo)))
        moves.append(Move("gateway", name, scale * (hi - middle)))
    return moves
