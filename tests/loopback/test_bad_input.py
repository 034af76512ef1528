"""One load against a server that errs in every way, at every third request.

Each fault has to become its own row's outcome, with its sentence, and nothing else: the requests
between are as good as if there were no faults.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from latdiag.model.records import OUTPUT_KINDS

from . import framings
from .faults import FAULTS, TIMEOUT_S, TOKENS, Fault
from .invoke import Ended, absent, loaded, well_measured
from .peers import Peer, endpoint, every, serving

assert framings  # it enters its scripts into the table
STEP = 3
REQUESTS = STEP * len(FAULTS) + 2
NUMBERS = {fault.name: STEP * i + 1 for i, fault in enumerate(FAULTS)}
assert len(NUMBERS) == len(FAULTS)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Peer]:
    script = endpoint(every(STEP, [fault.script for fault in FAULTS]))
    with serving(script) as peer:
        ended = loaded(
            tmp_path_factory.mktemp("faults"),
            peer.url,
            *("--requests", str(REQUESTS), "--concurrency", "13", "--osl", str(TOKENS)),
            *("--timeout", f"{TIMEOUT_S}s", "--quiet"),
        )
    return ended, peer


@pytest.fixture(scope="module")
def rows(measured: tuple[Ended, Peer]) -> dict[int, dict[str, Any]]:
    return measured[0].rows()


def outputs(row: dict[str, Any]) -> int:
    return sum(1 for kind in row["kinds"] if kind in OUTPUT_KINDS)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_is_the_outcome_of_its_request(
    fault: Fault, rows: dict[int, dict[str, Any]]
) -> None:
    row = rows[NUMBERS[fault.name]]
    said = "" if absent(row["error"]) else row["error"]
    assert (row["outcome"], said) == (fault.outcome, said)
    if fault.error is None:
        assert said == ""
    else:
        assert re.search(fault.error, said), said
    assert (None if absent(row["status"]) else row["status"]) == fault.status
    if fault.outputs == -1:
        assert outputs(row) > 0
    elif fault.outputs is not None:
        assert outputs(row) == fault.outputs
    if row["token_source"] == "usage" and fault.row is None:
        assert row["osl"] == fault.outputs
    assert fault.row is None or fault.row(row)


def test_every_request_has_its_row_and_its_instants(rows: dict[int, dict[str, Any]]) -> None:
    assert sorted(rows) == list(range(REQUESTS))
    for row in rows.values():
        lists = ("arrivals_ns", "arrivals_user_ns", "kinds", "censored")
        assert len({len(row[name]) for name in lists}) == 1
        assert row["sent_ns"] <= row["written_ns"] <= row["done_ns"]
        arrivals = list(row["arrivals_ns"])
        assert arrivals == sorted(arrivals)
        assert not arrivals or row["written_ns"] <= arrivals[0]
        assert absent(row["headers_ns"]) or row["written_ns"] <= row["headers_ns"]


def test_the_other_requests_are_untouched(rows: dict[int, dict[str, Any]]) -> None:
    others = [row for number, row in rows.items() if number not in NUMBERS.values()]
    assert len(others) == REQUESTS - len(FAULTS)
    for row in others:
        assert (row["outcome"], row["status"], outputs(row)) == ("ok", 200, TOKENS)
        assert row["osl"] == TOKENS and row["token_source"] == "usage"
        assert row["kinds"].tolist() == [1, *[3] * TOKENS, 5]
        assert absent(row["error"]) and absent(row["retry_after_s"])


def test_the_result_counts_them(measured: tuple[Ended, Peer]) -> None:
    ended, _ = measured
    assert well_measured(ended) and ended.err == ""
    load, errors = ended.result["load"], ended.result["errors"]
    expected = Counter(fault.outcome for fault in FAULTS if fault.outcome != "ok")
    assert load["failed"] == expected
    assert load["requests"] == REQUESTS and load["ok"] == REQUESTS - expected.total()
    assert {e["outcome"]: e["count"] for e in errors} == expected
    sentences = {o: [f.error for f in FAULTS if f.outcome == o] for o in expected}
    for entry in errors:  # the example is the sentence of one of them
        assert any(re.search(s, entry["example"]) for s in sentences[entry["outcome"]] if s)


def test_no_request_was_sent_twice(measured: tuple[Ended, Peer]) -> None:
    """A reply that broke off was an answer: only a request without any may be repeated."""
    times = Counter(asked.number for asked in measured[1].of_load())
    assert set(times) == set(range(REQUESTS))
    assert set(times.values()) == {1}


@pytest.mark.parametrize(
    "name",
    ["connection_close", "surplus_reply", "surplus_rubbish", "http_1_0", "upgrade", "not_http"],
)
def test_a_spent_connection_is_not_used_again(measured: tuple[Ended, Peer], name: str) -> None:
    asked = measured[1].of_load()
    last = next(one for one in asked if one.number == NUMBERS[name])
    later = [one for one in asked if one.connection == last.connection and one.place > last.place]
    assert later == []
