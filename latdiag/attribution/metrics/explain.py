"""End-to-end latency in components, out of what servers say of all requests together (grade B).

The client knows of each request what lies behind the first hop until the first token; the servers
know what queue and prefill took of all of them. The sums hold to the nanosecond. Whose they are
goes by rank: long waits to requests that waited long. What the extreme hand-outs would make of
each request are the ``draws``, so that every population bears how much depends on it: of all
requests nothing, of the slowest 5 % much (between them lies the Frechet range of its sum).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.client_only import AFTER_THE_STREAM, BEHIND_THE_HOP, STREAM
from latdiag.attribution.leaves import BIT, MASK
from latdiag.attribution.ledger import Claim, Ledger, Move, Origin, client_claims, mask_of
from latdiag.attribution.metrics.division import handed_out
from latdiag.attribution.metrics.shares import HANDED_OUT, PHASES, Told
from latdiag.attribution.metrics.tail import Tail, coupled_tail
from latdiag.attribution.parts import Parts, chosen_rows
from latdiag.attribution.settle import Whole, settle
from latdiag.measurement.frame import Frame
from latdiag.model.units import NS_PER_S

_BY_RANK = "the sum is measured; latdiag divides it among requests by rank"
_USER_STREAM = Origin("A", "this client's user-space stamps, first to last token")


# ---------------------------------------------------------------------- into parts
def explain(
    rows: Frame,
    others: Frame,
    windows: Sequence[Told],
    left_out: int = 0,
    behind_gateway: bool = False,
) -> Parts | str:
    """Parts of ``rows``, or one sentence's end why there are none.

    ``others``: requests of the same windows that are not asked about (a warm-up): the servers'
    sums are of them too. ``left_out``: successful requests that ``rows`` lacks.
    ``behind_gateway``: another layer is known to be in front of these servers.
    """
    held = _held(rows, others, windows)
    if (held.place[: rows.n] < 0).any():
        outside = int((held.place[: rows.n] < 0).sum())
        return f"{outside} of {rows.n} requests did not end between two scrapes of the servers"
    used = [told for at, told in enumerate(windows) if (held.place == at).any()]
    known = [
        name
        for name in HANDED_OUT
        if used and all(any(share.component == name for share in told.shares) for told in used)
    ]
    merged = {share.members for told in used for share in told.shares if share.members}
    is_bound = behind_gateway and len(merged) == 1 and PHASES[0] in next(iter(merged))
    if not is_bound and (merged or PHASES[0] not in known):
        return "they do not state how long requests were queued"
    pieces = []
    for at, told in enumerate(windows):
        mine = np.flatnonzero(held.place == at)
        if len(mine):
            piece = _divided(told, held, mine, known)
            if isinstance(piece, str):
                return piece
            pieces.append((mine, piece))
    classes = {name: (name,) for name in known} | {members[0]: members for members in merged}
    if held.all_kernel and not is_bound:
        # Nothing says that a gateway is there: what is left may be the server's frontend.
        classes.pop("frontend", None)
    return _parts(rows, held, _together(pieces, len(held.behind)), used, classes, left_out)


def tails(rows: Frame, others: Frame, windows: Sequence[Told], parts: Parts) -> dict[str, Tail]:
    """By component what the slowest 5 % have of it: in ``parts``, and whatever the hand-out.

    Components of one histogram alone. Sums over the windows.
    """
    held = _held(rows, others, windows)
    chosen = np.zeros(len(held.behind), dtype=bool)
    chosen[chosen_rows(parts.total, "p95_tail")] = True
    found: dict[str, Tail] = {}
    for name in HANDED_OUT:
        pieces: list[Tail] = []
        for at, told in enumerate(windows):
            mine = held.place == at
            if not (mine & chosen).any():
                continue
            own = [share for share in told.shares if share.component == name]
            room = held.behind[mine].astype(float)
            if len(own) == 1 and own[0].counts:
                share = own[0]
                tail = coupled_tail(
                    share.bounds_ns, share.counts, share.sum_ns, room, room, chosen[mine]
                )
                pieces += [tail] if tail is not None else []
        n = int(chosen.sum())
        if name in parts.parts and sum(piece.n for piece in pieces) == n:
            found[name] = _added(pieces, int(parts.parts[name][chosen[: rows.n]].sum()))
    return found


def _added(pieces: Sequence[Tail], sum_ns: int) -> Tail:
    lo, hi = sum(one.lo_ns for one in pieces), sum(one.hi_ns for one in pieces)
    return Tail(
        sum_ns,
        min(lo, sum_ns),
        max(hi, sum_ns),
        sum(one.independent_ns for one in pieces),
        sum(one.comonotone_ns for one in pieces),
        sum(one.n for one in pieces),
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """Requests of windows, those that are asked about first; ``place``: index of the window, -1
    for none. ``behind``: what lies behind the hop until the first token."""

    place: NDArray[np.int64]
    behind: NDArray[np.int64]
    total: NDArray[np.int64]
    all_kernel: bool


def places(rows: Frame, others: Frame, windows: Sequence[Told]) -> NDArray[np.int64]:
    """The window that each of ``rows``, then of ``others``, ended in; -1 for none."""
    return _held(rows, others, windows).place


def _held(rows: Frame, others: Frame, windows: Sequence[Told]) -> _Held:
    def both(name: str) -> Any:
        return np.concatenate([getattr(rows, name), getattr(others, name)])

    done = both("done")
    place = np.full(len(done), -1, dtype=np.int64)
    for at, told in enumerate(windows):
        place[(place < 0) & told.at.holds(done)] = at
    behind = both("first") - both("begin") - both("client") - both("network")
    return _Held(place, np.maximum(behind, 0), done - both("begin"), bool(rows.kernel.all()))


# ---------------------------------------------------------------------- one window
@dataclass(slots=True)
class _Piece:
    """A window's requests: ``ways[0]`` is the estimate by component, the others what other
    hand-outs would make of it; ``less`` and ``more``: what the sums leave open."""

    ways: list[dict[str, NDArray[np.int64]]]
    less: dict[str, NDArray[np.float64]]
    more: dict[str, NDArray[np.float64]]


def _divided(
    told: Told, held: _Held, mine: NDArray[np.int64], known: Sequence[str]
) -> _Piece | str:
    behind, whole = held.behind[mine], held.total[mine]
    # Requests whose stamps cannot be used have had their part of the sums as well.
    part = min(1.0, len(mine) / max(1, told.n))
    named = [share for name in known for share in told.shares if share.component == name]
    sums = [round(share.sum_ns * part) for share in named]
    room = int(behind.sum())
    phases = sum(
        value
        for share, value in zip(named, sums, strict=True)
        if share.component != "frontend" or share.members
    )
    if phases > room:
        words = " and ".join(name for name in known if name != "frontend")
        return (
            f"by the metrics {words} took {phases / NS_PER_S:.2f} s, but the client waited only"
            f" {room / NS_PER_S:.2f} s behind the first hop"
        )
    for at, share in enumerate(named):
        # A server's frontend and the client's stamps end at different sides of one token.
        if share.component == "frontend" and not share.members:
            sums[at] = min(sums[at], room - sum(sums[:at]))
    ways = [handed_out(named, sums, behind, behind, None)]
    for first, later in ((whole, -whole), (-whole, whole), (behind, -behind), (-behind, behind)):
        ways.append(handed_out(named, sums, behind, first, later))
    less = {name: np.zeros(len(mine)) for name in known}
    more = {name: np.zeros(len(mine)) for name in known}
    for share, value in zip(named, sums, strict=True):
        column = ways[0][share.component]
        weight = column / max(1, int(column.sum())) if value else np.full(len(mine), 1 / len(mine))
        missing = share.sum_ns - value
        less[share.component] += weight * min(value, share.sum_ns - share.lo_ns + missing)
        more[share.component] += weight * (share.hi_ns - share.sum_ns + missing)
    return _Piece(ways, less, more)


# ---------------------------------------------------------------------- all windows
def _together(pieces: Sequence[tuple[NDArray[np.int64], _Piece]], n: int) -> _Piece:
    """The windows' requests as one; those of no window have nothing."""
    first = pieces[0][1]
    joined = _Piece(
        [{name: np.zeros(n, dtype=np.int64) for name in way} for way in first.ways],
        {name: np.zeros(n) for name in first.less},
        {name: np.zeros(n) for name in first.more},
    )
    for mine, piece in pieces:
        for into, way in zip(joined.ways, piece.ways, strict=True):
            for name, column in way.items():
                into[name][mine] = column
        for name in piece.less:
            joined.less[name][mine] = piece.less[name]
            joined.more[name][mine] = piece.more[name]
    return joined


def _parts(
    rows: Frame,
    held: _Held,
    piece: _Piece,
    windows: Sequence[Told],
    handed: Mapping[str, tuple[str, ...]],
    left_out: int,
) -> Parts:
    """``handed``: by class the components that are handed out together."""
    n = rows.n
    behind = held.behind[:n]
    rest = _rest(held.all_kernel, [name for members in handed.values() for name in members])
    claims = client_claims(rows)
    for name, members in handed.items():
        leaf = _leaf(windows, name)
        ways = [way[name][:n] for way in piece.ways]
        claims.append(
            Claim(
                BIT[leaf] if leaf else mask_of(members),
                ways[0],
                tuple(_origins(windows, name)),
                stated=bool(leaf),
                drawn=np.array(ways[1:], dtype=float),
            )
        )
    left = "time to the first token, minus what the metrics state"
    if rest:
        ways = [behind - sum(way[name][:n] for name in handed) for way in piece.ways]
        origin = Origin("E" if len(rest) > 1 else "B", f"from the first hop on: {left}")
        drawn = np.array(ways[1:], dtype=float)
        claims.append(Claim(mask_of(rest), ways[0], (origin,), drawn=drawn))
    stream = STREAM if held.all_kernel else _USER_STREAM
    claims.append(Claim(MASK["decode"], rows.last - rows.first, (stream,), late=True))
    merges = {
        member: each for each in (rest, *handed.values()) if len(each) > 1 for member in each
    }
    nobody = Origin("B", f"the total minus everything that is stated or stamped; {left}")
    ledger = Ledger(
        claims,
        remainder=AFTER_THE_STREAM if rest else nobody,
        leaf_origin=Origin("B", f"metrics that cover only this: {_BY_RANK}"),
        merges=merges,
        filled=frozenset({"client_ttft", "decode"} if rest else {"decode"}),
        moves=_moves(rows, piece, list(handed), rest[0] if rest else "unattributed"),
    )
    return settle(Whole.of(rows), ledger, left_out)


def _rest(all_kernel: bool, handed: Sequence[str]) -> tuple[str, ...]:
    """The components that may have the time left behind the hop.

    None where the client stamps in user space, which may have made it itself: then it is nobody's,
    as long as both phases are known.
    """
    if not all_kernel and set(PHASES) <= set(handed):
        return ()
    return tuple(name for name in BEHIND_THE_HOP if name not in handed)


def _moves(rows: Frame, piece: _Piece, handed: Sequence[str], rest: str) -> list[Move]:
    """What the sums and the client's stamps leave open; the rest has what the others lack."""
    moves = [
        Move("network", rest, (rows.network - rows.network_lo).astype(float)),
        Move(rest, "network", (rows.network_hi - rows.network).astype(float)),
    ]
    for name in handed:
        moves.append(Move(name, rest, piece.less[name][: rows.n]))
        moves.append(Move(rest, name, piece.more[name][: rows.n]))
    return moves


def _leaf(windows: Sequence[Told], name: str) -> str:
    """The leaf that a component is in all windows; empty where there are several."""
    leaves = {s.leaf for told in windows for s in told.shares if s.component == name}
    return leaves.pop() if len(leaves) == 1 else ""


def _origins(windows: Sequence[Told], name: str) -> Iterator[Origin]:
    for told in windows:
        for share in told.shares:
            if share.component == name:
                yield Origin(share.grade, "metrics: ", share.foreign, f"; {_BY_RANK}")
