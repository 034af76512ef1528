"""A few worlds of each kind, whole: their truth adds up and their runs are runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from latdiag.store.run import Run

from .judge import book_of
from .kinds import KINDS, drawn
from .work import Task, rows_of, worked


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_of_each_request_adds_up(kind: str, tmp_path: Path) -> None:
    rows, said = rows_of(Task(kind, "unit", "quick", tmp_path))
    assert said and rows
    for row in rows:
        if not row.ok or not row.osl:
            continue
        truth = row.truth()
        assert row.done is not None
        assert sum(truth.spent.values()) == truth.total == row.done - row.begin
        assert all(took > 0 for took in truth.spent.values())
        arrivals = [at for at, _ in row.events]
        assert arrivals == sorted(arrivals) and arrivals[-1] == row.done
        assert sum(event.tokens for _, event in row.events) == row.osl
        assert row.begin <= row.sent <= row.written <= row.wire <= row.wire_last < arrivals[0]


def test_a_run_is_read_without_contradiction_and_whole(tmp_path: Path) -> None:
    task = Task("replicas", "unit", "quick", tmp_path)
    rows, _ = rows_of(task)
    run = Run.open(str(task.run))
    assert len(run.frame(["request_id"])) == len(rows)
    list(run.batches())
    assert not run.contradictions["requests"] and not run.caveats and not run.cut_short


def test_a_seed_is_a_world(tmp_path: Path) -> None:
    one, other = (rows_of(Task("changes", "same", "quick", tmp_path / name))[0] for name in "ab")
    assert [(row.begin, row.done) for row in one] == [(row.begin, row.done) for row in other]
    assert drawn("changes", "same")[0].described != drawn("changes", "else")[0].described


def test_an_obviously_healthy_world_is_healthy(tmp_path: Path) -> None:
    books = []
    for seed in range(3):
        rows, _ = rows_of(Task("healthy", f"unit-{seed}", "quick", tmp_path))
        books.append(book_of([row for row in rows if row.stage == "S10"]))
    assert all(book.healthy is not False for book in books), books


def test_who_raises_is_in_the_table(tmp_path: Path) -> None:
    task = Task("healthy", "unit", "quick", tmp_path)
    task.run.mkdir()
    (task.run / "run.json").write_text("{}")
    record = worked(task)
    assert "RunFault" in record.failed
    assert record.judged["latdiag"].mark == "none"
