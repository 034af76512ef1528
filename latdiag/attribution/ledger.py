"""A ledger: every claim that one kind of evidence makes on the time of requests.

A claim says how much of each request's time belongs to a set of leaves (``queue.admission``), and
what says so. The client's stamps, spans, replies, metrics and laws all write claims; ``settle``
adds them up. A claim on leaves of several components stays merged, or unattributed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import MASK, components
from latdiag.measurement.frame import Frame
from latdiag.model.components import COMPONENTS

#: So much more than the client saw may a server state: stamps of the two are taken at different
#: ends of the same event.
OVER_NS, OVER_SHARE = 5_000_000, 0.02


class Origin(NamedTuple):
    """What a claim rests on. ``grade``: A to E. ``text`` alone is the whole of it, or goes before
    the ``name`` s of all claims of a class that have the same ``text`` and ``after``."""

    grade: str
    text: str
    name: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """Time of each request that belongs to some leaves; one entry per row, int64 ns.

    ``leaves``: as bits. ``before``: how much of ``ns`` lies before the first token, where it may
    lie on both sides; else all of it does, or none where ``late`` (until the last token) or
    ``ended`` (after it). ``stated``: evidence says it of
    these leaves and no others, it is not what the others leave. ``drawn``: (draws, rows), what
    other draws of the evidence would make of ``ns``.
    """

    leaves: int
    ns: NDArray[np.int64]
    origins: tuple[Origin, ...]
    before: NDArray[np.int64] | None = None
    late: bool = False
    ended: bool = False
    stated: bool = False
    drawn: NDArray[np.float64] | None = None

    @property
    def may_be_early(self) -> bool:
        return self.before is not None or not (self.late or self.ended)

    @property
    def may_be_late(self) -> bool:
        return self.before is not None or self.late

    @property
    def early(self) -> NDArray[np.int64]:
        """ns until the first token."""
        if self.before is not None:
            return self.before
        return self.ns if self.may_be_early else np.zeros_like(self.ns)

    @property
    def inside(self) -> NDArray[np.int64]:
        """ns until the last token."""
        return np.zeros_like(self.ns) if self.ended else self.ns


class Move(NamedTuple):
    """Time that the evidence leaves open between two classes: so many ns of each row, or of all
    alike, may belong to ``taker`` instead of ``giver``."""

    giver: str
    taker: str
    ns: NDArray[np.float64] | float


#: Of each component the class that it is merged in, if it is: the class goes by its first member.
Merges = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Ledger:
    """All claims on the same rows, and how they are to be read.

    ``remainder``: the grade and the words of what no claim takes. ``filled``: the intervals
    (client_ttft, decode) that the claims fill by construction, so that nothing of them is
    unattributed. ``limits``: by class the ns of each row that all moves out of it can take
    together. ``settles``: by class the one that gives where its sum, a difference of estimates,
    comes out below nothing. ``leaf_origin``: what leaves rest on.
    """

    claims: Sequence[Claim]
    remainder: Origin
    leaf_origin: Origin
    merges: Merges = field(default_factory=dict)
    filled: frozenset[str] = frozenset()
    moves: Sequence[Move] = ()
    limits: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    settles: Mapping[str, str] = field(default_factory=dict)


def key_of(leaves: int, merges: Merges) -> str:
    """The class that time of these leaves goes by: that of their first component."""
    first = components(leaves)[0]
    return merges.get(first, (first,))[0]


def is_parted(leaves: int, merges: Merges) -> bool:
    """Whether time of these leaves belongs to one component, or to one merged class."""
    names = components(leaves)
    together = merges.get(names[0], (names[0],))
    return set(names) <= set(together) and names != ("unattributed",)


def united(together: Iterable[Collection[str]]) -> dict[str, tuple[str, ...]]:
    """The classes of components that are told together, by each of their members; one that is
    told alone is not in it."""
    sets: list[set[str]] = []
    for names in together:
        touching = [s for s in sets if s & set(names)]
        sets = [s for s in sets if not s & set(names)] + [set(names).union(*touching)]
    found: dict[str, tuple[str, ...]] = {}
    for each in sets:
        if len(each) < 2:
            continue
        members = tuple(name for name in COMPONENTS if name in each)
        found |= dict.fromkeys(members, members)
    return found


def mask_of(names: Sequence[str]) -> int:
    """All leaves of some components."""
    return sum(MASK[name] for name in names)


# ---------------------------------------------------------------------- the client's own claims
#: The first hop's share, as each kind of stamp proves it.
_NETWORK = "transmit and ACK stamps, TCP_INFO min_rtt"
_ROUND_TRIP = "the smallest round trip of the connection if known, otherwise zero"


def client_claims(rows: Frame, client: str = "", grade: str = "") -> list[Claim]:
    """What the client's own stamps prove: its own time, and the network's up to the first hop.

    ``client``: other words for what its own time rests on; ``grade``: another of the network's.
    """
    kernel = bool(rows.kernel.all())
    stamps = "user and kernel transmit stamps" if kernel else "user stamps"
    network = Origin(grade or ("A" if kernel else "D"), _NETWORK if kernel else _ROUND_TRIP)
    return [
        Claim(MASK["client"], rows.client, (Origin("A", client or f"{stamps} of this client"),)),
        Claim(MASK["network"], rows.network, (network,)),
    ]
