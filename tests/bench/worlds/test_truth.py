"""A few worlds of each kind: their truth adds up, and their runs are runs."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest

from latdiag.measurement.stages import PathStage, Shot, Stage
from latdiag.store.run import Run

from .client import Client, Row, limits_of
from .judge import book_of
from .kinds import KINDS, drawn
from .rundir import Writing
from .work import Task, rows_of, worked

SHOTS = tuple(Shot(64 + 90 * n, 3 + n, 70_000_000 * n) for n in range(9))
SEEDS = ("one", "two", "three")
STAGES: tuple[Stage | PathStage, ...] = (
    PathStage(3, (32, 512), 1),
    Stage("S3", (Shot(32, 4, -1), Shot(700, 4, -1)), 1, dither_ns=50_000_000),
    Stage("S6", (Shot(32, 8, 0),) * 6),
    Stage("S10", SHOTS, 0, segment=1),
)


@cache
def short(kind: str, seed: str) -> list[Row]:
    """Some of the stages of a probe: what a whole one would show costs seconds."""
    return made(kind, seed)


def made(kind: str, seed: str) -> list[Row]:
    client = Client(drawn(kind, seed)[0], random.Random(seed))
    for stage in STAGES:
        client.execute(stage)
    return client.rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_truth_of_each_request_adds_up(kind: str, seed: str) -> None:
    rows = short(kind, seed)
    assert len(rows) == 3 + 2 + 2 + 6 + 9 or kind == "limits"
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
        assert row.acked is not None and row.head is not None
        assert row.wire_last < row.acked <= row.head <= arrivals[0]


#: In whose time a cheap GET and a refused POST take part, alone on an idle server.
OF_GETS = {"own-stamps", "ack", "get"}
OF_REFUSED = OF_GETS | {"refused", "refused-loaded"}
#: Less is what any server needs to answer at all, ns.
LITTLE = 2_000_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_causes_show_where_they_say(kind: str, seed: str) -> None:
    """What is stated of a piece beside its code, against what its code does: a wrong word there
    would part what cannot be parted, or excuse what can."""
    for row in short(kind, seed):
        if row.stage != "S1":
            continue
        shows = OF_REFUSED if row.isl else OF_GETS
        for cause, took in row.request.ledger.spent.items():
            assert took < LITTLE or shows & set(cause.shows), (cause, took)


#: Where a request that is alone still waits: for a stall, for other tenants, for a bucket that
#: its own tokens emptied.
NEVER_ALONE = {"stalls", "gateway-work", "limit-tokens"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NEVER_ALONE])
@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_alone_pays_nothing_for_others(kind: str, seed: str) -> None:
    for row in short(kind, seed):
        if row.stage == "S3" and row.ok:
            loaded = {c: took for c, took in row.request.ledger.spent.items() if c.load}
            assert sum(loaded.values()) < LITTLE, loaded


@pytest.mark.parametrize("kind", ("replicas", "limits"))
def test_a_run_is_read_whole_and_without_contradiction(kind: str, tmp_path: Path) -> None:
    rows = short(kind, "one")
    run = Writing(tmp_path / "a.run", limits_of("quick", 1, {}))
    run.add(rows)
    run.close()
    found = Run.open(str(tmp_path / "a.run"))
    assert len(found.frame(["request_id"])) == len(rows) == run.observed().n
    list(found.batches())
    assert not found.contradictions["requests"] and not found.caveats and not found.cut_short


def test_a_seed_is_a_world() -> None:
    one, other = (made("changes", "same") for _ in range(2))
    assert [(row.begin, row.done) for row in one] == [(row.begin, row.done) for row in other]
    assert drawn("changes", "same")[0].described != drawn("changes", "else")[0].described


def test_a_healthy_world_is_probed_whole_and_is_healthy(tmp_path: Path) -> None:
    rows, *_ = rows_of(Task("healthy", "unit", "quick", tmp_path))
    book = book_of([row for row in rows if row.stage == "S10"])
    assert book.healthy is not False and book.ranked("mean")[0] == "decode", book
    designed = {"S1", "warmup", "S2", "S3", "S4", "S5", "S6", "S7", "S8"}
    assert {row.stage for row in rows} == {*designed, "S10"}


def test_who_raises_is_in_the_table(tmp_path: Path) -> None:
    task = Task("healthy", "unit", "quick", tmp_path)
    task.run.mkdir()
    (task.run / "run.json").write_text("{}")
    record = worked(task)
    assert "RunFault" in record.failed
    assert record.judged["latdiag"].mark == "none"
