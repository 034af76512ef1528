"""Windows of scrapes against a client's attempts, and what a run says of both."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from latdiag.attribution.metrics.deltas import Sample, deltas
from latdiag.attribution.metrics.windows import (
    Edges,
    attempts,
    edges,
    own,
    windows,
    with_roles,
)
from latdiag.diagnosis.diagnose import result_of
from latdiag.ingest.prometheus import columns_of
from latdiag.measurement.frame import frame
from latdiag.model.records import Outcome
from latdiag.report.page import Page
from latdiag.report.servers import servers
from latdiag.stacks import catalogue
from latdiag.store.run import Run
from latdiag.store.writer import RunWriter

from . import read_result
from .probe_rows import MS, Reply, reply
from .saved_probe import save
from .split_rows import batch, row

SINCE = 10**15
S = 10**9


def sample(edge: str, at_ns: int, replica: str = "r", value: float = 0.0, **more: Any) -> Sample:
    given = {"name": "g", "kind": "gauge", "labels": (), "role": ""} | more
    return Sample(replica=replica, edge=edge, at_ns=at_ns, value=value, **given)


# ---------------------------------------------------------------------- windows
def test_each_load_and_each_scenario_is_a_window() -> None:
    live = [("begin", 1), ("periodic", 5), ("end", 9), ("begin", 20), ("end", 30)]
    rows = [sample(edge, at) for edge, at in live]
    rows += [sample(f"{name}.{edge}", 3) for name in ("b", "a.x") for edge in ("before", "after")]
    found = windows(rows)
    assert [(w.name, w.begin, w.end) for w in found] == [
        ("", "begin", "end"),
        ("", "begin", "end"),
        ("a.x", "a.x.before", "a.x.after"),
        ("b", "b.before", "b.after"),
    ]
    assert [[s.at_ns for s in w.samples] for w in found] == [[1, 5, 9], [20, 30], [3, 3], [3, 3]]


def test_servers_of_one_load_make_one_window_and_stray_scrapes_none() -> None:
    rows = [sample("begin", 1, "a"), sample("begin", 2, "b")]
    rows += [sample("end", 8, "b"), sample("end", 9, "a")]
    (window,) = windows(rows)
    at = edges(deltas(window.samples))
    assert at == Edges((1, 2), (8, 9))
    assert windows([sample("periodic", 5)]) == []
    assert edges(deltas([sample("begin", 1)])) is None


@pytest.mark.parametrize(
    ("sent", "done", "outcome", "n", "flying"),
    [
        (20, 70, Outcome.OK, 1, 0),
        (5, 70, Outcome.OK, 1, 1),  # on its way at the beginning
        (20, 95, Outcome.OK, 0, 1),  # ended between the scrapes of the end
        (5, 9, Outcome.OK, 0, 0),
        (20, 300, Outcome.OK, 0, 1),
        (200, 300, Outcome.OK, 0, 0),
        (20, 70, Outcome.TIMEOUT, 0, 1),  # the server may have finished it
        (20, 70, Outcome.REFUSED, 0, 0),
        (20, 70, Outcome.RATE_LIMITED, 0, 0),
    ],
)
def test_what_ends_in_a_window_is_ones_own(
    sent: int, done: int, outcome: Outcome, n: int, flying: int
) -> None:
    one = row(sent_ns=sent, done_ns=(done - sent) / MS, outcome=outcome.value, arrivals=[])
    found = own(Edges((10, 12), (90, 99)), attempts(frame([batch([one])])))
    assert (found.n, found.in_flight) == (n, flying)


def test_refusals_and_cheap_gets_reach_no_engine() -> None:
    rows = [
        row(outcome="http_error", status=404),
        row(outcome="http_error", status=500),
        row(stage="S1", scenario="get"),
        row(stage="S7", scenario="get"),
        row(stage="S3"),
        row(stage="warmup"),
    ]
    found = attempts(frame([batch(rows)]))
    assert found.served.tolist() == [False, True, True]
    assert found.unclear.tolist() == [True, False, False]
    assert found.workload.tolist() == [True, False, False]
    nobody = attempts(frame([]))
    assert nobody.clocks == 0 and not len(nobody.sent)


def test_labels_name_the_role_of_a_server_and_no_one_else_s_word_does() -> None:
    signals = catalogue.stack("sglang").signals
    name = "sglang:queue_time_seconds"
    more: dict[str, Any] = {"name": name, "kind": "histogram"}
    rows = [
        sample("begin", 1, "a", labels=(("engine_type", "prefill"),), **more),
        sample("begin", 1, "a", name="other"),
        sample("begin", 1, "b", labels=(("engine_type", "decode"),), **more),
        sample("begin", 1, "c", labels=(("engine_type", "decode"),), role="prefill", **more),
        sample("begin", 1, "d", role="server"),
    ]
    found = with_roles(rows, signals)
    assert [one.role for one in found] == ["prefill", "prefill", "decode", "prefill", ""]


# ---------------------------------------------------------------------- runs
def exposition(seconds: Sequence[tuple[float, float, float, float]], started: float = 5.0) -> str:
    """vLLM's metrics after requests of (queue, prefill, decode, frontend) seconds."""
    lines = ["# TYPE process_start_time_seconds gauge", f"process_start_time_seconds {started}"]
    sums = {
        "request_queue_time_seconds": [q for q, *_ in seconds],
        "request_prefill_time_seconds": [p for _, p, *_ in seconds],
        "request_decode_time_seconds": [d for *_, d, _ in seconds],
        "time_to_first_token_seconds": [q + p + f for q, p, _, f in seconds],
        "e2e_request_latency_seconds": [sum(each) for each in seconds],
    }
    for name, values in sums.items():
        lines.append(f"# TYPE vllm:{name} histogram")
        for bound in (0.3, 0.5, 1.0, math.inf):
            n = sum(value <= bound for value in values)
            le = "+Inf" if bound == math.inf else bound
            lines.append(f'vllm:{name}_bucket{{engine="0",le="{le}"}} {n}')
        lines.append(f'vllm:{name}_sum{{engine="0"}} {sum(values)!r}')
        lines.append(f'vllm:{name}_count{{engine="0"}} {len(values)}')
    return "\n".join(lines) + "\n"


def scraped(
    path: str, edge: str, at_ns: int, text: str, replica: str = "http://h/metrics"
) -> None:
    """Add a scrape to a saved run."""
    columns = columns_of(
        text, at_ns=at_ns, replica=replica, edge=edge, families=catalogue.families()
    )
    RunWriter(path, f"m{replica.count('2')}{edge}{at_ns}").write_evidence(columns)


QUEUE, PREFILL = 0.04, 0.02


def load(n: int = 100, stage: str = "load", **more: Any) -> list[Reply]:
    """Requests 20 ms apart: 70 ms behind the hop, ten tokens."""
    return [reply(stage, 64, 20.0 * at, 70.0, [5.0] * 9, **more) for at in range(n)]


def run_of(path: Path, n: int, *, before: int = 0, **more: Any) -> str:
    """A load of 100 requests between whose scrapes the server finished ``n``."""
    made = save(path, load(), designed=more.pop("designed", False), **more)
    one = (QUEUE, PREFILL, 0.045, 0.005)
    scraped(made, "begin", SINCE - S, exposition([one] * before))
    scraped(made, "end", SINCE + 10 * S, exposition([one] * (before + n)))
    return made


def text_of(result: dict[str, Any]) -> str:
    page = Page(True)
    servers(page, read_result.result(result))
    return " ".join(" ".join(span.text.strip() for span in line) for line in page.lines).strip()


def codes(result: dict[str, Any]) -> set[str]:
    return {each["code"] for each in result["caveats"]}


def test_a_load_with_metrics_is_taken_apart(tmp_path: Path) -> None:
    result = result_of(Run.open(run_of(tmp_path / "a.run", 100, before=40)), "load").to_json()
    found = result["breakdown"]["mean"]
    assert found["queue"]["sum_ns"] == round(100 * QUEUE * 1e9)
    assert found["prefill"]["sum_ns"] == round(100 * PREFILL * 1e9)
    assert found["frontend"]["members"] == ["frontend", "gateway"]
    assert found["frontend"]["sum_ns"] == 100 * 10 * MS
    assert found["total_ns"] == sum(e["sum_ns"] for e in found.values() if isinstance(e, dict))
    remedy = next(c["remedy"] for c in result["caveats"] if c["code"] == "LD401")
    assert remedy == (
        "Measure again with the server's own spans (--otlp): they state frontend separately for"
        " each request, and the gateway's time is what they leave. If a gateway is in front,"
        " --behind URL2 (the server behind it) measures what it takes."
    )
    lost = [claim for claim in result["claims"]["prefill"] if not claim["used"]]
    assert {tuple(claim["of"]) for claim in lost} == {("queue", "prefill", "frontend", "gateway")}
    assert text_of(result) == (
        "Metrics: 1 server, 100 of 100 finished requests are this client's; frontend 5.00 ms,"
        " queue 40.0 ms, prefill 20.0 ms, decode 45.0 ms (mean, B)"
    )


def test_a_verb_without_usable_metrics_stays_as_it_was(tmp_path: Path) -> None:
    result = result_of(
        Run.open(save(tmp_path / "a.run", load(), designed=False)), "load"
    ).to_json()
    assert "aggregates" not in result and result["breakdown"] == {} and text_of(result) == ""
    result = result_of(Run.open(run_of(tmp_path / "b.run", 40)), "load").to_json()
    assert result["breakdown"] == {} and result["aggregates"]["verdict"] == "contradictory"
    assert "LD416" in codes(result)
    assert text_of(result).startswith("Metrics: 1 server, the scraped servers finished")


def test_other_peoples_requests_leave_bounds(tmp_path: Path) -> None:
    result = result_of(Run.open(run_of(tmp_path / "a.run", 150)), "diagnose").to_json()
    found = result["aggregates"]
    assert (found["verdict"], found["used"], found["own"]) == ("others", False, 100)
    queue = next(claim for claim in found["claims"] if claim["of"] == ["queue"])
    assert queue["mean_ms"] is None
    assert queue["lo_ms"] <= 1e3 * QUEUE <= queue["hi_ms"] == pytest.approx(1.5e3 * QUEUE)
    assert result["breakdown"]["mean"]["queue"]["grade"] == "E"
    assert "100 of 150 finished requests are this client's; frontend at most" in text_of(result)
    (replica,) = found["replicas"]
    # Of all that it finished it says what it took, whosever that was.
    alone = next(claim for claim in replica["claims"] if claim["of"] == ["queue"])
    assert (replica["finished"], alone["n"]) == (150, 150)
    assert alone["mean_ms"] == pytest.approx(1e3 * QUEUE)


def test_two_runs_are_two_windows(tmp_path: Path) -> None:
    first = run_of(tmp_path / "a.run", 100)
    second = save(tmp_path / "b.run", load(), designed=False, since=SINCE + 60 * S)
    one = (QUEUE, PREFILL, 0.045, 0.005)
    scraped(second, "begin", SINCE + 50 * S, exposition([one] * 120))
    scraped(second, "end", SINCE + 70 * S, exposition([one] * 220))
    result = result_of(Run.open(first, second), "diagnose").to_json()
    found = result["aggregates"]
    assert found["used"] and found["own"] == 200 and len(found["windows"]) == 2
    assert result["breakdown"]["mean"]["queue"]["sum_ns"] == round(200 * QUEUE * 1e9)


def test_two_servers_are_added_and_shown_apart(tmp_path: Path) -> None:
    made = save(tmp_path / "a.run", load(), designed=False)
    slow, fast = (0.06, PREFILL, 0.045, 0.005), (0.0, PREFILL, 0.045, 0.005)
    for replica, each in (("http://h1/metrics", slow), ("http://h2/metrics", fast)):
        scraped(made, "begin", SINCE - S, exposition([]), replica)
        scraped(made, "end", SINCE + 10 * S, exposition([each] * 50), replica)
    result = result_of(Run.open(made), "diagnose").to_json()
    assert result["breakdown"]["mean"]["queue"]["sum_ns"] == round(50 * 0.06 * 1e9)
    assert text_of(result).startswith("Metrics: 2 servers, 100 of 100")
    queues = [
        next((c["mean_ms"] for c in each["claims"] if c["of"] == ["queue"]), 0.0)
        for each in result["aggregates"]["replicas"]
    ]
    assert queues == [pytest.approx(60.0), 0.0]


def test_a_server_without_any_queue_is_told_apart_too(tmp_path: Path) -> None:
    made = save(tmp_path / "a.run", load(), designed=False)
    scraped(made, "begin", SINCE - S, exposition([]))
    scraped(made, "end", SINCE + 10 * S, exposition([(0.0, PREFILL, 0.045, 0.005)] * 100))
    found = result_of(Run.open(made), "diagnose").to_json()["breakdown"]["mean"]
    assert found["queue"]["sum_ns"] == 0 and found["queue"]["grade"] == "B"
    assert found["prefill"]["sum_ns"] == round(100 * PREFILL * 1e9)


def test_a_restart_leaves_a_server_out(tmp_path: Path) -> None:
    made = save(tmp_path / "a.run", load(), designed=False)
    one = (QUEUE, PREFILL, 0.045, 0.005)
    for replica, started in (("http://h1/metrics", 5.0), ("http://h2/metrics", 99.0)):
        scraped(made, "begin", SINCE - S, exposition([]), replica)
        scraped(made, "end", SINCE + 10 * S, exposition([one] * 50, started), replica)
    result = result_of(Run.open(made), "diagnose").to_json()
    first, second = result["aggregates"]["replicas"]
    assert first["left_out"] is None and first["finished"] == 50
    assert second["left_out"] == "its process restarted during the window"
    assert {"LD416", "LD419"} <= codes(result) and result["aggregates"]["claims"] == []
    assert result["breakdown"]["mean"]["queue"]["grade"] == "E"
    assert text_of(result).endswith("1 left out")


def test_a_probe_s_metrics_are_of_the_whole_probe(tmp_path: Path) -> None:
    rows = load(60, stage="S3") + [
        reply("S10", 64, 5000.0 + 20 * at, 70.0, [5.0] * 9, scenario="segment-1")
        for at in range(100)
    ]
    made = save(tmp_path / "a.run", rows)
    one = (QUEUE, PREFILL, 0.045, 0.005)
    scraped(made, "begin", SINCE - S, exposition([]))
    scraped(made, "end", SINCE + 10 * S, exposition([one] * 160))
    result = result_of(Run.open(made), "probe").to_json()
    found = result["aggregates"]
    assert (found["of"], found["own"], found["used"]) == ("probe", 160, False)
    assert "LD418" in codes(result) and "LD416" not in codes(result)
    assert result["breakdown"]["mean"]["queue"]["grade"] != "B"
    assert "(mean of the whole probe, B)" in text_of(result)


def test_metrics_that_know_nothing_of_requests_are_no_evidence(tmp_path: Path) -> None:
    made = save(tmp_path / "a.run", load(), designed=False)
    bare = "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 5\n"
    for edge, at in (("begin", SINCE - S), ("end", SINCE + 10 * S)):
        scraped(made, edge, at, bare)
    assert "aggregates" not in result_of(Run.open(made), "diagnose").to_json()


def first_tokens(n: int, seconds: float) -> str:
    """A Dynamo frontend that knows how long the first token took, and nothing of queues."""
    name = "dynamo_frontend_time_to_first_token_seconds"
    lines = [f"# TYPE {name} histogram"]
    lines += [f'{name}_bucket{{le="{le}"}} {n}' for le in (1.0, "+Inf")]
    lines += [f"{name}_sum {n * seconds!r}", f"{name}_count {n}"]
    lines += [
        "# TYPE dynamo_frontend_requests_total counter",
        f"dynamo_frontend_requests_total {n}",
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("stacks", [["litellm", "dynamo"], ["dynamo"]])
def test_the_first_token_of_the_engine_bounds_what_lies_behind_its_gateway(
    tmp_path: Path, stacks: list[str]
) -> None:
    path = save(tmp_path / "a.run", load(), designed=False)
    header = Path(path, "run.json")
    document = json.loads(header.read_text())
    document["stacks"] = [
        {"name": name, "version": None, "grounds": "a header"} for name in stacks
    ]
    header.write_text(json.dumps(document))
    for edge, at, n in (("begin", SINCE - S, 0), ("end", SINCE + 10 * S, 100)):
        scraped(path, edge, at, first_tokens(n, 0.01))
    result = result_of(Run.open(path), "diagnose").to_json()
    found = result["breakdown"]["mean"]
    if "litellm" not in stacks:
        # What the engine did not see may be its own HTTP layer: nothing is said.
        assert "gateway" not in found and "LD416" in codes(result)
        return
    engine = found["frontend"]
    assert engine["members"] == ["frontend", "queue", "prefill", "interconnect"]
    assert engine["sum_ns"] == 100 * 10 * MS and engine["grade"] == "B"
    assert "time_to_first_token" in engine["evidence"]
    assert found["gateway"]["sum_ns"] == 100 * 60 * MS and "members" not in found["gateway"]
    assert sum(e["sum_ns"] for e in found.values() if isinstance(e, dict)) == found["total_ns"]
    assert "LD416" not in codes(result)
    assert result["verdict"]["dominant"] == "gateway"
