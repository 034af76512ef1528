"""The client against NVIDIA Dynamo, disaggregated: counts equal the server's, metrics agree."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from latdiag.store.run import Run

from .conftest import Stack, latdiag

pytestmark = pytest.mark.live
_REQUESTS = 23
#: At most so many requests before a load or a probe.
_PREFLIGHT = 8


def _counter(url: str, name: str) -> float:
    with urllib.request.urlopen(url, timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))


def test_counts_and_ttft_are_those_of_the_server(stack: Stack, tmp_path: Path) -> None:
    server = stack.up("dynamo", "latdiag-dynamo", "--port", "8320")
    metrics = server["URL"] + "/metrics"
    names = ("output_sequence_tokens_sum", "time_to_first_token_seconds_sum", "requests_total")
    before = {n: _counter(metrics, f"dynamo_frontend_{n}") for n in names}
    extra = ("--requests", str(_REQUESTS), "--osl", "17", "--out", str(tmp_path / "x.run"))
    code, result, said = latdiag("load", server["URL"], *extra)
    assert code in (0, 12), said
    assert result["load"]["ok"] == result["load"]["requests"] > 0
    after = {n: _counter(metrics, f"dynamo_frontend_{n}") for n in names}
    grown = {n: after[n] - before[n] for n in names}
    sent = result["load"]["requests"]
    # The preflight's few tokens are in the server's count too, and nothing else is.
    preflight = grown["requests_total"] - sent
    assert 1 <= preflight <= _PREFLIGHT
    ours = result["load"]["osl_mean"] * sent
    assert ours <= grown["output_sequence_tokens_sum"] <= ours + 2 * preflight
    server_ttft_ms = 1000 * grown["time_to_first_token_seconds_sum"] / grown["requests_total"]
    split = result["split"]["ttft"]
    assert split["server"]["mean_ms"] == pytest.approx(server_ttft_ms, abs=8, rel=0.1)


def test_a_probe_spends_the_tokens_that_its_rows_say(stack: Stack, tmp_path: Path) -> None:
    server = stack.up("dynamo", "latdiag-dynamo", "--port", "8320")
    metrics, name = server["URL"] + "/metrics", "dynamo_frontend_output_sequence_tokens_sum"
    before = _counter(metrics, name)
    path = str(tmp_path / "x.run")
    code, result, said = latdiag("probe", server["URL"], "--out", path)
    assert code in (0, 12), said
    assert result["load"]["ok"] == result["load"]["requests"] > 0
    rows = Run.open(path).frame(["scenario", "outcome", "osl"])
    assert set(rows[rows.scenario != "refused"].outcome) == {"ok"}
    ours = int(rows.osl.sum())
    assert ours <= _counter(metrics, name) - before <= ours + 2 * _PREFLIGHT
