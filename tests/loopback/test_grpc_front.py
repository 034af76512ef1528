"""Calls over gRPC come to the server one by one of each connection."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from latdiag.ingest.otlp import grpc_front
from latdiag.ingest.otlp.grpc_door import GrpcDoor
from latdiag.ingest.otlp.grpc_front import GrpcFront
from latdiag.ingest.otlp.intake import Intake
from latdiag.ingest.otlp.keep import Keep
from tests.loopback.hostile_bytes import PREFACE, frame, headers

CONNECTIONS, CALLS = 3, 8
_HANGS_S = 60.0


def test_of_each_connection_one_call_waits_for_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever comes anew waits behind one call of each other, not behind all of them."""
    begun: Counter[str] = Counter()
    accepted, free = GrpcFront.accepted, False

    def note(front: GrpcFront, peer: str) -> None:
        begun[peer] += 1
        if free:
            accepted(front, peer)

    monkeypatch.setattr(GrpcFront, "accepted", note)
    monkeypatch.setattr(grpc_front, "_ACCEPTED_S", _HANGS_S)

    async def until(count: int) -> None:
        async with asyncio.timeout(_HANGS_S):
            while sum(begun.values()) < count:
                await asyncio.sleep(0.01)

    async def run() -> None:
        nonlocal free
        door = GrpcDoor(Intake(Keep(frozenset()), None))
        host, _, port = (await door.open("127.0.0.1:0")).rpartition(":")
        peers = [await asyncio.open_connection(host, int(port)) for _ in range(CONNECTIONS)]
        # The heads of all calls at once, and nothing of what they would send.
        heads = b"".join(headers(2 * n + 1) for n in range(CALLS))
        for _, writer in peers:
            writer.write(PREFACE + frame(4, 1, 0, b"") + heads)
        await until(CONNECTIONS)
        await asyncio.sleep(0.2)
        assert sorted(begun.values()) == [1] * CONNECTIONS
        free = True
        assert door._front is not None
        for peer in list(begun):
            accepted(door._front, peer)
        await until(CONNECTIONS * CALLS)
        assert sorted(begun.values()) == [CALLS] * CONNECTIONS
        for _, writer in peers:
            writer.close()
        await door.close(0.1)

    asyncio.run(run())


def test_a_call_that_its_sender_takes_back_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server need not begin it."""
    begun: list[str] = []
    accepted = GrpcFront.accepted

    def note(front: GrpcFront, peer: str) -> None:
        begun.append(peer)
        accepted(front, peer)

    monkeypatch.setattr(GrpcFront, "accepted", note)
    monkeypatch.setattr(grpc_front, "_ACCEPTED_S", 10 * _HANGS_S)

    async def run() -> None:
        door = GrpcDoor(Intake(Keep(frozenset()), None))
        host, _, port = (await door.open("127.0.0.1:0")).rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        back = b"".join(headers(n) + frame(3, 0, n, b"\0\0\0\x08") for n in (1, 3, 5))
        writer.write(PREFACE + frame(4, 1, 0, b"") + back + headers(7) + headers(9))
        async with asyncio.timeout(_HANGS_S):
            while len(begun) < 2:
                await asyncio.sleep(0.01)
        writer.close()
        await door.close(0.1)

    asyncio.run(run())
    assert len(begun) >= 2
