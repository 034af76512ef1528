"""Metrics of several layers of one target: joined by role, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latdiag.diagnosis.diagnose import result_of
from latdiag.store.run import Run

from .saved_probe import save
from .test_scraped import SINCE, S, exposition, load, scraped, text_of


def dynamo(n: int, seconds: float, refused: int = 0) -> str:
    """A frontend that took so long until the first token and to the end; its histogram of whole
    requests counts those that it refused too."""
    lines = []
    for name, count in (("time_to_first_token", n), ("request_duration", n + refused)):
        family = f"dynamo_frontend_{name}_seconds"
        lines += [f"# TYPE {family} histogram"]
        lines += [f'{family}_bucket{{le="{le}"}} {count}' for le in (1.0, "+Inf")]
        whole = seconds + (0.045 if name == "request_duration" else 0.0)
        lines += [f"{family}_sum {n * whole!r}", f"{family}_count {count}"]
    lines.append("# TYPE dynamo_frontend_requests_total counter")
    lines.append(f'dynamo_frontend_requests_total{{status="success"}} {n}')
    lines.append(f'dynamo_frontend_requests_total{{status="error"}} {refused}')
    return "\n".join(lines) + "\n"


def sources(computed: int, came: int) -> str:
    """Where a vLLM's prompt tokens came from."""
    family = "vllm:prompt_tokens_by_source_total"
    return (
        f"# TYPE {family} counter\n"
        f'{family}{{source="local_compute"}} {computed}\n'
        f'{family}{{source="external_kv_transfer"}} {came}\n'
    )


def layers(path: Path, counts: str) -> dict[str, Any]:
    """A Dynamo (70 ms to the first token) before one vLLM that took 20 ms of it."""
    made = save(path, load(), designed=False)
    worker = (0.001, 0.01, 0.045, 0.009)
    for edge, at, n in (("begin", SINCE - S, 0), ("end", SINCE + 10 * S, 100)):
        scraped(made, edge, at, dynamo(n, 0.07), replica="front")
        scraped(made, edge, at, exposition([worker] * n) + (counts if n else ""), replica="back")
    return result_of(Run.open(made), "diagnose").to_json()


@pytest.mark.parametrize("counts", ["", sources(0, 6400)], ids=["unknown", "decodes"])
def test_a_worker_whose_prefill_nobody_scraped_takes_nothing_from_the_layer_in_front(
    tmp_path: Path, counts: str
) -> None:
    """What is left would be called the frontend's, and is that of a server nobody asked."""
    result = layers(tmp_path / "a.run", counts)
    claims = result["aggregates"]["claims"]
    assert claims and all(claim["of"] != ["frontend"] for claim in claims)
    assert "which part of a request its servers did" in result["aggregates"]["doubts"][0]


def test_a_worker_that_does_it_all_is_inside_the_layer_in_front(tmp_path: Path) -> None:
    counts = sources(6400, 0) + (
        "# TYPE vllm:inter_token_latency_seconds histogram\n"
        'vllm:inter_token_latency_seconds_bucket{le="+Inf"} 900\n'
        "vllm:inter_token_latency_seconds_sum 4.5\nvllm:inter_token_latency_seconds_count 900\n"
    )
    result = layers(tmp_path / "a.run", counts)
    names = {"+".join(claim["of"]) for claim in result["aggregates"]["claims"]}
    assert {"queue", "prefill"} <= names and not result["aggregates"]["doubts"]


def test_refused_requests_that_a_frontend_counts_are_no_stranger_s(tmp_path: Path) -> None:
    made = save(tmp_path / "a.run", load(), designed=False)
    for edge, at, n in (("begin", SINCE - S, 0), ("end", SINCE + 10 * S, 100)):
        scraped(made, edge, at, dynamo(n, 0.07, refused=9 if n else 0), replica="front")
    result = result_of(Run.open(made), "diagnose").to_json()
    assert result["aggregates"]["verdict"] == "own"
    assert "100 of 100 finished requests are this client's" in text_of(result)
