"""The client against real vLLM on CPU: counts equal the server's, TTFT agrees with its span."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latdiag.measurement.digest import COLUMNS
from latdiag.measurement.ttft_split import split
from latdiag.store.run import Run

from .conftest import Stack, latdiag, spans

pytestmark = pytest.mark.live
_REQUESTS = 23


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_counts_and_ttft_are_those_of_the_server(stack: Stack, tmp_path: Path, path: str) -> None:
    sink = stack.up("otlp-sink", "latdiag-sink", "--port", "14418")
    server = stack.up("vllm-cpu", "latdiag-vllm", "--port", "8190", "--otlp", sink["OTLP_GRPC"])
    place = tmp_path / "x.run"
    arguments = ("--path", path, "--requests", str(_REQUESTS), "--concurrency", "1")
    code, result, said = latdiag(
        "load", server["URL"], *arguments, "--isl", "37", "--osl", "17", "--out", str(place)
    )
    assert code in (0, 12), said  # 12: the machine is too busy for the client, not for counts
    assert result["load"]["ok"] == _REQUESTS
    traces = {t for b in Run.open(str(place)).batches(["trace_id"]) for t in b.texts["trace_id"]}
    told = _await_spans(Path(sink["FILE"]), traces)
    client, server_part, slack = [], [], []
    rows = 0
    for batch in Run.open(str(place)).batches([*COLUMNS, "trace_id"]):
        parts = split(batch)
        for i in range(batch.n):
            span = told[batch.texts["trace_id"][i]]
            assert batch.ints["isl"].values[i] == int(span["gen_ai.usage.prompt_tokens"])
            assert batch.ints["osl"].values[i] == int(span["gen_ai.usage.completion_tokens"])
            tokens = batch.lists["tokens"]
            assert tokens.valid[i]
            mine = tokens.values[tokens.offsets[i] : tokens.offsets[i + 1]]
            assert mine.sum() == batch.ints["osl"].values[i]
            rows += 1
        for at, i in enumerate(parts.row.tolist()):
            span = told[batch.texts["trace_id"][i]]
            ttft_s = float(span["gen_ai.latency.time_to_first_token"])
            server_part.append(ttft_s * 1e9)
            client.append(float(parts.server[at]))
            slack.append(float(parts.network_hi[at] - parts.network_lo[at]))
    assert rows == _REQUESTS
    # The server's clock starts after it has parsed the request and stops before it has written
    # the reply: what the client sees behind the first hop is never less, and little more.
    more = np.array(client) - np.array(server_part)
    assert (more + np.array(slack) > -1e6).all()
    assert np.median(more) < max(5e6, 0.05 * float(np.median(server_part)))


def _await_spans(path: Path, traces: set[str]) -> dict[str, dict[str, Any]]:
    """vLLM exports in batches some seconds late."""
    missing = traces
    for _ in range(60):
        found = spans(path, "llm_request") if path.exists() else {}
        missing = traces - found.keys()
        if not missing:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{len(missing)} of {len(traces)} spans did not come")
