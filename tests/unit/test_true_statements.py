"""Sentences that were false on real servers, each with the run that brought it up, and what is
true of it. Those on advice stand in ``test_advice``, on clocks in ``test_offsets``, on metrics of
several layers in ``test_layers``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from latdiag.attribution import reading
from latdiag.diagnosis.caveats import caveats
from latdiag.diagnosis.compare import unlike
from latdiag.diagnosis.diagnose import result_of
from latdiag.diagnosis.run_facts import FactDifference
from latdiag.model.caveat import Caveat
from latdiag.stats.estimate import mean, quantile
from latdiag.store.run import Run

from .probe_rows import reply
from .saved_probe import save
from .test_scraped import run_of


def told(path: str, header: dict[str, Any], **facts: Any) -> dict[str, Caveat]:
    """The caveats of a run whose run.json says ``header`` too, and whose digest has ``facts``."""
    place = Path(path, "run.json")
    document = json.loads(place.read_text())
    for key, value in header.items():
        document[key] = document.get(key, {}) | value
    place.write_text(json.dumps(document))
    run = Run.open(path)
    result = replace(result_of(run, "diagnose"), collected=facts.pop("collected", None))
    found = reading.read(run).digest
    late = facts.pop("bounded", None)
    if late is not None:
        delayed = np.arange(found.frame.n) < late
        found = replace(found, frame=replace(found.frame, delayed=delayed))
    counts = replace(found.measurement.counts, tokens_unknown=facts.pop("unknown", 0))
    found = replace(found, measurement=replace(found.measurement, counts=counts), **facts)
    return {each.code: each for each in caveats(result, found, run)}


def a_load(path: Path) -> str:
    rows = [reply("load", 64, 20.0 * at, 70.0, [5.0] * 9) for at in range(100)]
    return save(path, rows, designed=False)


# ---------------------------------------------------------------------- connections
def test_connections_are_most_where_they_are_most_and_their_time_is_a_mean(tmp_path: Path) -> None:
    path = a_load(tmp_path / "a.run")
    some = told(path, {}, fresh=49, connect_mean_ns=4e6)
    assert "LD502" not in some
    most = told(path, {}, fresh=51, connect_mean_ns=4e6)["LD502"]
    assert most.text.startswith("Most requests ") and "4.00 ms" in most.text
    assert "mean" in most.text and "median" not in most.text and "every" not in most.text


def test_reuse_is_not_advised_where_it_is_on(tmp_path: Path) -> None:
    path = a_load(tmp_path / "a.run")
    reused = told(path, {"plan": {"connections": "reuse"}}, fresh=90, connect_mean_ns=4e6)
    assert "--connections reuse" not in reused["LD502"].remedy
    fresh = told(path, {"plan": {"connections": "fresh"}}, fresh=90, connect_mean_ns=4e6)
    assert "--connections reuse" in fresh["LD502"].remedy


@pytest.mark.parametrize("fresh", [0, 100])
def test_fresh_connections_are_not_advised_where_most_were_fresh(
    tmp_path: Path, fresh: int
) -> None:
    """LD502 and LD204 on one page contradict each other in nothing."""
    path = a_load(tmp_path / "a.run")
    found = told(path, {}, fresh=fresh, connect_mean_ns=4e6, bounded=40)
    assert ("--connections fresh" in found["LD204"].remedy) == (not fresh)
    assert ("LD502" in found) == bool(fresh)


# ---------------------------------------------------------------------- what was given
def test_metrics_that_were_given_are_not_asked_for(tmp_path: Path) -> None:
    found = told(run_of(tmp_path / "a.run", 100), {})
    assert "--metrics" not in found["LD401"].remedy and "--otlp" in found["LD401"].remedy


def test_spans_that_were_listened_for_are_asked_of_the_server(tmp_path: Path) -> None:
    heard: Any = SimpleNamespace(channels=("spans",))
    found = told(run_of(tmp_path / "a.run", 100), {}, collected=heard)
    assert "turn on the server's exporter" in found["LD401"].remedy
    assert "Measure again" not in found["LD401"].remedy


def test_counts_that_were_asked_for_are_not_asked_for_again(tmp_path: Path) -> None:
    path = a_load(tmp_path / "a.run")
    asked = told(path, {}, unknown=3)["LD104"]
    assert "ITL leaves them out" in asked.text and "refused" not in asked.text
    assert asked.remedy.startswith("Ask the server for token counts")
    given = told(path, {"preflight": {"extras": ["return_token_ids", "usage"]}}, unknown=3)[
        "LD104"
    ]
    assert given.remedy.startswith("The server took return_token_ids and states no count")


# ---------------------------------------------------------------------- figures
def test_no_interval_of_a_time_begins_below_zero() -> None:
    """Few values with one that is large: Student's t knows nothing of zero."""
    found = mean(np.array([5_000_000, 4_000_000, 6_000_000, 400_000_000], dtype=np.int64))
    assert found.lo == 0.0 and found.hi is not None and found.value is not None
    assert found.hi > found.value > 0
    signed = mean(np.array([-5, 4, 6, -400], dtype=np.int64))
    assert signed.lo is not None and signed.lo < -100, "what may be negative stays so"


def test_the_split_and_the_table_have_one_rule_of_quantiles(tmp_path: Path) -> None:
    """Of an even number of requests a median between the middle two is above the table's."""
    servers = [10.0, 20.0, 30.0, 400.0] * 10
    rows = [reply("load", 64, 900.0 * at, ms, [5.0] * 9) for at, ms in enumerate(servers)]
    result = result_of(Run.open(save(tmp_path / "a.run", rows, designed=False)), "diagnose")
    split, whole = result.ttft_split, result.metrics["ttft"].statistics
    assert split is not None and split.server is not None
    p50 = whole["p50"].value
    assert p50 is not None and split.server.p50_ms is not None
    assert split.server.p50_ms <= p50 / 1e6 + 1e-9
    assert quantile(np.array(servers, dtype=np.int64), 0.5).value == 20.0
    assert whole["p95"].value is None and split.server.p95_ms is None, "of 40 there is no p95"


def test_no_fact_has_more_digits_than_it_has_meaning() -> None:
    rate = FactDifference("rate (actual)", 3.0379999999999998, 1 / 3, True)
    assert unlike([rate]) == "rate (actual) 3.038 against 0.3333"


def test_no_sentence_of_ours_is_cut(tmp_path: Path) -> None:
    """What is from outside is cut; what to do is told to its end."""
    found = told(run_of(tmp_path / "a.run", 100), {}, fresh=90, connect_mean_ns=4e6, unknown=3)
    for each in found.values():
        assert "…" not in each.text + each.remedy and each.remedy.endswith("."), each
