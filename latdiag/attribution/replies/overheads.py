"""What gateways state of themselves in the headers of their replies: the least that they took.

A header leaves before the stream ends, so what it states ends there too: of a gateway that holds
the stream back afterwards it says nothing. What its replies state is true of each request alone.

Two kinds. Some state their own work (LiteLLM: the reply's time less that of its call, until the
headers, docs.litellm.ai/docs/proxy/response_headers; Kong: its plugins and routing, until the
request leaves). Envoy states what it waited for the headers of the server behind it, the network
between them and retries included (x-envoy-upstream-service-time), and passes headers on as they
come: what the client waited for them beyond that, and beyond the first hop, went by before Envoy
asked. What a gateway does before it starts to count is in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.accounts import Account, Rank
from latdiag.attribution.leaves import MASK
from latdiag.attribution.ledger import Claim, Ledger, Move, Origin, client_claims
from latdiag.attribution.replies import columns
from latdiag.attribution.settle import Whole, settle
from latdiag.measurement.frame import Frame
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.units import NS_PER_MS
from latdiag.stacks import catalogue
from latdiag.stacks.signal import Signal, Stack, of

_GATEWAY = of("gateway")
#: Whole milliseconds are stated.
_UNIT_NS = NS_PER_MS
#: So many of the replies have their headers ahead of the first token.
_MOST = 0.9


@dataclass(frozen=True, slots=True)
class Overhead:
    """One gateway's own time by its header. ``ns``: of each request of the frame it was read for,
    NaN where the reply does not state it; ``n``: those that do."""

    stack: Stack
    header: str
    ns: NDArray[np.float64]
    n: int

    @property
    def mean_ns(self) -> float:
        """Over the requests that state it."""
        return float(np.nanmean(self.ns))


def fields(known: Sequence[Stack]) -> list[Signal]:
    """The headers by which a gateway's own time is known from below."""
    return [signal for _, signal in (*_stated(known), *_awaited(known))]


def _stated(known: Sequence[Stack]) -> list[tuple[Stack, Signal]]:
    return [
        (stack, signal)
        for stack in known
        for signal in stack.signals
        if signal.kind == "header" and signal.covers and signal.covers <= _GATEWAY
    ]


def _awaited(known: Sequence[Stack]) -> list[tuple[Stack, Signal]]:
    return [(stack, s) for stack in known for s in stack.signals if s.until_headers]


def overheads(replies: columns.Reader, seen: Frame) -> list[Overhead]:
    """What gateways state of the requests ``seen``, each header by itself; most requests have to
    bear one, or it says nothing of all."""
    return _of(replies, seen, _stated(catalogue.stacks()))


def _of(
    replies: columns.Reader, seen: Frame, known: Sequence[tuple[Stack, Signal]]
) -> list[Overhead]:
    stated = replies.replies([signal for _, signal in known]).columns
    found = []
    for stack, signal in known:
        column = stated.get(columns.foreign_name(signal))
        if column is None:
            continue
        whole = dict(zip(column.rows.tolist(), column.values.tolist(), strict=True))
        ns = np.array([whole.get(row, np.nan) for row in seen.row.tolist()], dtype=float)
        n = int(np.isfinite(ns).sum())
        if 2 * n > seen.n:
            found.append(Overhead(stack, signal.foreign, ns, n))
    return found


def account(replies: columns.Reader, seen: Frame) -> Account | None:
    """The least that gateways took of the answered requests ``seen``; None where none states it.

    Of several the most counts: one behind the other, each states a part.
    """
    least = [(one, one.ns) for one in overheads(replies, seen)]
    awaited = _of(replies, seen, _awaited(catalogue.stacks()))
    least += [(one, _before(one, seen)) for one in awaited if _passed_on(seen)]
    if not least:
        return None
    ns = np.nan_to_num(np.max([np.nan_to_num(each) for _, each in least], axis=0))
    room = np.maximum(seen.first - seen.begin - seen.client - seen.network, 0)
    own = np.minimum(np.rint(ns).astype(np.int64), room)
    names = ", ".join(dict.fromkeys(f"{one.stack.title} ({one.header})" for one, _ in least))
    origin = Origin("B", f"at least what its headers state: {names}")
    ledger = Ledger(
        [*client_claims(seen), Claim(MASK["gateway"], own, (origin,))],
        remainder=Origin("A", "the headers of gateways say nothing of it"),
        leaf_origin=Origin("B", "nothing is known of leaves"),
        moves=(Move("unattributed", "gateway", (seen.done - seen.begin - own).astype(float)),),
    )
    stacks = tuple(dict.fromkeys(one.stack.name for one, _ in least))
    return Account(Rank.LEAST, settle(Whole.of(seen), ledger, 0), stacks=stacks)


def _before(one: Overhead, seen: Frame) -> NDArray[np.float64]:
    """ns that went by before a gateway asked the server behind it."""
    known = seen.kernel & (seen.headers > 0)
    waited = seen.headers - seen.begin - seen.client - seen.network_hi
    ns = np.where(known, np.maximum(waited - one.ns - _UNIT_NS, 0), np.nan)
    return np.asarray(ns, dtype=float)


def _passed_on(seen: Frame) -> bool:
    """Whether headers come before the first token: else something may hold them back for it."""
    early = seen.first - seen.headers > _UNIT_NS
    return bool(seen.n) and float(early.mean()) >= _MOST


def caveats(found: Sequence[Overhead]) -> list[Caveat]:
    """What each states, for people."""
    return [
        caveat(
            "LD119", gateway=one.stack.title, took=round(one.mean_ns), header=one.header, n=one.n
        )
        for one in found
    ]
