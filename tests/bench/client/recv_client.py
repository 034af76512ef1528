"""The least client there can be: connect, send, ``recvmsg`` in an epoll loop, parse afterwards.

It scores the server before anyone blames a client. Closed loop, one connection a stream, kept
alive; kernel and user stamps. ``python -m client.recv_client --port P --streams 100 --requests
500 --tokens 50`` prints the scores of both stamps as JSON once the server's record is given.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import CLOCK_PROCESS_CPUTIME_ID as CPU
from time import clock_gettime_ns, monotonic_ns, time_ns

import numpy as np

from . import kernel
from .score import Truth, score
from .seen import Collector, Seen, number_of

_TOKEN = re.compile(rb'"id":"([a-z]*cmpl-\d+)"[^\n]*?"content":" t(\d+)')
_END = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Read:
    user: int
    kernel: int
    data: bytes


@dataclass(slots=True)
class Reply:
    """All reads of one reply; ``sent`` was taken just before send()."""

    sent: int
    reads: list[Read] = field(default_factory=list)


def drive(port: int, streams: int, requests: int, tokens: int) -> list[Reply]:
    """Runs the load and returns what was read. The last bytes of a reply end its request."""
    body = json.dumps(
        {
            "model": "mock",
            "stream": True,
            "max_tokens": tokens,
            "stream_options": {"include_usage": 1},
        }
    ).encode()
    message = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body
    epoll, open_replies, socks = select.epoll(), {}, {}
    finished: list[Reply] = []
    started = 0
    for _ in range(min(streams, requests)):
        sock = socket.create_connection(("127.0.0.1", port))
        kernel.stamp_arrivals(sock)
        sock.setblocking(False)
        epoll.register(sock.fileno(), select.EPOLLIN)
        socks[sock.fileno()] = sock
    kernel.no_garbage_pauses()
    for descriptor, sock in socks.items():
        open_replies[descriptor] = Reply(monotonic_ns())
        sock.send(message)
        started += 1
    buffer = bytearray(65536)
    while len(finished) < requests:
        for descriptor, _ in epoll.poll(5):
            sock = socks[descriptor]
            count, ancillary, _, _ = sock.recvmsg_into((buffer,), kernel.RX_ANCILLARY)
            if not count:
                raise ConnectionError("the server closed a connection")
            data = bytes(buffer[:count])
            reply = open_replies[descriptor]
            reply.reads.append(Read(monotonic_ns(), kernel.arrival_stamp(ancillary), data))
            if data.endswith(_END):
                finished.append(reply)
                if started < requests:
                    started += 1
                    open_replies[descriptor] = Reply(monotonic_ns())
                    sock.send(message)
    return finished


def stamped(replies: list[Reply], by_kernel: bool) -> Seen:
    """Token arrivals of each reply; of several in one read all but the last are censored."""
    offset = monotonic_ns() - time_ns()
    collector = Collector()
    for reply in replies:
        stamps, censored, ids = [], [], ""
        for read in reply.reads:
            found = _TOKEN.findall(read.data)
            stamps += [read.kernel + offset if by_kernel else read.user] * len(found)
            censored += [True] * (len(found) - 1) + [False] * min(1, len(found))
            ids = found[-1][0].decode() if found else ids
        end = stamps[-1] if stamps else reply.sent
        collector.add(
            number_of(ids),
            np.array(stamps, np.int64),
            np.array(censored, np.bool_),
            user=reply.sent,
            wire=reply.sent,
            done=end,
        )
    return collector.seen()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--truth", type=Path, help="the server's dump, made by GET /_dump")
    args = parser.parse_args()
    before = clock_gettime_ns(CPU)
    replies = drive(args.port, args.streams, args.requests, args.tokens)
    cpu = clock_gettime_ns(CPU) - before
    with socket.create_connection(("127.0.0.1", args.port)) as sock:
        sock.sendall(b"GET /_dump HTTP/1.1\r\nhost: x\r\n\r\n")
        sock.recv(65536)
    truth = Truth(args.truth)
    said = {name: asdict(score(truth, stamped(replies, k))) for name, k in _STAMPS}
    chunks = sum(len(r.reads) for r in replies)
    print(json.dumps({**said, "cpu_us_per_read": cpu / 1000 / chunks, "server": truth.meta}))


_STAMPS = (("kernel", True), ("user", False))


if __name__ == "__main__":
    main()
