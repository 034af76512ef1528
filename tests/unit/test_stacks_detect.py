"""Detection: certain signs, vague ones, layers, and whatever anybody may send."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.stacks import detect as d
from latdiag.stacks.catalogue import built_in, stack
from latdiag.stacks.detect import Signs, detect, state, tells
from latdiag.stacks.signal import Mark, Stack, of

GATE = Stack("gate", "Gate", "gateway", "documented", "1", (), (Mark("header", "via: gate"),))
ENGINE = Stack(
    "a_engine",
    "Engine",
    "engine",
    "documented",
    "1",
    (),
    (
        Mark("models", "someone", certain=False),
        Mark("header", "server: thing", certain=False),
        Mark("version", r"(?P<version>[\d.]+)"),
        Mark("metric", "thing:.*"),
    ),
)


def _names(signs: Signs) -> list[str]:
    return [found.stack.name for found in detect(signs, (ENGINE, GATE))]


def test_one_vague_sign_finds_nothing_two_do() -> None:
    owner, server = frozenset({"someone"}), frozenset({"server: thing"})
    assert _names(Signs(models=owner)) == []
    assert _names(Signs(headers=server)) == []
    assert _names(Signs(models=owner, versions=frozenset({"1.2"}))) == []
    (found,) = detect(Signs(models=owner, headers=server), (ENGINE,))
    assert not found.certain and len(found.because) == 2


def test_a_version_is_told_but_is_no_sign() -> None:
    assert _names(Signs(versions=frozenset({"1.2"}))) == []
    signs = Signs(versions=frozenset({"1.2"}), metrics=frozenset({"thing:x"}))
    assert [found.version for found in detect(signs, (ENGINE,))] == ["1.2"]


def test_a_gateway_stands_before_an_engine() -> None:
    signs = Signs(headers=frozenset({"via: gate"}), metrics=frozenset({"thing:x"}))
    assert _names(signs) == ["gate", "a_engine"]


@pytest.mark.parametrize(
    "headers", [[("server", "uvicorn")], [("server", "gunicorn")], [("x-request-id", "1")], []]
)
def test_what_half_of_all_servers_send_is_no_sign(headers: list[tuple[str, str]]) -> None:
    signs = Signs(headers=d.of_headers(headers), versions=frozenset({"1.0"}))
    assert detect(signs, built_in()) == []


@pytest.mark.parametrize(
    ("name", "value", "gateway"),
    [
        ("Server", "nginx/1.22.1", "nginx"),
        ("server", "openresty", "nginx"),
        ("server", "envoy", "envoy"),
        ("x-envoy-upstream-service-time", "12", "envoy"),
        ("x-litellm-version", "1.108.7", "litellm"),
        ("via", "kong/3.6.1", "kong"),
        ("Server", "kong/2.8.0", "kong"),
        ("X-Kong-Proxy-Latency", "4", "kong"),
        ("x-portkey-trace-id", "6f1c", "portkey"),
        ("x-amz-apigw-id", "XxxXXXxx=", "aws_api_gateway"),
        ("apigw-requestid", "XxxXXXxx=", "aws_api_gateway"),
        ("CF-Ray", "8f0-FRA", "cloudflare"),
        ("via", "1.1 google", "google_front_end"),
        ("via", "1.1 varnish, 1.1 Caddy", "caddy"),
        ("via", "1.1 haproxy", "haproxy"),
    ],
)
def test_a_gateway_is_named_by_what_its_replies_bear(name: str, value: str, gateway: str) -> None:
    found = detect(Signs(headers=d.of_headers([(name, value)])), built_in())
    assert [one.stack.name for one in found] == [gateway]
    assert found[0].stack.layer == "gateway"


@pytest.mark.parametrize("value", ["1.1 varnish", "1.1 proxy.example", "HTTP/1.1 gw"])
def test_a_way_that_names_nobody_is_nobody(value: str) -> None:
    assert detect(Signs(headers=d.of_headers([("via", value)])), built_in()) == []


def test_a_switch_is_on_off_or_unknown() -> None:
    vllm = stack("vllm")
    spans, metrics, replies = vllm.switches[:3]
    nothing, asked = Signs(), Signs(looked=frozenset({"metrics"}))
    seen = Signs(metrics=frozenset({"vllm:request_queue_time_seconds"}))
    assert state(metrics, vllm, nothing) == "unknown"
    assert state(metrics, vllm, asked) == "off"
    assert state(metrics, vllm, seen) == "on"
    assert state(spans, vllm, asked) == "unknown"
    assert state(spans, vllm, Signs(spans=frozenset({"llm_request"}))) == "on"
    assert state(replies, vllm, Signs(replies=frozenset({"metrics.queue_time_ms"}))) == "on"


def test_what_would_measure_a_component_is_named() -> None:
    flags = [switch.flag for switch in tells(stack("vllm"), of("queue"))]
    assert any("otlp-traces-endpoint" in flag for flag in flags)
    assert any("per-request-metrics" in flag for flag in flags)
    assert tells(stack("transformers"), of("queue")) == []


def test_counters_go_by_both_of_their_names() -> None:
    text = "# HELP a b\n# TYPE a counter\na_total 1\n# TYPE b_total counter\n# TYPE c histogram\n"
    assert d.of_exposition(text) == {"a", "a_total", "b_total", "c"}


def test_the_text_of_a_reply_is_no_sign() -> None:
    secret = "the answer that somebody got"
    chunk = {"choices": [{"delta": {"content": secret}}], "system_fingerprint": "vllm-1.2-ab"}
    signs = d.of_reply(chunk)
    assert secret not in " ".join(signs)
    assert {"choices.delta.content", "system_fingerprint: vllm-1.2-ab"} <= signs


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=30), inner),
    max_leaves=30,
)


@given(document=JSON, text=st.text(max_size=400))
def test_nothing_that_is_sent_breaks_it(document: object, text: str) -> None:
    signs = Signs(
        models=d.of_models(document),
        headers=d.of_headers([(text, text)]),
        metrics=d.of_exposition(text),
        replies=d.of_reply(document),
        versions=d.of_version(document),
    )
    assert all(len(each) <= 200 for each in signs.headers | signs.replies | signs.models)
    assert isinstance(detect(signs, built_in()), list)


def test_a_deep_or_wide_reply_is_bounded() -> None:
    deep: object = 1
    for _ in range(900):
        deep = [{"a": deep}]
    wide = {f"k{i}": {f"j{j}": 1 for j in range(100)} for i in range(100)}
    assert len(d.of_reply(deep)) <= 6
    assert len(d.of_reply(wide)) <= 502
    assert d.of_models({"data": [{"owned_by": "x" * 10_000}, {"owned_by": 3}, "no"]}) == set()
    assert json.dumps(sorted(d.of_models({"data": [{"owned_by": "vllm"}]}))) == '["vllm"]'
