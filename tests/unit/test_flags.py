"""A guess from outside ends with what would measure it, where the stack is known."""

from __future__ import annotations

import pytest

from latdiag.diagnosis.flags import to_measure
from latdiag.diagnosis.result import Breakdown, Share, Verdict


def flag_of(
    *stacks: str,
    dominant: str | None = "queue",
    members: tuple[str, ...] = (),
    given: tuple[str, ...] = (),
) -> str:
    share = Share(0.9, None, None, 90, "C", "a test", members)
    found = Breakdown("client_e2e", 100, 100, 1, 0, None, {dominant: share} if dominant else {})
    verdict = Verdict(dominant, "mean", "inferred", "bottleneck", "It is so.", "Do this.")
    return to_measure([(name, None) for name in stacks], verdict, {"mean": found}, given)


@pytest.mark.parametrize(
    ("stack", "flag"),
    [
        ("vllm", "--otlp-traces-endpoint URL; then measure with --otlp."),
        ("sglang", "--enable-trace --otlp-traces-endpoint HOST:PORT; then measure with --otlp."),
        ("dynamo", "OTEL_EXPORT_ENABLED=true"),
        ("fireworks", "'{\"perf_metrics_in_response\": true}'."),
        ("lmdeploy", "leave out --disable-metrics; then measure with --metrics URL."),
    ],
)
def test_the_flag_of_the_best_channel_is_named(stack: str, flag: str) -> None:
    said = flag_of(stack)
    assert " report it (" in said and flag in said


def test_an_engine_speaks_of_its_queue_and_the_gateway_before_it_does_not() -> None:
    assert "vLLM" in flag_of("envoy", "vllm")
    assert "Envoy" in flag_of("envoy", dominant="gateway")


def test_merged_classes_and_no_leader_are_asked_after_too() -> None:
    assert "vLLM" in flag_of("vllm", dominant="network", members=("network", "queue"))
    assert "vLLM" in flag_of("vllm", dominant=None)


def test_nothing_is_named_where_nobody_is_known_or_can_tell() -> None:
    assert flag_of() == flag_of("transformers") == ""
    assert flag_of("a stack of tomorrow") == ""


def test_what_was_given_is_not_asked_for() -> None:
    assert "--otlp-traces-endpoint" not in flag_of("vllm", given=("spans",))
    assert flag_of("vllm", given=("spans", "replies", "metrics")) == ""
