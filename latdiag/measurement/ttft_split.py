"""TTFT in three parts that the client alone can prove: client, network, server.

For a request with kernel stamps, on one clock::

    client   written - sent, less the connect; and wire - written; a first try that was lost
    network  dns + tcp + tls, upload (last byte - first byte on the wire), one round trip,
             retransmissions
    server   the rest until the first token: everything behind the first TCP hop

The round trip lies in [min_rtt of the connection, ack - wire]: a receiver may delay its ACK up
to 40 ms and let it ride on the reply, so the ACK bounds it from above only. Where the two differ
by more than half a millisecond the ACK counts as delayed, and the round trip is min_rtt plus what
this request's retransmissions cost. Where they do not, it is their middle: an ACK may ride on
headers that came within the half millisecond, and the middle is at most half of that wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.streams import Streams, read_streams

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: More than this between the smallest round trip and the ACK: the ACK was delayed.
DELAYED_ACK_NS = 500_000

COLUMNS = (
    "request_id",
    "response_id",
    "outcome",
    "stage",
    "sent_ns",
    "due_ns",
    "dns_ns",
    "tcp_ns",
    "tls_ns",
    "written_ns",
    "wire_ns",
    "wire_last_ns",
    "acked_ns",
    "resent_ns",
    "retry_ns",
    "min_rtt_ns",
    "retransmits",
    "arrivals_ns",
    "tokens",
    "kinds",
    "censored",
    "clock_step",
    "done_ns",
)


@dataclass(frozen=True, slots=True)
class TtftSplit:
    """One entry per row that can be split; all int64 ns, none negative, and
    ``client + network + server == ttft`` exactly in every row.

    ``row``: index within the batch. ``network_lo/hi``: the interval that the stamps prove.
    ``connect``: the part of network before the request was written.
    """

    row: NDArray[np.int64]
    ttft: NDArray[np.int64]
    client: NDArray[np.int64]
    network: NDArray[np.int64]
    network_lo: NDArray[np.int64]
    network_hi: NDArray[np.int64]
    server: NDArray[np.int64]
    connect: NDArray[np.int64]
    delayed: NDArray[np.bool_]


def split(batch: Batch, streams: Streams | None = None) -> TtftSplit:
    """Split every row of a batch that has kernel stamps and an exact first output arrival.

    ``streams``: those of the batch, where they were read already.

    Whatever the stamps say (a converted one may be off by a microsecond), every part is cut to
    the time that there is: nothing can begin before the one before it has ended.
    """
    ints = batch.ints
    streams = read_streams(batch) if streams is None else streams
    first = streams.first
    # The kernel may join the first segment with the rest while it waits, and then keeps only the
    # stamp of the last byte: the first left no earlier than it was written.
    begun = ints["wire_ns"].valid | (ints["wire_last_ns"].valid & ints["written_ns"].valid)
    usable = (streams.outputs > 0) & ~streams.first_censored & begun & ints["sent_ns"].valid
    usable &= ~batch.bools["clock_step"] & (first >= ints["sent_ns"].values)
    row = np.flatnonzero(usable)

    def take(name: str, default: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        column = ints[name]
        values = column.values[row]
        if default is None:
            return np.where(column.valid[row], values, 0)
        return np.where(column.valid[row], values, default)

    sent = take("sent_ns")
    ttft = first[row] - sent
    wire = np.clip(take("wire_ns", take("written_ns")), sent, first[row])
    fresh = ints["tcp_ns"].valid[row]
    connected = take("tls_ns", take("tcp_ns"))
    # A first try that a dying connection lost is the client's, not the way to the server.
    retry = np.clip(take("retry_ns"), 0, wire - sent)
    connect = np.where(fresh, np.clip(connected - sent - retry, 0, wire - sent - retry), 0)
    after_wire = first[row] - wire
    wire_last = take("wire_last_ns", wire)
    upload = np.clip(wire_last - wire, 0, after_wire)
    room = after_wire - upload
    resent = np.clip(take("resent_ns"), 0, room)

    acked = take("acked_ns")
    has_ack = acked > 0
    lo = np.clip(take("min_rtt_ns"), 0, room)
    # Without an ACK stamp nothing but the reply itself bounds the round trip from above.
    hi = np.where(has_ack, np.clip(acked - wire_last, 0, room), room)
    hi = np.maximum(hi, lo)
    delayed = ~has_ack | (hi - lo > DELAYED_ACK_NS)
    trip = np.where(delayed, np.minimum(lo + resent, hi), (lo + hi) // 2)
    network = connect + upload + trip
    client = wire - sent - connect
    return TtftSplit(
        row=row,
        ttft=ttft,
        client=client,
        network=network,
        network_lo=connect + upload + lo,
        network_hi=connect + upload + hi,
        server=ttft - client - network,
        connect=connect,
        delayed=delayed,
    )
