"""Kernel stamps and scheduling of this process: what Python's modules have no names for."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import resource
import socket
import struct
from pathlib import Path

# Linux, 64 bit: asm-generic/socket.h and linux/net_tstamp.h.
SO_TIMESTAMPNS = 35
SO_TIMESTAMPING = 37
TX_SOFTWARE, SOFTWARE, OPT_ID, OPT_TSONLY = 1 << 1, 1 << 4, 1 << 7, 1 << 11
SO_EE_ORIGIN_TIMESTAMPING = 4
PR_SET_TIMERSLACK = 29

#: Room for one timespec, or for three and a sock_extended_err.
RX_ANCILLARY = socket.CMSG_SPACE(16) + socket.CMSG_SPACE(48)
TX_ANCILLARY = socket.CMSG_SPACE(48) + socket.CMSG_SPACE(64)

_TIMESPEC = struct.Struct("qq")
#: ee_errno, origin, type, code, pad, ee_info, ee_data of sock_extended_err.
_EXTENDED_ERR = struct.Struct("IBBBBII")

Ancillary = list[tuple[int, int, bytes]]


def stamp_arrivals(sock: socket.socket) -> None:
    """Ask for CLOCK_REALTIME receive stamps; accepted sockets inherit this from the listener."""
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def stamp_departures(sock: socket.socket) -> None:
    """Ask for transmit stamps on the error queue, keyed by the offset of a send's last byte."""
    flags = TX_SOFTWARE | SOFTWARE | OPT_ID | OPT_TSONLY
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, flags)


def arrival_stamp(ancillary: Ancillary) -> int:
    """CLOCK_REALTIME nanoseconds of a received message, 0 without a stamp."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return 0


def departure_stamps(sock: socket.socket) -> list[tuple[int, int]]:
    """All (byte offset mod 2**32, CLOCK_REALTIME nanoseconds) waiting on the error queue."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            _, ancillary, _, _ = sock.recvmsg(0, TX_ANCILLARY, socket.MSG_ERRQUEUE)
        except (BlockingIOError, OSError):
            return found
        stamp, offset = 0, -1
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPING:
                seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                stamp = int(seconds) * 1_000_000_000 + int(nanoseconds)
            elif len(data) >= _EXTENDED_ERR.size:
                fields = _EXTENDED_ERR.unpack_from(data)
                if fields[1] == SO_EE_ORIGIN_TIMESTAMPING:
                    offset = fields[6]
        if not ancillary:
            return found
        if stamp and offset >= 0:
            found.append((offset, stamp))


def fine_timers() -> None:
    """Wake when due, not up to 50 us later (ordinary scheduling has that slack by default)."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


def real_time_priority(cpu: int) -> str:
    """SCHED_FIFO on one CPU; returns the conditions in words, whether granted or not."""
    try:
        os.sched_setaffinity(0, {cpu})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except OSError as error:
        return f"ordinary priority ({error.strerror})"
    return f"SCHED_FIFO on CPU {cpu}"


def room_for_sockets(wanted: int = 16_384) -> None:
    """Grow the table of descriptors now. It grows at 64, 256, 1024, ... descriptors, and in a
    process with threads (numpy starts some) the accept() that meets such a limit waits for a
    grace period of RCU: 10-18 ms, measured, in which nothing is sent.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
    os.close(fcntl.fcntl(1, fcntl.F_DUPFD, limit - 1))


def stolen_ms() -> float:
    """CPU time that the hypervisor kept from this machine since boot, all CPUs; 0 if untold."""
    try:
        fields = Path("/proc/stat").read_text().split(maxsplit=10)
    except OSError:
        return 0.0
    return int(fields[8]) * 1000.0 / os.sysconf("SC_CLK_TCK")


def no_garbage_pauses() -> None:
    gc.collect()
    gc.freeze()
    gc.disable()
