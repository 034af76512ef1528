"""Evidence that came and is not in the run: it is counted, and told in words."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latdiag.diagnosis.collected import caveats, collected
from latdiag.ingest.collector import Collector
from latdiag.ingest.otlp import intake
from latdiag.model.errors import LocalFault
from latdiag.store import flush
from latdiag.store.run import Run

from .otlp_sender import export
from .receiver import post, receiving, rows_of, state_of
from .test_collect import metrics, until  # noqa: F401 - a fixture


@contextmanager
def small_files(folder: Path, size: int, **options: Any) -> Iterator[tuple[Collector, str]]:
    """A collector whose files may have ``size`` bytes, which is told at its end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(LocalFault) as caught:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            context = receiving(folder, **options)
            made = context.__enter__()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        try:
            yield made
            made[0].finish(0)
        finally:
            context.__exit__(None, None, None)
    assert caught.value.exit_code == 16


def words_of(run: str) -> dict[str, str]:
    (found,) = collected(Run.open(run).writers)
    return {each.code: each.text for each in caveats(found)}


def test_spans_that_cannot_be_written_are_counted_and_told(tmp_path: Path) -> None:
    made = export(3000)
    for span in made.resource_spans[0].scope_spans[0].spans:
        span.trace_id, span.span_id = os.urandom(16), os.urandom(8)
    with small_files(tmp_path, 30_000) as (collector, run):
        assert post(collector.http, made.SerializeToString())[0] == 200
        until(lambda: post(collector.http, export(1).SerializeToString())[0] == 507)
    state = state_of(run)
    lost = state["counts"]["accepted"] - len(rows_of(run))
    assert (state["state"], state["ended"], state["counts"]["lost"]) == ("open", "disk", lost)
    assert lost >= 3000
    assert words_of(run)["LD432"] == (
        f"{lost} rows of spans or metrics that arrived could not be written and are lost."
    )
    assert Run.open(run).unheard


def test_scrapes_that_cannot_be_written_are_counted_and_told(tmp_path: Path, metrics: str) -> None:  # noqa: F811
    # The state of the writer fits, a part of the evidence does not.
    with small_files(tmp_path, 3000, metrics=[metrics], otlp=None) as (collector, run):
        collector.edge("begin")
    counts = state_of(run)["counts"]
    assert (counts["samples"], counts["lost"], rows_of(run)) == (0, 1, [])
    assert words_of(run)["LD432"].startswith("1 rows of spans or metrics ")


def test_a_killed_receiver_of_an_old_run_loses_seconds_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule of when to write takes it for five minutes old. All cells of kills, stops and full
    disks: ``tests/bench/test_ends.py``."""
    begin = flush.Flushes.__init__

    def aged(self: flush.Flushes, begun_s: float) -> None:
        begin(self, begun_s - 300)

    monkeypatch.setattr(flush.Flushes, "__init__", aged)
    answered: dict[str, float] = {}
    with pytest.raises(LocalFault), receiving(tmp_path) as (collector, run):
        until_s = time.monotonic() + flush.MOST_LOST_S + 1
        while time.monotonic() < until_s:
            made = export(1, len(answered))
            assert post(collector.http, made.SerializeToString())[0] == 200
            answered[f"{len(answered) + 1:032x}"] = time.monotonic()
            time.sleep(0.02)
        os.kill(state_of(run)["pid"], signal.SIGKILL)
        killed_s = time.monotonic()
        collector.finish(0)
    kept = {row["trace_id"] for row in rows_of(run)}
    lost = [at for trace, at in answered.items() if trace not in kept]
    assert kept and killed_s - min(lost, default=killed_s) <= flush.MOST_LOST_S
    assert Run.open(run).unheard == ["writer collector never closed"]


def test_where_a_bug_is_can_be_read_and_not_what_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("words of a sender")
        yield

    monkeypatch.setattr(intake, "decoding", broken)
    with caplog.at_level(logging.DEBUG, "latdiag"), receiving(tmp_path) as (collector, run):
        status, _, reply = post(collector.http, export(1).SerializeToString())
        assert post(collector.http, export(1).SerializeToString())[0] == status == 500
        found = collector.finish(0)
    assert found.refused_exports == {"bug": 2}
    (told,) = [record.getMessage() for record in caplog.records]  # once, however often
    assert "RuntimeError at" in told and told.endswith("broken")
    everywhere = told + repr(reply) + json.dumps(state_of(run))
    assert "words of a sender" not in everywhere
