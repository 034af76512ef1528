"""A workload through a gateway, and its twin at the server behind: whose each nanosecond is."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.accounts import Account, Rank, together
from latdiag.attribution.behind import explain, is_behind
from latdiag.attribution.parts import Parts, Source
from latdiag.diagnosis.breakdown import breakdown
from latdiag.measurement.frame import Frame

MS = 1_000_000
#: Of the server's parts, of each twin: until the first token, after it.
SERVER = {"frontend": (2, 0), "queue": (40, 0), "prefill": (20, 0), "decode": (0, 100)}


def frame_of(rows: list[dict[str, Any]]) -> Frame:
    """A frame of rows in ms; what is not given is as of a sound request of one segment."""
    usual = {
        "scenario": "segment-1", "stage": "S10", "clock_id": "c", "outcome": "ok", "client": 1,
        "network": 1, "network_lo": 1, "network_hi": 1, "kernel": True, "ok": True, "begun": True,
        "ended": True, "sound": True, "outputs": 10,
    }  # fmt: skip
    times = {"begin", "sent", "first", "last", "done", "client", *(
        "network", "network_lo", "network_hi")}  # fmt: skip
    columns: dict[str, Any] = {}
    for field in fields(Frame):
        values = []
        for at, row in enumerate(rows):
            given = {**usual, "row": at, "request_id": f"r{at}", **row}
            given.setdefault("sent", given["begin"])
            given["workload"] = given["stage"] == "S10"
            value = given.get(field.name)
            values.append(round(value * MS) if field.name in times else value)
        text = "object" in str(field.type)
        kind = object if text else bool if "bool" in str(field.type) else np.int64
        columns[field.name] = np.array([0 if v is None and not text else v for v in values], kind)
    return Frame(**columns)


def pair(at: float, front: float, tokens_front: float = 0.0, segment: int = 1) -> list[Any]:
    """A request through a gateway that takes ``front`` ms until the first token and
    ``tokens_front`` after it, and its twin."""
    direct = 2 + sum(early for early, _ in SERVER.values())
    common = {"scenario": f"segment-{segment}"}

    def row(stage: str, begin: float, first: float, stream: float) -> dict[str, Any]:
        last = begin + first + stream
        times = {"begin": begin, "first": begin + first, "last": last, "done": last + 0.5}
        return {**common, "stage": stage, **times}

    return [
        row("S10", at, direct + front, 100 + tokens_front),
        row("S11", at + 1000, direct, 100),
    ]


def server_of(frame: Frame, merged: tuple[str, ...] = ()) -> Parts:
    """What laws make of the twins of ``frame``. ``merged``: components that are told together."""
    rows = np.flatnonzero(frame.stage == "S11")
    ones = np.ones(len(rows), dtype=np.int64)
    parts: dict[str, Any] = {"client": ones * MS, "network": ones * MS}
    early, late = dict(parts), {}
    sources = {name: Source("A", f"stamps of {name}") for name in parts}
    for name, (before, after) in SERVER.items():
        key = merged[0] if name in merged else name
        parts[key] = parts.get(key, 0) + ones * (before + after) * MS
        (late if after else early)[key] = (late if after else early).get(key, 0) + ones * (
            (before + after) * MS
        )
        sources[key] = Source("E" if name in merged else "C", "laws", merged * (name in merged))
    total = (frame.done - frame.begin)[rows]
    parts["unattributed"] = total - sum(parts.values())
    sources["unattributed"] = Source("A", "after the stream")
    return Parts(
        total, (frame.first - frame.begin)[rows], parts, frame.delayed[rows], 0, sources,
        within={"client_ttft": early, "decode": late}, row=frame.row[rows],
        alone=total - 30 * MS,
    )  # fmt: skip


def sums(parts: Parts) -> dict[str, float]:
    return {name: float(column.sum()) / MS / len(column) for name, column in parts.parts.items()}


def test_what_the_twin_does_not_take_is_in_front() -> None:
    frame = frame_of([row for at in range(40) for row in pair(at * 7, 250)])
    assert is_behind(frame)
    parts = explain(frame, server_of(frame))
    assert parts is not None
    assert sums(parts) == {
        "client": 1, "network": 1, "gateway": 250, "frontend": 2, "queue": 40, "prefill": 20,
        "decode": 100, "unattributed": 0.5,
    }  # fmt: skip
    assert parts.inside("client_ttft")["gateway"].tolist() == [250 * MS] * 40
    # Its twin takes 30 ms less alone, and the gateway as much.
    assert parts.alone is not None
    assert (parts.total - parts.alone).tolist() == [30 * MS] * 40
    assert not parts.inside("decode")["gateway"].any()


def test_work_on_tokens_lies_after_the_first() -> None:
    frame = frame_of([row for at in range(40) for row in pair(at * 7, 10, 300)])
    parts = explain(frame, server_of(frame))
    assert parts is not None and sums(parts)["gateway"] == 310
    assert parts.inside("decode")["gateway"].tolist() == [300 * MS] * 40


def test_a_class_that_the_gateway_was_merged_in_is_the_servers() -> None:
    frame = frame_of([row for at in range(40) for row in pair(at * 7, 250)])
    parts = explain(frame, server_of(frame, ("gateway", "frontend", "queue")))
    assert parts is not None
    assert sums(parts)["gateway"] == 250 and sums(parts)["frontend"] == 42
    assert parts.sources["frontend"].members == ("frontend", "queue")
    assert parts.sources["frontend"].grade == "E" and not parts.sources["gateway"].members


def test_twins_are_found_where_requests_failed() -> None:
    rows = [row for at in range(40) for row in pair(at * 7, at)]
    rows[10] |= {"ok": False, "outcome": "timeout"}
    frame = frame_of(rows)
    parts = explain(frame, server_of(frame))
    assert parts is not None
    assert [ns / MS for ns in parts.parts["gateway"].tolist()] == [
        at for at in range(40) if at != 5
    ]
    # A twin that failed leaves its request out, and no other changes partners.
    server = server_of(frame)
    assert server.row is not None
    fewer = explain(frame, replace(server, row=np.where(np.arange(40) == 7, -1, server.row)))
    assert fewer is not None and fewer.left_out == parts.left_out + 1
    assert [ns / MS for ns in fewer.parts["gateway"].tolist()] == [
        at for at in range(40) if at not in (5, 7)
    ]


def test_segments_are_paired_each_with_its_own() -> None:
    rows = [row for at in range(20) for row in pair(at * 7, 50)]
    rows += [row for at in range(20) for row in pair(5000 + at * 7, 90, segment=2)]
    parts = explain(frame_of(rows), server_of(frame_of(rows)))
    assert parts is not None and parts.segments == 2
    assert sorted(set((parts.parts["gateway"] // MS).tolist())) == [50, 90]


def test_a_gateway_that_lets_few_through_may_have_what_the_load_cost_behind() -> None:
    open_ = frame_of([row for at in range(40) for row in pair(at * 7, 250)])
    # One after the other through the gateway, and ten at once behind it.
    narrow = [row for at in range(40) for row in pair(at * 7, 250)]
    for at, row in enumerate(narrow[::2]):
        for name in ("first", "last", "done"):
            row[name] += 200 * at
    held = frame_of(narrow)
    free, tight = (explain(each, server_of(each)) for each in (open_, held))
    assert free is not None and tight is not None
    assert "gateway" not in free.slack or not free.slack["gateway"][1].any()
    assert tight.slack["gateway"][1].tolist() == [30 * MS] * 40
    assert "fewer streams" in tight.sources["gateway"].evidence


def test_the_slowest_are_not_taken_apart() -> None:
    frame = frame_of([row for at in range(900) for row in pair(at * 7, 250)])
    parts = explain(frame, server_of(frame))
    assert parts is not None
    mean, tail = (breakdown(parts, "client_e2e", p) for p in ("mean", "p95_tail"))
    assert mean is not None and mean.insufficient is None
    assert tail is not None and "no equals" in (tail.insufficient or "")
    # Not where other evidence goes first either.
    rest = {"unattributed": parts.total}
    first = replace(parts, parts=rest, within={"client_ttft": {}, "decode": {}}, no_tail=None)
    both = together([Account(Rank.BEHIND, parts), Account(Rank.CLIENT, first)])
    assert both.parts.no_tail == parts.no_tail


def test_no_twin_no_account() -> None:
    frame = frame_of([pair(at * 7, 250)[0] for at in range(40)])
    assert not is_behind(frame)
    assert explain(frame, server_of(frame_of(pair(0, 1)))) is None


@given(st.lists(st.tuples(st.floats(-300, 3000), st.floats(-90, 3000)), min_size=1, max_size=40),
       st.sampled_from([(), ("gateway", "queue"), ("queue", "prefill", "decode")]))  # fmt: skip
def test_all_adds_up_to_what_the_client_waited(
    fronts: list[tuple[float, float]], merged: tuple[str, ...]
) -> None:
    """Where the two segments met other traffic the difference of a pair may be below nothing."""
    fronts = [(max(front, -60.0), late) for front, late in fronts]
    rows = [r for at, (front, late) in enumerate(fronts) for r in pair(at * 7, front, late)]
    frame = frame_of(rows)
    parts = explain(frame, server_of(frame, merged))
    assert parts is not None
    assert (sum(parts.parts.values()) == parts.total).all()
    assert (sum(parts.inside("client_ttft").values()) == parts.ttft).all()
    found = breakdown(parts, "client_e2e", "mean")
    assert found is not None
    assert sum(share.sum_ns for share in found.shares.values()) == found.total_ns
    assert all(s.sum_ns >= 0 for name, s in found.shares.items() if name != "unattributed")


def test_a_target_that_took_less_than_its_server_is_no_bug() -> None:
    """One pair that met other traffic: 63.5 ms at the target, 100 ms of decode behind it."""
    frame = frame_of(pair(0, -11.0, -90.0))
    parts = explain(frame, server_of(frame))
    assert parts is not None
    found = breakdown(parts, "client_e2e", "mean")
    assert found is not None
    assert sum(share.sum_ns for share in found.shares.values()) == found.total_ns
    assert all(s.sum_ns >= 0 for name, s in found.shares.items() if name != "unattributed")


@pytest.mark.parametrize("faster", [-20, -1])
def test_a_gateway_that_seems_to_save_time_takes_none(faster: int) -> None:
    frame = frame_of([row for at in range(40) for row in pair(at * 7, faster)])
    parts = explain(frame, server_of(frame))
    assert parts is not None
    found = breakdown(parts, "client_e2e", "mean")
    assert found is not None and found.shares["gateway"].sum_ns == 0
    assert found.shares["decode"].sum_ns == 40 * (100 + faster) * MS
