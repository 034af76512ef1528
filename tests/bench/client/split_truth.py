"""Where TTFT truly went, from kernel stamps at both ends of a path, and a client's claim of it.

All namespaces of a machine share CLOCK_REALTIME, so stamps of both ends may be subtracted::

    connect   fresh connections: last handshake packet reaches the client - SYN leaves it
    network   (request's last byte reaches the server - its first leaves the client)
              + (first token reaches the client - it leaves the server)
    server    first token leaves the server - request's last byte reached it

Both ends of the client's legs are packet stamps of a tap beside it, none of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .score import Truth
from .seen import number_of
from .tap import SYN

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A stated interval wider than this is judged by whether it holds the truth.
WIDE_NS = 500_000
#: Two stamps of one instant, at both ends of a system call, differ by up to this.
STAMP_SLACK_NS = 100_000


@dataclass(frozen=True, slots=True)
class Parts:
    """True ns of one request. ``network`` without ``connect``, which is 0 when kept alive."""

    connect: int
    network: int
    server: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A client's split of one request, ns; ``network`` without ``connect``.

    A client that does not state its connect apart (``connect_ns``) has it judged as network.
    """

    connect: int | None
    network: int
    low: int
    high: int
    server: int

    @classmethod
    def of(cls, row: dict[str, Any]) -> Claim:
        said = row.get("connect_ns")
        names = ("network_ns", "network_lo_ns", "network_hi_ns")
        network, low, high = (int(row[name]) - int(said or 0) for name in names)
        apart = None if said is None else int(said)
        return cls(apart, network, low, high, int(row["server_ns"]))

    def true_network(self, parts: Parts) -> int:
        return parts.network + (parts.connect if self.connect is None else 0)


class Tap:
    """Packets by client port. Sequence numbers are made offsets in each direction's bytes."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.drops = int(file["drops"])
            columns = {name: file[name] for name in file.files if name != "drops"}
        self.by_port: dict[int, dict[str, NDArray[np.int64]]] = {}
        order = np.argsort(columns["port"], kind="stable")
        ports, begins = np.unique(columns["port"][order], return_index=True)
        for port, rows in zip(ports.tolist(), np.split(order, begins[1:]), strict=True):
            self.by_port[port] = {name: values[rows] for name, values in columns.items()}

    def opened(self, port: int) -> tuple[int, int, int] | None:
        """(SYN's departure, client's and server's first sequence number) of a port.

        None where the tap did not hear the handshake, or heard two: the port was used again.
        """
        packets = self.by_port.get(port)
        if packets is None:
            return None
        syn = packets["flags"] & SYN > 0
        out, back = syn & (packets["outgoing"] == 1), syn & (packets["outgoing"] == 0)
        client, server = np.unique(packets["seq"][out]), np.unique(packets["seq"][back])
        if len(client) != 1 or len(server) != 1:
            return None
        return int(packets["stamp"][out].min()), int(client[0]) + 1, int(server[0]) + 1

    def passed(self, port: int, outgoing: bool, first: int, offset: int) -> int | None:
        """First time that the segment with byte ``offset`` passed the interface."""
        packets = self.by_port[port]
        begins = (packets["seq"] - first) & 0xFFFFFFFF
        holds = (packets["outgoing"] == outgoing) & (begins <= offset)
        holds &= (offset < begins + packets["length"]) & (packets["flags"] & SYN == 0)
        return int(packets["stamp"][holds].min()) if holds.any() else None

    def last_heard(self, port: int, before: int) -> int:
        """Stamp of the last packet with a SYN or payload that came in before that instant."""
        packets = self.by_port[port]
        matters = (packets["length"] > 0) | (packets["flags"] & SYN > 0)
        matters &= (packets["outgoing"] == 0) & (packets["stamp"] <= before)
        return int(packets["stamp"][matters].max())


def true_parts(truth: Truth, tap: Tap) -> dict[int, Parts]:
    """By request number; a request that the tap or a stamp misses is left out."""
    assert truth.tx_real is not None, "the server needs --tx-stamps"
    found = {}
    for number in np.flatnonzero(truth.requests["finished"]).tolist():
        request = {name: values[number] for name, values in truth.requests.items()}
        token_left = int(truth.tx_real[truth.offsets[number]])
        port, came = int(request["port"]), int(request["last_real"])
        opened = tap.opened(port)
        if opened is None or not token_left or not came:
            continue
        syn, client_first, server_first = opened
        left = tap.passed(port, True, client_first, int(request["rx_first"]))
        token = tap.passed(port, False, server_first, int(request["tx_first"]) - 1)
        if left is None or token is None:
            continue
        connect = tap.last_heard(port, left) - syn if request["nth"] == 0 else 0
        network = (came - left) + (token - token_left)
        found[number] = Parts(connect, network, token_left - came)
    return found


@dataclass(slots=True)
class Cell:
    """Requests alike: errors in ms, stated - true; ``connect`` only where it is stated apart."""

    connect: NDArray[np.float64]
    network: NDArray[np.float64]
    server: NDArray[np.float64]
    wide: NDArray[np.bool_]
    covered: NDArray[np.bool_]

    def worst(self, q: float) -> float | None:
        """The larger of both parts' q-th percentile of |error|, ms, of the narrow intervals.

        A wide interval claims no more than that it holds the truth: see ``coverage``.
        """
        if self.wide.all():
            return None
        parts = (self.network[~self.wide], self.server[~self.wide])
        return max(float(np.percentile(np.abs(e), q)) for e in parts)

    def coverage(self) -> float | None:
        """Share of the wide intervals that hold the truth; None where none is wide."""
        return float(np.mean(self.covered[self.wide])) if self.wide.any() else None


def cell(pairs: list[tuple[Parts, Claim]]) -> Cell:
    def array(values: list[float]) -> NDArray[np.float64]:
        return np.array(values, float)

    slack = STAMP_SLACK_NS
    judged = [(claim.true_network(parts), parts, claim) for parts, claim in pairs]
    return Cell(
        connect=array([(c.connect - p.connect) / 1e6 for p, c in pairs if c.connect is not None]),
        network=array([(c.network - truly) / 1e6 for truly, _, c in judged]),
        server=array([(c.server - p.server) / 1e6 for _, p, c in judged]),
        wide=np.array([c.high - c.low > WIDE_NS for _, _, c in judged], np.bool_),
        covered=np.array([c.low - slack <= truly <= c.high + slack for truly, _, c in judged]),
    )


def paired(parts: dict[int, Parts], rows: list[dict[str, Any]]) -> dict[int, tuple[Parts, Claim]]:
    """Joined by the reply's number."""
    claims = {number_of(row["response_id"]): Claim.of(row) for row in rows}
    return {n: (p, claims[n]) for n, p in parts.items() if n in claims}
