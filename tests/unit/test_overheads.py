"""What gateways state of themselves in headers: of each request, and of most or of none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from latdiag.attribution.replies import source
from latdiag.attribution.replies.overheads import Overhead, caveats, overheads
from latdiag.measurement.frame import Frame, joined

from .test_replies import batch

MS = 1_000_000


def frame(n: int) -> Frame:
    return joined([{"sent": np.arange(n, dtype=np.int64)}])


def stated(
    values: list[str | None], header: str = "x-litellm-overhead-duration-ms"
) -> list[Overhead]:
    reader = source.reader()
    rows = [(None if v is None else json.dumps({header: v}), 900) for v in values]
    reader.add(batch(rows))
    return overheads(reader, frame(len(values)))


def test_a_gateway_states_the_least_that_it_took() -> None:
    [found] = stated(["90.5", "110.5", None])
    assert found.stack.name == "litellm" and found.n == 2
    assert found.mean_ns == pytest.approx(100.5 * MS)
    assert np.isnan(found.ns[2]) and found.ns[0] == pytest.approx(90.5 * MS)
    [said] = caveats([found])
    assert "LiteLLM proxy states in 2 replies" in said.text and "at least" in said.text


def test_what_few_replies_bear_says_nothing_of_all() -> None:
    assert stated(["90.5", None, None]) == []
    assert stated(["no number", "soon", "1"]) == []
    assert stated(["5000", "6000", "7000"]) == []  # longer than the requests took


def test_a_header_that_covers_the_server_is_no_overhead() -> None:
    assert stated(["12", "13"], "x-envoy-upstream-service-time") == []
    [kong] = stated(["12", "13"], "x-kong-proxy-latency")
    assert kong.stack.name == "kong"
