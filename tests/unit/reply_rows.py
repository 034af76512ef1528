"""Requests as a client saw them, and what replies state of each: lengths of its wait."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.parts import Parts
from latdiag.attribution.replies.explain import Replied, explain
from latdiag.measurement.frame import Frame, joined
from latdiag.stacks import catalogue

MS = 1_000_000
N = 40
STACKS = catalogue.stacks()


def waits(
    ttft_ms: float = 200.0, stream_ms: float = 300.0, n: int = N, kernel: bool = True
) -> Frame:
    """``n`` requests: 1 ms of client, 2 of network, the rest of TTFT behind the hop, and 1 ms
    from the last token to the end."""
    sent = np.arange(n, dtype=np.int64) * 1000 * MS
    first = sent + round(ttft_ms * MS)
    last = first + round(stream_ms * MS)
    ids = np.array([f"r{i}" for i in range(n)], dtype=object)
    two = np.full(n, 2 * MS)
    columns = {
        "request_id": ids,
        "scenario": np.full(n, "", dtype=object),
        "clock_id": np.full(n, "c", dtype=object),
        "begin": sent,
        "sent": sent,
        "first": first,
        "last": last,
        "done": last + MS,
        "client": np.full(n, MS),
        "network": two,
        "network_lo": two - MS // 2,
        "network_hi": two + MS // 2,
        "kernel": np.full(n, kernel),
    }
    return joined([columns])


def told(seen: Frame, ms: Mapping[str, float], chunks: int = 31) -> tuple[Parts | None, Replied]:
    """The same times in every reply, of 31 chunks: a step takes 10 ms."""
    return said(seen, {name: np.full(seen.n, v * MS) for name, v in ms.items()}, chunks)


def said(
    seen: Frame, times: dict[str, NDArray[np.float64]], chunks: int = 31
) -> tuple[Parts | None, Replied]:
    return explain(seen, times, STACKS, np.full(seen.n, chunks))


def means(parts: Parts | None) -> dict[str, float]:
    """ms a request by component, and that everything adds up."""
    assert parts is not None
    exact(parts)
    return {name: float(column.mean()) / MS for name, column in parts.parts.items()}


def exact(parts: Parts) -> None:
    assert (sum(parts.parts.values()) == parts.total).all()
    early = parts.inside("client_ttft")
    assert (sum(early.values()) == parts.ttft).all()
    for name, column in parts.parts.items():
        assert column.dtype == np.int64
        assert name == "unattributed" or (column >= 0).all(), name
    for less, more in parts.slack.values():
        assert (less >= 0).all() and (more >= 0).all()


VLLM = {
    "metrics.queue_time_ms": 100.0,
    "metrics.time_to_first_token_ms": 80.0,
    "metrics.generation_time_ms": 295.0,
}

FIREWORKS = {
    "server-time-to-first-token": 190.0,
    "server-processing-time": 495.0,
    "tokenizer-queue-duration": 1.0,
    "tokenizer-duration": 4.0,
    "prefill-queue-duration": 60.0,
    "prefill-duration": 120.0,
    "generation-queue-duration": 30.0,
    "generation-duration": 260.0,
}
