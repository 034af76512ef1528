"""When TCP segments left and reached a machine, seen beside the client's own sockets.

``python -m client.tap --interface tun-a --port P --out FILE`` records until SIGTERM: an AF_PACKET
socket hears what passes the interface, both ways, with the kernel's CLOCK_REALTIME stamp of each
packet. Needs root. Offsets are found by sequence number, so TLS hides nothing.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import struct
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from . import kernel

ETH_P_ALL = 3
OUTGOING = 4
SOL_PACKET, PACKET_STATISTICS = 263, 6
#: Headers are enough: IPv4 and TCP with all options.
SNAP = 120

COLUMNS = ("stamp", "outgoing", "port", "seq", "length", "flags")
FIN, SYN = 0x01, 0x02


def parse(packet: bytes | bytearray, port: int) -> tuple[int, int, int, int] | None:
    """(other port, sequence number, payload length, flags) of an IPv4 TCP packet of ``port``."""
    if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
        return None
    ip_header = (packet[0] & 15) * 4
    total = int.from_bytes(packet[2:4], "big")
    source, target, seq = struct.unpack_from(">HHI", packet, ip_header)
    if port not in (source, target):
        return None
    tcp_header = (packet[ip_header + 12] >> 4) * 4
    other = target if source == port else source
    return other, seq, total - ip_header - tcp_header, packet[ip_header + 13]


def record(interface: str, port: int, out: Path) -> None:
    """Fills the columns until SIGTERM, then writes them with the kernel's count of drops."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    kernel.stamp_arrivals(sock)
    sock.bind((interface, ETH_P_ALL))
    sock.settimeout(0.1)
    columns: dict[str, array[int]] = {name: array("q") for name in COLUMNS}
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    kernel.no_garbage_pauses()
    print(json.dumps({"tap": interface}), flush=True)
    buffer = bytearray(SNAP)
    while not stopping:
        try:
            count, ancillary, _, address = sock.recvmsg_into((buffer,), kernel.RX_ANCILLARY)
        except TimeoutError:
            continue
        parsed = parse(buffer[:count], port)
        if parsed is None:
            continue
        row = (kernel.arrival_stamp(ancillary), int(address[2] == OUTGOING), *parsed)
        for name, value in zip(COLUMNS, row, strict=True):
            columns[name].append(value)
    _, drops = struct.unpack("II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    with out.open("wb") as file:
        np.savez(file, drops=np.array(drops), **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interface", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    record(args.interface, args.port, args.out)


if __name__ == "__main__":
    main()
