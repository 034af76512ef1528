"""Kernel stamps of a TCP socket: receive, transmit, acknowledge; and the path's TCP_INFO.

Linux stamps every segment when it comes in from the device (``RX_SOFTWARE``), when it is handed
to the device (``TX_SOFTWARE``) and when the peer has acknowledged it (``TX_ACK``): see
Documentation/networking/timestamping.rst of the kernel. Python's socket module lacks the names.
The stamps are CLOCK_REALTIME nanoseconds, taken before this process is even scheduled, which is
why they stay right when the client is late.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import NamedTuple

SO_TIMESTAMPING = 37

_TX_SOFTWARE = 1 << 1
_RX_SOFTWARE = 1 << 3
_SOFTWARE = 1 << 4
_OPT_ID = 1 << 7  # number the transmit stamps by byte offset
_TX_ACK = 1 << 9
_OPT_TSONLY = 1 << 11  # transmit stamps come without a copy of the packet
FLAGS = _TX_SOFTWARE | _RX_SOFTWARE | _SOFTWARE | _OPT_ID | _TX_ACK | _OPT_TSONLY

#: Room for one SCM_TIMESTAMPING (three timespecs) and, on the error queue, one extended error.
RX_ANCILLARY = 64
TX_ANCILLARY = 256

#: struct scm_timestamping: the software stamp is the first of three timespecs.
unpack_timespec = struct.Struct("@qq").unpack_from
_unpack_error = struct.Struct("@IBBBBII").unpack_from  # struct sock_extended_err
_ORIGIN_TIMESTAMPING = 4
_IP_RECVERR = (0, 11)
_IPV6_RECVERR = (41, 25)

SENT = 0  # SCM_TSTAMP_SND
ACKED = 2  # SCM_TSTAMP_ACK


class Sent(NamedTuple):
    """One transmit stamp: what happened (SENT, ACKED), to the byte before offset ``key + 1``."""

    what: int
    key: int
    real_ns: int


def enable(sock: socket.socket) -> bool:
    """Ask for stamps on a connected socket; False where the system has none."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, FLAGS)
    except OSError:
        return False
    return True


def received(ancillary: list[tuple[int, int, bytes]]) -> int:
    """CLOCK_REALTIME ns of the last segment that a read touched; 0 if the kernel gave none."""
    for level, kind, data in ancillary:
        if kind == SO_TIMESTAMPING and level == socket.SOL_SOCKET and len(data) >= 16:
            second, nano = unpack_timespec(data)
            return int(second * 1_000_000_000 + nano)
    return 0


def drain_sent(sock: socket.socket) -> list[Sent]:
    """All transmit stamps that wait on the error queue of a non-blocking socket."""
    found: list[Sent] = []
    for _ in range(64):  # bounded: one request causes a handful
        try:
            _, ancillary, _, _ = sock.recvmsg(0, TX_ANCILLARY, socket.MSG_ERRQUEUE)
        except OSError:
            break
        real, what, key = 0, -1, 0
        for level, kind, data in ancillary:
            if kind == SO_TIMESTAMPING and level == socket.SOL_SOCKET:
                second, nano = unpack_timespec(data)
                real = second * 1_000_000_000 + nano
            elif (level, kind) in (_IP_RECVERR, _IPV6_RECVERR):
                _, origin, _, _, _, info, number = _unpack_error(data)
                if origin == _ORIGIN_TIMESTAMPING:
                    what, key = info, number
        if real and what >= 0:
            found.append(Sent(what, key, real))
    return found


class Path(NamedTuple):
    """What the kernel knows of a connection's path. ``min_rtt_ns`` is 0 where unknown, and so is
    ``segments``: those with data that came in so far, before the kernel joined any."""

    min_rtt_ns: int
    retransmits: int
    out_of_order: int
    segments: int = 0


_NO_PATH = Path(0, 0, 0)
# struct tcp_info, linux/tcp.h: total_retrans at 100, min_rtt 148, data_segs_in 152,
# rcv_ooopack 224
_TCP_INFO_SIZE = 232


def path(sock: socket.socket) -> Path:
    """TCP_INFO of a connected socket, times in ns; zeros where the system has none."""
    if not sys.platform.startswith("linux"):
        return _NO_PATH
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return _NO_PATH
    if len(info) < 152:
        return _NO_PATH
    retransmits = struct.unpack_from("=I", info, 100)[0]
    min_rtt = struct.unpack_from("=I", info, 148)[0]
    disorder = struct.unpack_from("=I", info, 224)[0] if len(info) >= 228 else 0
    segments = struct.unpack_from("=I", info, 152)[0] if len(info) >= 156 else 0
    known = min_rtt != 0xFFFFFFFF
    return Path(min_rtt * 1000 if known else 0, retransmits, disorder, segments)


def why_unavailable() -> str | None:
    """None if a loopback pair shows that all three stamps arrive, else the reason in words."""
    if not sys.platform.startswith("linux"):
        return f"{sys.platform} has no SO_TIMESTAMPING"
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname(), timeout=1)
            far, _ = listener.accept()
    except OSError as fault:
        return f"no loopback connection to prove them on ({fault})"
    with near, far:
        if not enable(near):
            return "the kernel refused SO_TIMESTAMPING"
        near.settimeout(1)
        try:
            near.send(b"x")
            far.recv(1)
            received_ns = _await_received(near, far)
        except OSError as fault:
            return f"the loopback proof failed ({fault})"
        near.setblocking(False)
        kinds = {stamp.what for stamp in _await_sent(near)}
        if not received_ns:
            return "receive stamps do not arrive"
        if not {SENT, ACKED} <= kinds:
            return "transmit and acknowledgement stamps do not arrive"
        return None


def _await_received(near: socket.socket, far: socket.socket) -> int:
    """The stamp of a byte received; the kernel begins to stamp some time after it was asked."""
    received_ns = 0
    for _ in range(100):
        far.send(b"y")
        received_ns = received(near.recvmsg(1, RX_ANCILLARY)[1])
        if received_ns:
            break
        time.sleep(0.001)
    return received_ns


def _await_sent(sock: socket.socket) -> list[Sent]:
    found: list[Sent] = []
    for _ in range(20):
        found += drain_sent(sock)
        if len(found) >= 2:
            break
        time.sleep(0.001)
    return found
