"""Who is looked at first, who gives way, and what frames cost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from latdiag.ingest.otlp import slots as module
from latdiag.ingest.otlp.frames import Toll
from latdiag.ingest.otlp.slots import Slots, Standing
from latdiag.ingest.otlp.turns import Inlet, Turns


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class One:
    """A connection that remembers whether it had to go."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.standing = Standing()
        self.gone = False

    def give_way(self) -> None:
        self.gone = True


def _filled(count: int) -> tuple[Slots, list[One]]:
    slots, ones = Slots(count), [One(str(n)) for n in range(count)]
    for one in ones:
        slots.add(one)
    return slots, ones


def _gone(slots: Slots, ones: list[One]) -> list[str]:
    slots.add(One("new"))
    return [one.name for one in ones if one.gone]


def test_of_the_young_the_oldest_goes_at_once(clock: Clock) -> None:
    slots = Slots(4)
    ones = []
    for n in range(4):
        clock.now_s += 0.01
        ones.append(One(str(n)))
        slots.add(ones[-1])
    assert _gone(slots, ones) == ["0"] and len(slots) == 4


def test_who_asked_for_something_outlasts_who_only_came(clock: Clock) -> None:
    slots, ones = _filled(4)
    ones[0].standing.asked = True
    for n in range(20):
        clock.now_s += 0.001
        slots.add(One(f"newcomer {n}"))
    assert [one.name for one in ones if one.gone] == ["1", "2", "3"]


def test_bytes_count_up_to_the_floor_and_no_other_byte(clock: Clock) -> None:
    slots, ones = _filled(4)
    clock.now_s += 5
    for one, share in zip(ones, (1.0, 0.01, 1.0, 2.0), strict=True):
        one.standing.body(int(5 * share * module.FLOOR_BYTES_PER_S))
    assert _gone(slots, ones) == ["1"]
    # Bytes that came too fast are worth no more than the time that is over.
    clock.now_s += 5
    ones[0].standing.body(module.FLOOR_BYTES_PER_S)
    assert ones[3].standing.rank(clock.now_s) < ones[0].standing.rank(clock.now_s)


def test_who_gave_is_not_driven_out_by_who_only_comes(clock: Clock) -> None:
    slots, ones = _filled(8)
    ones[0].standing.whole()
    clock.now_s += 30
    for n in range(40):
        clock.now_s += 0.001
        slots.add(One(f"newcomer {n}"))
    assert not ones[0].gone and all(one.gone for one in ones[1:])


def test_where_all_gave_the_newcomer_is_not_the_first_to_go(clock: Clock) -> None:
    slots, ones = _filled(8)
    for one in ones:
        clock.now_s += 1
        one.standing.whole()
    newcomer = One("newcomer")
    slots.add(newcomer)
    assert ones[0].gone and not newcomer.gone
    assert _gone(slots, ones) == ["0", "1"] and not newcomer.gone


def test_who_does_not_read_goes_before_all_others(clock: Clock) -> None:
    slots, ones = _filled(4)
    for one in ones:
        one.standing.whole()
    ones[2].standing.spent = True
    assert _gone(slots, ones) == ["2"]


def test_frames_for_their_own_sake_run_out_and_others_do_not(clock: Clock) -> None:
    toll = Toll()
    assert toll.frames(Toll.MOST, 0)
    assert not toll.frames(1, 0)
    working = Toll()
    for _ in range(10 * Toll.MOST):  # a head, a body, a window, a ping: and an answer
        assert working.frames(4, 200)
        working.answered()
    filling = Toll()
    assert all(filling.frames(4, 65_536) for _ in range(10 * Toll.MOST))
    waiting = Toll()
    for _ in range(10 * Toll.MOST):  # a ping each second
        clock.now_s += 1
        assert waiting.frames(2, 0)
    by_bytes = Toll()  # bodies byte by byte
    assert not all(by_bytes.frames(1000, 1000) for _ in range(10))


class Transport:
    def __init__(self) -> None:
        self.reads = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def _inlet(turns: Turns, look_at: Any, data: bytes) -> tuple[Inlet, Transport]:
    inlet, transport = Inlet(turns, look_at, 1000), Transport()
    inlet.open(transport)
    turns.buffer[: len(data)] = data
    inlet.received(len(data))
    return inlet, transport


def test_what_costs_much_is_looked_at_in_turns_and_comes_after_the_rest() -> None:
    order: list[str] = []

    def costly(_: bytes) -> None:
        order.append("costly")
        until = time.perf_counter() + 0.003
        while time.perf_counter() < until:
            pass

    async def run() -> None:
        turns = Turns()
        several = [_inlet(turns, costly, b"x" * 20_000) for _ in range(4)]
        assert not any(transport.reads for _, transport in several), "not read on meanwhile"
        for _ in range(20):
            await asyncio.sleep(0)
        before = len(order)
        small: list[bytes] = []
        _, transport = _inlet(turns, lambda data: (small.append(data), order.append("s")), b"abc")
        while not small:
            await asyncio.sleep(0)
        # Each of the others has used its share: one turn at most is before it.
        assert small == [b"abc"] and order[before:].count("costly") <= 2
        assert transport.reads
        while not all(transport.reads for _, transport in several):
            await asyncio.sleep(0)
        assert order.count("costly") == 80

    asyncio.run(run())


def test_who_is_new_waits_for_none_of_many_who_had_a_turn() -> None:
    """64 of which each took little: one who comes back three times meets none of them again."""
    turned: list[int] = []

    async def run() -> None:
        turns = Turns()

        def little(_: bytes) -> None:
            turned.append(len(turned))
            until = time.perf_counter() + 0.0006
            while time.perf_counter() < until:
                pass

        several = [_inlet(turns, little, b"x" * 20_000) for _ in range(64)]
        while len(turned) < 64:
            await asyncio.sleep(0)
        seen: list[bytes] = []
        newcomer, _ = _inlet(turns, seen.append, b"a")
        for piece in (b"b", b"c"):
            while len(seen) < ord(piece) - ord("a"):
                await asyncio.sleep(0)
            turns.buffer[:1] = piece
            newcomer.received(1)
        while len(seen) < 3:
            await asyncio.sleep(0)
        # A round of a millisecond has begun each time: two turns of others are in it.
        assert len(turned) <= 64 + 3 * 3
        while not all(transport.reads for _, transport in several):
            await asyncio.sleep(0)

    asyncio.run(run())


def test_what_is_held_waits_and_comes_whole_and_in_order() -> None:
    seen: list[bytes] = []

    async def run() -> None:
        turns = Turns()
        holder: list[Inlet] = []

        def look_at(data: bytes) -> None:
            seen.append(data)
            if len(seen) == 2 and holder:
                holder.pop().hold("ahead")

        inlet, transport = _inlet(turns, look_at, b"")
        holder.append(inlet)
        data = bytes(range(250)) * 20
        turns.buffer[: len(data)] = data
        inlet.received(len(data))
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(seen) == 2 and not transport.reads
        inlet.put_back(seen.pop())
        inlet.free("another reason")
        assert len(seen) == 1
        inlet.free("ahead")
        for _ in range(5):
            await asyncio.sleep(0)
        assert b"".join(seen) == data and transport.reads
        inlet.hold("unread")
        assert not transport.reads
        inlet.end()
        assert transport.reads, "what still comes is thrown away"

    asyncio.run(run())
