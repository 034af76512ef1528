"""A guess from outside ends with what would measure it, where the stack is known."""

from __future__ import annotations

from typing import Any

import pytest

from latdiag.diagnosis.flags import to_measure


def result(*stacks: str, dominant: str | None = "queue", **entry: Any) -> dict[str, Any]:
    shares = {dominant: {"share": 0.9, **entry}} if dominant else {}
    return {
        "stacks": [{"name": name} for name in stacks],
        "verdict": {"dominant": dominant, "population": "mean"},
        "breakdown": {"mean": {"n": 100, **shares}},
    }


@pytest.mark.parametrize(
    ("stack", "flag"),
    [
        ("vllm", "--otlp-traces-endpoint URL, and --otlp here"),
        ("sglang", "--enable-trace --otlp-traces-endpoint HOST:PORT, and --otlp here"),
        ("dynamo", "OTEL_EXPORT_ENABLED=true"),
        ("fireworks", "'{\"perf_metrics_in_response\": true}'."),
        ("lmdeploy", "leave out --disable-metrics, and --metrics URL of its page here"),
    ],
)
def test_the_flag_of_the_best_channel_is_named(stack: str, flag: str) -> None:
    said = to_measure(result(stack))
    assert said.startswith("To measure it (") and flag in said


def test_an_engine_speaks_of_its_queue_and_the_gateway_before_it_does_not() -> None:
    assert "vLLM" in to_measure(result("envoy", "vllm"))
    assert "Envoy" in to_measure(result("envoy", dominant="gateway"))


def test_merged_classes_and_no_leader_are_asked_after_too() -> None:
    assert "vLLM" in to_measure(result("vllm", dominant="network", members=["network", "queue"]))
    assert "vLLM" in to_measure(result("vllm", dominant=None))


def test_nothing_is_named_where_nobody_is_known_or_can_tell() -> None:
    assert to_measure(result()) == to_measure(result("transformers")) == ""
    assert to_measure(result("a stack of tomorrow")) == ""
