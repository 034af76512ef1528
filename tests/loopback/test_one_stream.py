"""One closed-loop stream: what becomes of its connection, and how long it pauses."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from .invoke import Ended, absent, loaded, well_measured
from .peers import DONE, ROLE, Asked, Over, Peer, Wire, delta, endpoint, serving, tokens, well

REQUESTS = 23
NAMES = {
    2: "closes after the reply",
    4: "closes instead of a reply, the first time",
    6: "resets instead of a reply, the first time",
    8: "closes instead of a reply, each time",
    10: "half a head, then closes",
    12: "resets in mid-reply",
    14: "429 for 400 ms",
    16: "503 for 300 ms",
    18: "429 without a word",
    20: "ends the connection with the reply",
}
NUMBER = {name: number for number, name in NAMES.items()}
FIRST: set[int] = set()


def script(wire: Wire, asked: Asked) -> None:
    number = asked.number
    assert number is not None
    name = NAMES.get(number, "")
    first = number not in FIRST
    FIRST.add(number)
    if name.endswith(("the first time", "each time")) and (first or name.endswith("each time")):
        if name.startswith("resets"):
            wire.reset()
        raise Over
    if name == "half a head, then closes":
        wire.send(b"HTTP/1.1 200 OK\r\nContent-")
        wire.close()
    elif name == "resets in mid-reply":
        wire.head()
        wire.chunk(ROLE, *tokens(2))
        wire.reset()
    elif name.startswith("429 for"):
        wire.reply(429, "", "Retry-After: 0.4")
    elif name.startswith("503 for"):
        wire.reply(503, "", "Retry-After: 0.3")
    elif name.startswith("429"):
        wire.reply(429)
    elif name == "ends the connection with the reply":
        wire.head("Connection: close")
        wire.chunk(ROLE, *tokens(7), delta("stop"), DONE)
        wire.end()
        wire.close()
    else:
        well(wire, asked)
        if name == "closes after the reply":
            wire.close()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Peer]:
    FIRST.clear()
    with serving(endpoint(lambda _: script)) as peer:
        folder = tmp_path_factory.mktemp("one")
        ended = loaded(folder, peer.url, "--requests", str(REQUESTS), "--osl", "7", "--quiet")
    return ended, peer


@pytest.fixture(scope="module")
def rows(measured: tuple[Ended, Peer]) -> dict[int, dict[str, Any]]:
    return measured[0].rows()


def outcome(rows: dict[int, dict[str, Any]], name: str) -> str:
    found: str = rows[NUMBER[name]]["outcome"]
    return found


def test_a_kept_connection_that_the_server_closed_costs_no_request(
    measured: tuple[Ended, Peer], rows: dict[int, dict[str, Any]]
) -> None:
    times = Counter(asked.number for asked in measured[1].of_load())
    for name, sent in (
        ("closes after the reply", 1),
        ("closes instead of a reply, the first time", 2),
        ("resets instead of a reply, the first time", 2),
    ):
        assert (outcome(rows, name), times[NUMBER[name]]) == ("ok", sent)
    for verb in ("closes", "resets"):
        row = rows[NUMBER[f"{verb} instead of a reply, the first time"]]
        assert not row["reused"] and row["tcp_ns"] > row["sent_ns"]
        assert row["written_ns"] > row["tcp_ns"] and row["osl"] == 7
        assert 0 < row["retry_ns"] < row["tcp_ns"] - row["sent_ns"]
    assert rows[NUMBER["closes after the reply"]]["reused"]
    after = rows[NUMBER["closes after the reply"] + 1]
    assert (after["outcome"], after["reused"]) == ("ok", False)
    assert times[NUMBER["closes after the reply"] + 1] == 1


def test_the_repetition_is_made_once_and_only_where_nothing_came(
    measured: tuple[Ended, Peer], rows: dict[int, dict[str, Any]]
) -> None:
    times = Counter(asked.number for asked in measured[1].of_load())
    for name, becomes, sent in (
        ("closes instead of a reply, each time", "reset", 2),
        ("half a head, then closes", "cut", 1),
        ("resets in mid-reply", "reset", 1),
    ):
        assert (outcome(rows, name), times[NUMBER[name]]) == (becomes, sent)
    assert rows[NUMBER["resets in mid-reply"]]["reused"]
    assert rows[NUMBER["resets in mid-reply"]]["kinds"].tolist() == [1, 3, 3]


def test_reused_connections_are_marked_and_have_no_connect(
    rows: dict[int, dict[str, Any]],
) -> None:
    fresh = [n for n, row in sorted(rows.items()) if not row["reused"]]
    spent = [2, 4, 6, 8, 10, 12, 20]  # of those 4, 6 and 8 got a fresh one for themselves
    assert fresh == [0, *sorted({n if n in (4, 6, 8) else n + 1 for n in spent} | {9})]
    for number, row in rows.items():
        assert absent(row["tcp_ns"]) == (number not in fresh)


@pytest.mark.parametrize(("name", "seconds"), [("429 for 400 ms", 0.4), ("503 for 300 ms", 0.3)])
def test_the_closed_loop_waits_as_long_as_it_is_asked_to(
    rows: dict[int, dict[str, Any]], name: str, seconds: float
) -> None:
    refused, following = rows[NUMBER[name]], rows[NUMBER[name] + 1]
    assert (refused["outcome"], refused["retry_after_s"]) == ("rate_limited", seconds)
    assert following["sent_ns"] - refused["done_ns"] >= seconds * 1e9
    assert following["outcome"] == "ok"


def test_a_refusal_without_a_time_makes_a_pause_too(rows: dict[int, dict[str, Any]]) -> None:
    refused = rows[NUMBER["429 without a word"]]
    assert refused["outcome"] == "rate_limited"
    assert rows[NUMBER["429 without a word"] + 1]["sent_ns"] - refused["done_ns"] >= 0.05e9


def test_all_else_is_well(measured: tuple[Ended, Peer], rows: dict[int, dict[str, Any]]) -> None:
    assert well_measured(measured[0]) and measured[0].err == ""
    assert sorted(rows) == list(range(REQUESTS))
    others = [row for n, row in rows.items() if n not in NAMES]
    assert {row["outcome"] for row in others} == {"ok"}
    after_close = rows[NUMBER["closes after the reply"] + 1]  # may have met the closing itself
    assert all(absent(row["retry_ns"]) for row in others if row is not after_close)
