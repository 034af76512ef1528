"""``/metrics`` as vLLM writes it: the same names, types, labels and buckets.

The names are typed out here and checked against recorded replies of vLLM in the tests. Only
``latdiag_demo_*`` is our own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from latdiag.sim.loop import Lateness
from latdiag.sim.params import Params
from latdiag.sim.truth import Visit

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
    240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
_FIRST = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_TOKEN = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
)  # fmt: skip
_LENGTH = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
_LATE_US = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000]

#: name: (buckets, what it is)
_HISTOGRAMS = {
    "time_to_first_token_seconds": (_FIRST, "Arrival of a request to its first token."),
    "inter_token_latency_seconds": (_TOKEN, "Gap between two tokens of a request."),
    "request_time_per_output_token_seconds": (_TOKEN, "Decode time over tokens after the first."),
    "e2e_request_latency_seconds": (_LATENCY, "Arrival of a request to its last token."),
    "request_queue_time_seconds": (_LATENCY, "Accepted by the engine, not yet scheduled."),
    "request_inference_time_seconds": (_LATENCY, "First scheduled to last token."),
    "request_prefill_time_seconds": (_LATENCY, "First scheduled to first token."),
    "request_decode_time_seconds": (_LATENCY, "First token to last token."),
    "request_prompt_tokens": (_LENGTH, "Input tokens of finished requests."),
    "request_generation_tokens": (_LENGTH, "Output tokens of finished requests."),
    "request_params_max_tokens": (_LENGTH, "max_tokens of finished requests."),
}
#: Gauges: name of the exposition, key of Engine.gauges, what it is.
_GAUGES = (
    ("num_requests_running", "running", "Requests in the batch."),
    ("num_requests_waiting", "queued", "Requests that wait to be scheduled, or for their KV."),
    ("kv_cache_usage_perc", "kv_usage", "Share of the KV blocks in use: 1 is all."),
)
#: Counters that the engine keeps: name, key, what it is.
_COUNTERS = (
    ("num_preemptions", "preemptions", "Requests pushed out of the batch."),
    ("prefix_cache_queries", "prefix_queries", "Prompt tokens looked up in the prefix cache."),
    ("prefix_cache_hits", "prefix_hits", "Prompt tokens found in the prefix cache."),
)
_REASONS = ("stop", "length", "abort")


class Histogram:
    """Counts per bucket and the sum of what was observed."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """What a server observed since its process began, at ``created_s`` (seconds since 1970).

    ``before``: counts of the engine (``Engine.gauges``) that an earlier process has told of.
    """

    def __init__(
        self,
        model: str,
        params: Params,
        created_s: float,
        before: Mapping[str, float] | None = None,
    ) -> None:
        self._labels = {"engine": "0", "model_name": model}
        self._params = params
        self._created_s = created_s
        self._before = before or {}
        self._histograms = {name: Histogram(b) for name, (b, _) in _HISTOGRAMS.items()}
        self._reasons = dict.fromkeys(_REASONS, 0)
        self._prompt_tokens = self._generation_tokens = 0

    def token(self, gap_ns: int | None) -> None:
        """A token left, so long after the one before it."""
        self._generation_tokens += 1
        if gap_ns is not None:
            self._histograms["inter_token_latency_seconds"].observe(gap_ns / 1e9)

    def first_token(self, ttft_ns: int, isl: int) -> None:
        self._prompt_tokens += isl
        self._histograms["time_to_first_token_seconds"].observe(ttft_ns / 1e9)

    def aborted(self) -> None:
        self._reasons["abort"] += 1

    def finished(
        self, visit: Visit, times: Mapping[str, int], max_tokens: int, reason: str
    ) -> None:
        """A request came to its end, for one of vLLM's reasons (stop, length). ``times``: see
        ``telemetry.stated``."""
        self._reasons[reason] += 1
        # Of a reply of one token vLLM observes a TPOT of 0.
        tpot = times["decode"] / max(1, visit.osl - 1)
        seen: dict[str, float] = {
            "e2e_request_latency_seconds": times["e2e"] / 1e9,
            "request_queue_time_seconds": times["queue"] / 1e9,
            "request_inference_time_seconds": times["inference"] / 1e9,
            "request_prefill_time_seconds": times["prefill"] / 1e9,
            "request_decode_time_seconds": times["decode"] / 1e9,
            "request_time_per_output_token_seconds": tpot / 1e9,
            "request_prompt_tokens": visit.isl,
            "request_generation_tokens": visit.osl,
            "request_params_max_tokens": max_tokens,
        }
        for name, value in seen.items():
            self._histograms[name].observe(value)

    # ------------------------------------------------------------------ out
    def render(self, gauges: Mapping[str, float]) -> str:
        """The text; ``gauges``: of the engine, now."""
        # As in vLLM, who waits for a KV transfer counts as waiting, by its own reason.
        gauges = {**gauges, "queued": gauges["waiting"] + gauges["transferring"]}
        lines = [*self._gauge_lines(gauges), *self._counter_lines(gauges)]
        for name, histogram in self._histograms.items():
            lines += self._histogram_lines(name, histogram)
        return "\n".join(lines) + "\n"

    def _gauge_lines(self, gauges: Mapping[str, float]) -> Iterator[str]:
        name = "process_start_time_seconds"
        yield from _head(name, "gauge", "When this process began, in seconds since 1970.")
        yield _line(name, {}, self._created_s)
        for name, key, text in _GAUGES:
            yield from _head(f"vllm:{name}", "gauge", text)
            yield _line(f"vllm:{name}", self._labels, gauges[key])
        name = "vllm:num_requests_waiting_by_reason"
        yield from _head(name, "gauge", "Requests that wait, by what they wait for.")
        for reason, key in (("capacity", "waiting"), ("deferred", "transferring")):
            yield _line(name, {**self._labels, "reason": reason}, gauges[key])
        params, name = self._params, "vllm:cache_config_info"
        facts = {
            "block_size": params.block_tokens,
            "enable_prefix_caching": params.prefix_cache,
            "num_gpu_blocks": params.kv_blocks,
        }
        yield from _head(name, "gauge", "The KV cache's configuration.")
        yield _line(name, {"engine": "0"} | {k: str(v) for k, v in facts.items()}, 1)

    def _counter_lines(self, gauges: Mapping[str, float]) -> Iterator[str]:
        for name, key, text in _COUNTERS:
            value = gauges[key] - self._before.get(key, 0)
            yield from self._counter(name, text, [({}, value)])
        yield from self._counter("prompt_tokens", "Input tokens.", [({}, self._prompt_tokens)])
        text = "Output tokens."
        yield from self._counter("generation_tokens", text, [({}, self._generation_tokens)])
        ends = [({"finished_reason": r}, float(n)) for r, n in self._reasons.items()]
        yield from self._counter("request_success", "Requests that came to an end.", ends)

    def _counter(
        self, name: str, text: str, values: Sequence[tuple[dict[str, str], float]]
    ) -> Iterator[str]:
        """A counter and the gauge that says since when it counts, as Prometheus' client does."""
        yield from _head(f"vllm:{name}_total", "counter", text)
        for labels, value in values:
            yield _line(f"vllm:{name}_total", {**self._labels, **labels}, value)
        yield from _head(f"vllm:{name}_created", "gauge", text)
        for labels, _ in values:
            yield _line(f"vllm:{name}_created", {**self._labels, **labels}, self._created_s)

    def _histogram_lines(self, name: str, histogram: Histogram) -> Iterator[str]:
        name, text = f"vllm:{name}", _HISTOGRAMS[name][1]
        yield from _head(name, "histogram", text)
        yield from _buckets(
            name, self._labels, histogram.bounds, list(accumulate(histogram.counts))
        )
        yield _line(f"{name}_sum", self._labels, histogram.total)
        yield from _head(f"{name}_created", "gauge", text)
        yield _line(f"{name}_created", self._labels, self._created_s)


class Own:
    """What the demo says of itself: how late it sent, what it dropped and refused."""

    def __init__(self) -> None:
        self.late = Lateness()
        #: name without prefix, value
        self.counts = {"spans_dropped": 0, "connections_dropped": 0, "requests_refused": 0}

    def render(self) -> str:
        """The text, to be read after a server's or alone."""
        late, name = self.late, "latdiag_demo_emission_lateness_seconds"
        counts = [*late.at_most(_LATE_US), late.n]
        lines = [*_head(name, "histogram", "Token sent minus its instant on the schedule.")]
        lines += _buckets(name, {}, tuple(us / 1e6 for us in _LATE_US), counts)
        lines.append(_line(f"{name}_sum", {}, late.sum_ns / 1e9))
        name = "latdiag_demo_emission_lateness_max_seconds"
        lines += _head(name, "gauge", "The worst of it since the start.")
        lines.append(_line(name, {}, late.max_ns / 1e9))
        for what, value in self.counts.items():
            name = f"latdiag_demo_{what}_total"
            lines += _head(name, "counter", f"{what.replace('_', ' ').capitalize()}.")
            lines.append(_line(name, {}, value))
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _buckets(
    name: str, labels: Mapping[str, str], bounds: tuple[float, ...], counts: Sequence[int]
) -> Iterator[str]:
    """Lines of the buckets and the count. ``counts``: cumulative, one more than bounds."""
    for bound, count in zip((*map(repr, bounds), "+Inf"), counts, strict=True):
        yield _line(f"{name}_bucket", {**labels, "le": bound}, count)
    yield _line(f"{name}_count", labels, counts[-1])


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    if not labels:
        return f"{name} {float(value)!r}"
    inner = ",".join(f'{key}="{_escaped(labels[key])}"' for key in sorted(labels))
    return f"{name}{{{inner}}} {float(value)!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
