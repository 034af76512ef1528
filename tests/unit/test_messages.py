"""Every message between processes comes back equal, whatever its fields hold."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import socket
import threading
import time
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import latdiag
from latdiag.measurement.stages import PathStage, Shot, Stage
from latdiag.model.errors import LatdiagError, LocalFault, RunFault
from latdiag.runtime import channel
from latdiag.runtime.channel import MESSAGES, Channel, Fault, Frames, encode, packed, unpacked
from tests.profiles import examples

for _module in pkgutil.walk_packages(latdiag.__path__, "latdiag."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers() | st.integers(-(2**63), 2**63 - 1).map(lambda n: n // 1),
    float: st.floats(allow_nan=False),
    str: st.text(max_size=20),
    bytes: st.binary(max_size=20),
    bool: st.booleans(),
    type(None): st.none(),
    Any: json_values,
}


@cache
def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field that is declared so."""
    if hint in SCALARS:
        return SCALARS[hint]
    if hint in MESSAGES.values():
        hints = hints_of(hint)
        return st.builds(hint, **{name: values(hints[name]) for name in field_names(hint)})
    if is_typeddict(hint):
        named = hints_of(hint)
        return st.fixed_dictionaries({name: values(named[name]) for name in named})
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return st.one_of(*map(values, inner))
    if kind is tuple and inner[-1] is Ellipsis:
        return st.lists(values(inner[0]), max_size=4).map(tuple)
    if kind is tuple:
        return st.tuples(*map(values, inner))
    if kind is list:
        return st.lists(values(inner[0]), max_size=4)
    if kind is frozenset:
        return st.frozensets(values(inner[0]), max_size=4)
    if kind is dict:
        return st.dictionaries(*map(values, inner), max_size=4)
    raise AssertionError(f"no values are known for {hint}")


@cache
def hints_of(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def field_names(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind)) if is_dataclass(kind) else kind._fields


def through(content: Any) -> Any:
    (found,) = Frames().feed(encode(packed(content)))
    return unpacked(found)


# ---------------------------------------------------------------------- all of them
def test_every_room_that_has_processes_declares_its_messages() -> None:
    rooms = {kind.__module__.split(".")[1] for kind in MESSAGES.values()}
    assert rooms >= {"ingest", "load", "measurement", "probe", "runtime", "sim"}
    assert {"Stage", "PathStage", "Limits", "Step", "Fault", "Go", "Scraped"} <= MESSAGES.keys()


@pytest.mark.parametrize("name", sorted(MESSAGES))
@given(data=st.data())
def test_a_message_comes_back_equal(name: str, data: st.DataObject) -> None:
    sent = data.draw(values(MESSAGES[name]))
    found = through(sent)
    assert found == sent and type(found) is type(sent)
    for field in field_names(type(sent)):
        assert getattr(found, field) == getattr(sent, field), field
    assert repr(found) == repr(sent)


@pytest.mark.parametrize("name", sorted(MESSAGES))
@examples(25)
@given(data=st.data())
def test_no_field_of_it_is_dropped(name: str, data: st.DataObject) -> None:
    """Each field alone is told apart from another value of it."""
    kind = MESSAGES[name]
    one = data.draw(values(kind))
    hints = hints_of(kind)
    for field in field_names(kind):
        before = getattr(one, field)
        other = data.draw(values(hints[field]).filter(lambda v, before=before: v != before))
        changed = (
            replace(one, **{field: other}) if is_dataclass(one) else one._replace(**{field: other})
        )
        assert getattr(through(changed), field) == other, field


def test_a_closed_loop_keeps_its_dither() -> None:
    stage = Stage("S3", (Shot(1, 2, -1),), 1, dither_ns=300_000_000)
    assert through(stage).dither_ns == 300_000_000


# ---------------------------------------------------------------------- what passes, and what not
class Word(StrEnum):
    ONE = "one"


def test_numbers_of_numpy_pass_as_plain_ones() -> None:
    shot = Shot(np.int64(5), np.int32(6), np.uint8(7))  # type: ignore[arg-type]
    for stage in (Stage("S3", (shot,), np.int64(2)), PathStage(3, (np.int64(4),), 1)):  # type: ignore[arg-type]
        found = through(stage)
        assert found == stage and "np." not in repr(found) and "int64" not in repr(found)
    numbers = {"a": np.float64(0.5), "b": np.float32(0.25), "c": np.bool_(True), "d": Word.ONE}
    found = through(numbers)
    assert found == {"a": 0.5, "b": 0.25, "c": True, "d": "one"}
    assert [type(value) for value in found.values()] == [float, float, bool, str]


@pytest.mark.parametrize("odd", [object(), {1, 2}, bytearray(b"x"), np.arange(3), Frames()])
def test_what_is_not_declared_is_refused_by_its_sender(odd: Any) -> None:
    with pytest.raises(TypeError, match="is no declared message"):
        packed(("a", [odd]))


def test_a_type_that_nobody_declared_is_refused() -> None:
    class Pair(NamedTuple):
        a: int

    @dataclass(frozen=True)
    class Other:
        a: int

    for one in (Pair(1), Other(1)):
        with pytest.raises(TypeError, match="is no declared message"):
            packed([one])


def test_two_messages_of_one_name_are_a_mistake() -> None:
    class Stage(NamedTuple):
        a: int

    with pytest.raises(AssertionError, match="two messages are named Stage"):
        channel.message(Stage)


# ---------------------------------------------------------------------- faults
@pytest.mark.parametrize("kind", LatdiagError.__subclasses__())
def test_a_fault_keeps_its_class_and_words(kind: type[LatdiagError]) -> None:
    found = through(Fault.of(kind("the disk is full", "free some"))).error("a.run")
    assert type(found) is kind
    assert (found.text, found.remedy, found.run) == ("the disk is full", "free some", "a.run")


def test_any_other_exception_is_a_bug_of_ours_with_its_traceback() -> None:
    try:
        raise ZeroDivisionError("float division by zero")
    except ZeroDivisionError as raised:
        found = through(Fault.of(raised, "the design of the probe failed")).error()
    assert type(found) is LatdiagError and found.exit_code == 1
    assert found.text == (
        "a bug in latdiag: the design of the probe failed:"
        " ZeroDivisionError: float division by zero"
    )
    assert "test_messages.py" in found.__notes__[0]


# ---------------------------------------------------------------------- a channel
def test_messages_pass_both_ways_until_an_end_is_closed() -> None:
    one, other = Channel.pair()
    assert one.send(Shot(1, 2, 3)) and other.send(Fault("local", "a", "b"))
    assert other.receive() == Shot(1, 2, 3) and one.receive(0) == Fault("local", "a", "b")
    assert one.receive(0.01) is None and not one.ended
    assert one.send(Shot(4, 5, 6))
    one.close()
    assert other.receive(1) == Shot(4, 5, 6) and not other.ended
    assert other.receive() is None and other.ended
    assert not other.send(Shot(1, 1, 1)), "nobody is there to take it"
    other.close()


def test_an_end_may_be_done_with_sending_and_still_be_told() -> None:
    one, other = Channel.pair()
    one.finish()
    assert other.receive() is None and other.ended
    assert other.send(Shot(7, 8, 9)) and one.receive() == Shot(7, 8, 9)
    one.close()
    other.close()


def test_what_has_arrived_is_taken_without_a_wait() -> None:
    one, other = Channel.pair()
    assert list(other.arrived()) == []
    for n in range(5):
        one.send(Shot(n, n, n))
    assert [shot.isl for shot in other.arrived()] == [0, 1, 2, 3, 4]
    other.send(Shot(1, 1, 1))
    one.close()  # with a message of the other's unread: a reset, which is an end like any
    assert list(other.arrived()) == [] and other.ended
    other.close()


def test_a_large_message_passes_whole_and_in_pieces() -> None:
    one, other = Channel.pair()
    stage = Stage("S6", (Shot(10**7, 10**7, 10**15),) * 50_000)
    sending = threading.Thread(target=one.send, args=(stage,))
    sending.start()
    assert other.receive(20) == stage
    sending.join()
    one.close()
    other.close()


def test_a_message_over_the_bound_is_neither_sent_nor_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw, end = socket.socketpair()
    raw.sendall((channel.LARGEST_MESSAGE + 1).to_bytes(4, "little"))
    other = Channel(end)
    with pytest.raises(LatdiagError, match="16,777,217 bytes at once"):
        other.receive(1)
    monkeypatch.setattr(channel, "LARGEST_MESSAGE", 100)
    with pytest.raises(LatdiagError, match="bytes at once"):
        other.send("x" * 100)
    raw.close()
    other.close()


@pytest.mark.parametrize("cut", [1, 3, 4, 9])
def test_what_a_killed_sender_left_half_written_is_no_message(cut: int) -> None:
    raw, end = socket.socketpair()
    raw.sendall(encode(packed(Shot(1, 2, 3))) + encode(packed(Shot(4, 5, 6)))[:cut])
    raw.close()
    other = Channel(end)
    assert other.receive(1) == Shot(1, 2, 3)
    assert other.receive(1) is None and other.ended
    other.close()


def test_an_event_loop_takes_and_posts_without_waiting_for_the_other_end() -> None:
    """What is posted to an end that nobody reads waits here, and no call waits for it."""
    one, other = Channel.pair()
    much = "x" * 10_000

    async def life() -> list[int]:
        begun = time.monotonic()
        for n in range(200):
            other.post(Shot(n, 0, 0))
            other.post(much)
        assert time.monotonic() - begun < 5
        seen = []
        async for order in other.messages():
            seen.append(order.isl)
        other.flush()
        return seen

    def parent() -> None:
        for n in range(3):
            one.send(Shot(n, 0, 0))
        for n in range(200):
            assert one.receive(5) == Shot(n, 0, 0) and one.receive(5) == much
        one.finish()
        assert one.receive(5) is None and one.ended

    listening = threading.Thread(target=parent)
    listening.start()
    assert asyncio.run(life()) == [0, 1, 2]
    other.close()
    listening.join()
    one.close()


def test_a_channel_leaves_no_descriptor() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for end in Channel.pair():
        end.close()
        assert end.fileno() == -1
        assert end.receive(0) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(LocalFault):
        raise Fault.of(LocalFault("a", "b")).error()
    assert isinstance(Fault.of(RunFault("a", "b")).error(), RunFault)
