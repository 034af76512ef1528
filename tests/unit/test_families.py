"""Metrics of stacks as others expose them again: Ray, OpenTelemetry, Prometheus itself."""

from __future__ import annotations

import pytest

from latdiag.ingest.prometheus.exposition import read_exposition
from latdiag.stacks import detect
from latdiag.stacks.catalogue import families
from latdiag.stacks.families import kind_of, known_name

VLLM = "vllm:time_to_first_token_seconds"


@pytest.mark.parametrize(
    ("exposed", "known"),
    [
        (f"{VLLM}_bucket", f"{VLLM}_bucket"),
        ("ray_vllm_time_to_first_token_seconds_bucket", f"{VLLM}_bucket"),
        ("ray_vllm:time_to_first_token_seconds_sum", f"{VLLM}_sum"),
        ("vllm_time_to_first_token_seconds_count", f"{VLLM}_count"),
        ("my_otel_collector_vllm_time_to_first_token_seconds", VLLM),
        ("ray_vllm_prompt_tokens_total", "vllm:prompt_tokens_total"),
        ("ray_vllm_prompt_tokens", "vllm:prompt_tokens"),
        ("ray_sglang_time_to_first_token_seconds_bucket", None),
        ("myapp_process_start_time_seconds", None),
        ("time_to_first_token_seconds_bucket", None),
        ("vllmtime_to_first_token_seconds", None),
        ("", None),
        ("_" * 4000, None),
    ],
)
def test_a_family_behind_a_prefix_is_known(exposed: str, known: str | None) -> None:
    found = known_name(exposed, families())
    if exposed.startswith("ray_sglang") and found is not None:
        assert found.startswith("sglang:")
    else:
        assert found == known


def test_every_family_is_known_as_it_is_and_behind_rays_prefix() -> None:
    for family in families():
        assert known_name(family, families()) == family
        ray = "ray_" + family.replace(":", "_")
        if family.count("_") + family.count(":") >= 2 and not family.startswith(
            ("process", "agent")
        ):
            assert known_name(ray, families()) == family


HISTOGRAM = [
    ("_bucket", 'le="0.1"', 1),
    ("_bucket", 'le="+Inf"', 3),
    ("_sum", "", 0.5),
    ("_count", "", 3),
]


@pytest.mark.parametrize("name", [VLLM, "ray_vllm_time_to_first_token_seconds"])
@pytest.mark.parametrize("typed", ["untyped", "unknown", "", "each"])
@pytest.mark.parametrize("stamp", ["", " 1764518400000"])
def test_types_that_nobody_states_are_the_stacks(name: str, typed: str, stamp: str) -> None:
    """As /federate of Prometheus says it, of VictoriaMetrics, and of others."""
    lines = [f"# TYPE {name} {typed}"] if typed not in ("", "each") else []
    for suffix, le, value in HISTOGRAM:
        lines += [f"# TYPE {name}{suffix} untyped"] if typed == "each" else []
        labels = ",".join(each for each in ('engine="0"', 'job="vllm"', le) if each)
        lines.append(f"{name}{suffix}{{{labels}}} {value}{stamp}")
    text = "\n".join([*lines, ""])
    said = read_exposition(text, families())
    assert [(one.kind, one.name, one.value, one.counts) for one in said.series] == [
        ("histogram", VLLM, 0.5, [1, 3])
    ]
    assert not said.dropped
    assert VLLM in detect.of_exposition(text)


def test_a_stack_shows_itself_behind_a_prefix() -> None:
    text = "".join(
        f"ray_vllm_{name} 1\n" for name in ("num_requests_running", "num_requests_waiting")
    )
    signs = detect.Signs(metrics=detect.of_exposition(text), looked=frozenset({"metrics"}))
    assert "vllm" in [found.stack.name for found in detect.detect(signs)]


def test_kinds_are_those_of_the_stacks() -> None:
    assert kind_of(VLLM) == "histogram"
    assert kind_of("vllm:prompt_tokens_total") == "counter"
    assert kind_of("nobody_knows_it") == ""
