"""Rows that contradict themselves are in no figure, and are counted with what contradicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run as latdiag
from latdiag.store import contradictions
from latdiag.store.run import Run
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state
from tests.schema import validate

MS = 1_000_000
S = 1000 * MS


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A request as a load writes it, of 100 ms, one a second."""
    at = 10**15 + number * S
    return {
        "request_id": f"r{number}", "attempt": 1, "clock_id": "c1", "stage": "load",
        "scenario": "load", "due_ns": at, "sent_ns": at, "written_ns": at + 1, "wire_ns": at + 2,
        "wire_last_ns": at + 2, "acked_ns": at + MS, "headers_ns": at + 50 * MS,
        "arrivals_ns": [at + 50 * MS, at + 100 * MS],
        "arrivals_user_ns": [at + 50 * MS, at + 100 * MS], "tokens": [1, 1], "kinds": [3, 3],
        "censored": [False, False], "done_ns": at + 100 * MS, "isl": 8, "osl": 2,
        "min_rtt_ns": MS // 10, "clock_step": False, "token_source": "usage",
        "stamp_source": "kernel", "outcome": "ok", "status": 200,
    } | {k: v(at) if callable(v) else v for k, v in changes.items()}  # fmt: skip


BAD: dict[str, dict[str, Any]] = {
    "on the wire before sent": {"wire_ns": lambda at: at - 2 * MS},
    "sent before due": {"due_ns": lambda at: at + 2 * MS},
    "written before sent": {"written_ns": lambda at: at - 2 * MS},
    "answered before sent": {"headers_ns": lambda at: at - 2 * MS},
    "ended before sent": {"done_ns": lambda at: at - 2 * MS},
    "last byte on the wire before the first": {"wire_last_ns": lambda at: at - 2 * MS},
    "arrivals that go backwards": {"arrivals_ns": lambda at: [at + 50 * MS, at + 40 * MS]},
    "arrived before sent": {"arrivals_ns": lambda at: [at - 5 * MS, at + 40 * MS]},
    "an instant that no clock shows": {"sent_ns": -1},
    "an interval of more than a week": {"done_ns": lambda at: at + 8 * 86_400 * S},
    "a number that nothing counts": {"osl": -1},
}


def made(folder: Path, rows: list[dict[str, Any]], **evidence: Any) -> str:
    path = create_run(str(folder / "a.run"), header())
    writer = RunWriter(path, "w")
    writer.write_part({name: [each[name] for each in rows] for name in rows[0]})
    if evidence:
        writer.write_evidence(evidence)
    writer.write_state(state())
    return path


@pytest.mark.parametrize("why", BAD)
def test_a_row_that_contradicts_itself_is_left_out_and_counted(tmp_path: Path, why: str) -> None:
    rows = [row(0), row(1, **BAD[why]), row(2)]
    run = Run.open(made(tmp_path, rows))
    ids = [i for batch in run.batches() for i in batch.texts["request_id"].tolist()]
    assert ids == ["r0", "r2"]
    assert run.contradictions["requests"] == {why: 1}


def test_within_a_millisecond_two_clocks_may_differ(tmp_path: Path) -> None:
    rows = [row(0, wire_ns=lambda at: at - MS), row(1, arrivals_ns=lambda at: [at, at - MS])]
    run = Run.open(made(tmp_path, rows))
    assert sum(batch.n for batch in run.batches()) == 2 and not run.contradictions["requests"]


def test_a_row_that_is_marked_as_astride_a_step_is_read(tmp_path: Path) -> None:
    run = Run.open(made(tmp_path, [row(0, clock_step=True, wire_ns=lambda at: at - S)]))
    assert sum(batch.n for batch in run.batches()) == 1


def test_rows_of_more_time_than_there_is_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contradictions, "_ALL_NS", 250 * MS)
    run = Run.open(made(tmp_path, [row(n) for n in range(5)]))
    assert sum(batch.n for batch in run.batches()) == 2
    assert run.contradictions["requests"].total() == 3


def test_a_span_that_ends_before_it_begins_is_left_out_too(tmp_path: Path) -> None:
    path = made(
        tmp_path, [row(0)],
        evidence_id=["a", "b"], kind=["span"] * 2, foreign_name=["llm_request"] * 2,
        start_ns=[10**18, 10**18], end_ns=[10**18 + S, 10**18 - S],
        window_start_ns=[5, 5], window_end_ns=[5, 5],
    )  # fmt: skip
    seen: list[int] = []

    class Spans:
        columns = ("start_ns", "end_ns")
        kinds = ("span",)

        def wanted(self, name: str) -> bool:
            return True

        def add(self, said: Any) -> None:
            seen.extend(said.columns.ints["end_ns"].values.tolist())

    run = Run.open(path)
    run.read_evidence(Spans())
    assert seen == [10**18 + S]
    assert run.contradictions["evidence"] == {"ended before begun": 1}


def test_the_page_and_the_json_say_what_contradicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [*BAD.values(), BAD["sent before due"]]
    path = made(tmp_path, [row(n, **(bad[n] if n < len(bad) else {})) for n in range(60)])
    assert latdiag(["diagnose", path, "--json"]) in (0, 12)
    document = json.loads(capsys.readouterr().out)
    validate(document)
    (said,) = [c["text"] for c in document["caveats"] if c["code"] == "LD124"]
    assert said.startswith(f"{len(bad)} rows of requests contradict themselves")
    assert "(sent before due: 2; " in said and f"otherwise: {len(bad) - 4})" in said
    assert document["load"]["requests"] == 60 - len(bad)
