"""The instants of one request on the wire, as the transport fills them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple

#: Called once a read, in order: kernel stamp (REALTIME ns, 0 if none), user stamp (MONOTONIC ns),
#: floor (MONOTONIC ns; what this read brought arrived after it), the body bytes that it brought.
#: True says that this was the end, whatever the framing says.
Sink = Callable[[int, int, int, bytes], object]


class Exchange:
    """Instants in ns: ``*_real_ns`` REALTIME kernel stamps, the others MONOTONIC. 0 = not known.

    Put one into a request as ``extensions={"latdiag.exchange": Exchange()}``: it is filled in
    whether the request succeeds or fails.
    """

    __slots__ = (
        "acked_real_ns",
        "dns_ns",
        "done_ns",
        "encoding",
        "fault",
        "fault_text",
        "headers",
        "headers_ns",
        "headers_real_ns",
        "held",
        "last_key",
        "marked",
        "min_rtt_ns",
        "out_of_order",
        "resent_ns",
        "retransmits",
        "retry_ns",
        "reused",
        "sent_ns",
        "stamped_each",
        "status",
        "tcp_ns",
        "tls_ns",
        "wire_key",
        "wire_last_real_ns",
        "wire_real_ns",
        "written_ns",
    )

    def __init__(self) -> None:
        self.sent_ns = self.dns_ns = self.tcp_ns = self.tls_ns = self.written_ns = 0
        self.wire_real_ns = self.wire_last_real_ns = self.acked_real_ns = self.resent_ns = 0
        self.headers_ns = self.headers_real_ns = self.done_ns = 0
        #: spent on a first try that a dying kept-alive connection lost
        self.retry_ns = 0
        self.min_rtt_ns = self.retransmits = self.out_of_order = 0
        self.reused = False
        #: its sink has seen the end of it, and the framing goes on: ended by this client
        self.marked = self.held = False
        #: every read brought one segment: its stamp is of all that came in it
        self.stamped_each = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.encoding = ""
        #: an ``Outcome`` value if the attempt failed below HTTP, with its sentence
        self.fault = ""
        self.fault_text = ""
        self.wire_key = self.last_key = -1

    def stamped(self, what: int, key: int, real_ns: int) -> None:
        """Take one transmit stamp; a later request's stamps have later keys."""
        if what == 0:
            if key == self.wire_key and not self.wire_real_ns:
                self.wire_real_ns = real_ns
            if key == self.last_key:
                if not self.wire_last_real_ns:
                    self.wire_last_real_ns = real_ns
                else:  # the same byte sent again: a retransmission
                    self.resent_ns = max(self.resent_ns, real_ns - self.wire_last_real_ns)
        elif key == self.last_key and not self.acked_real_ns:
            self.acked_real_ns = real_ns


class Ended(NamedTuple):
    """What the writer is given of an exchange that has ended: its fields, as ``Exchange`` names
    and measures them. ``headers``: of the reply's, by name in lower case, those that were kept.
    """

    status: int = 0
    fault: str = ""
    fault_text: str = ""
    reused: bool = False
    dns_ns: int = 0
    tcp_ns: int = 0
    tls_ns: int = 0
    written_ns: int = 0
    wire_real_ns: int = 0
    wire_last_real_ns: int = 0
    acked_real_ns: int = 0
    headers_ns: int = 0
    headers_real_ns: int = 0
    done_ns: int = 0
    retry_ns: int = 0
    resent_ns: int = 0
    min_rtt_ns: int = 0
    retransmits: int = 0
    out_of_order: int = 0
    stamped_each: bool = False
    held: bool = False
    headers: Mapping[bytes, bytes] = MappingProxyType({})

    @classmethod
    def of(cls, exchange: Exchange, kept: frozenset[bytes]) -> Ended:
        """``kept``: names of headers, in lower case; 1 KiB of each is taken."""
        headers = {
            low: value[:1024] for name, value in exchange.headers if (low := name.lower()) in kept
        }
        return cls._make((*_fields_of(exchange), headers))


_fields_of = attrgetter(*Ended._fields[:-1])
