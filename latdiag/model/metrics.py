"""Every metric that latdiag prints, defined once: reports, SLOs, exports and help read this table.

A per-request interval is data: ``start`` and ``end`` name instants of a row, and the metric is
``end - start`` in nanoseconds. Instants: ``due`` (open loop only), ``sent`` (the client began to
work on the request), ``wire`` (kernel transmit stamp of its first segment), ``first_output`` and
``first_answer`` (first arrival of ``OUTPUT_KINDS``, of ``ANSWER_KINDS``), ``done`` (last content
or usage byte). The other metrics are computed by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from latdiag.model.errors import UsageFault

Unit = Literal["ms", "tok/s", "req/s", "share"]
Instant = Literal["due", "sent", "wire", "first_output", "first_answer", "done"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One definition. ``unit`` is what people see; inside, a duration is in nanoseconds.

    ``per`` says what one value belongs to: a request, a gap between two arrivals, or the run.
    ``start`` and ``end`` are set where the metric is a difference of two instants of a row;
    ``ok_only`` where rows that failed must not be mixed in.
    """

    name: str
    title: str
    unit: Unit
    better: Literal["lower", "higher"]
    per: Literal["request", "gap", "run"]
    formula: str
    meaning: str
    start: Instant | None = None
    end: Instant | None = None
    ok_only: bool = False


METRICS = (
    Metric(
        "ttft",
        "Time to first token",
        "ms",
        "lower",
        "request",
        "first output arrival - sent",
        "From the moment the client starts work on a request until the first arrival that"
        " contains output (reasoning, answer, tool call or refusal; a role-only or empty first"
        " event does not count). Connecting is included, as in aiperf and vllm bench; vllm"
        " bench has counted a role-only event as the first token, and inference-perf leaves"
        " reasoning out.",
        start="sent",
        end="first_output",
    ),
    Metric(
        "ttft_from_due",
        "Time to first token, from schedule",
        "ms",
        "lower",
        "request",
        "first output arrival - due",
        "Like ttft, but from the time at which the schedule wanted the request sent, so a late"
        " client cannot hide. Open loop only; MLPerf LoadGen measures TTFT this way.",
        start="due",
        end="first_output",
    ),
    Metric(
        "ttft_wire",
        "Time to first token, kernel to kernel",
        "ms",
        "lower",
        "request",
        "first output arrival - transmit stamp of the request's first segment",
        "Network path and server only, without connecting and without the client's own work:"
        " the most that a server can be blamed for. Needs kernel transmit stamps.",
        start="wire",
        end="first_output",
    ),
    Metric(
        "ttft_answer",
        "Time to first token of the answer",
        "ms",
        "lower",
        "request",
        "first arrival of answer, tool call or refusal - sent",
        "What a reader waits for if the model reasons first; equal to ttft without reasoning."
        " inference-perf prints this as TTFT, aiperf prints it separately as TTFO.",
        start="sent",
        end="first_answer",
    ),
    Metric(
        "tpot",
        "Time per output token",
        "ms",
        "lower",
        "request",
        "(last output arrival - first output arrival) / (tokens that arrived - tokens of the first"
        " arrival); OSL - 1 if tokens per arrival are unknown; needs two output arrivals and"
        " OSL >= 2",
        "One mean per request, without its first token. aiperf calls this figure ITL;"
        " guidellm's TPOT includes TTFT and divides by all tokens.",
        ok_only=True,
    ),
    Metric(
        "itl",
        "Inter-token latency",
        "ms",
        "lower",
        "gap",
        "gap between consecutive output arrivals, if the later one brought exactly one token",
        "Every gap is one value, pooled over all requests; never a mean. Arrivals that bring"
        " several tokens are counted and left out, not divided. vllm bench, evalscope and"
        " others call every gap between chunks ITL: that is icl here.",
    ),
    Metric(
        "icl",
        "Inter-chunk latency",
        "ms",
        "lower",
        "gap",
        "gap between consecutive output arrivals, however many tokens they brought",
        "What the wire shows. It is smoother or burstier than the tokens if a server or proxy"
        " bundles them; a gap next to a coalesced read is left out.",
    ),
    Metric(
        "e2e",
        "End-to-end latency",
        "ms",
        "lower",
        "request",
        "done - sent",
        "Until the last content or usage byte of a request that succeeded. Failed requests are"
        " counted in errors and not mixed in.",
        start="sent",
        end="done",
        ok_only=True,
    ),
    Metric(
        "response_time",
        "Response time, from schedule",
        "ms",
        "lower",
        "request",
        "done - due",
        "Like e2e, but from the time at which the schedule wanted the request sent. Open loop"
        " only; tools without it leave out the wait of a client that could not keep up.",
        start="due",
        end="done",
        ok_only=True,
    ),
    Metric(
        "schedule_lag",
        "Schedule lag",
        "ms",
        "lower",
        "request",
        "sent - due",
        "How late the client itself was. A large lag makes a run invalid: its load was not the"
        " load that was asked for.",
        start="due",
        end="sent",
    ),
    Metric(
        "output_throughput",
        "Output throughput",
        "tok/s",
        "higher",
        "run",
        "sum of OSL over requests that succeeded / (last done - first sent)",
        "Tokens per second over the whole run, including ramp and drain. Tools that cut out a"
        " steady window, or count tokens of failed requests, print more.",
    ),
    Metric(
        "request_rate",
        "Request rate",
        "req/s",
        "higher",
        "run",
        "requests that succeeded / (last done - first sent)",
        "What was served, not what was offered.",
    ),
    Metric(
        "goodput",
        "Goodput",
        "req/s",
        "higher",
        "run",
        "requests that succeeded and met every per-request SLO / (last done - first sent)",
        "Needs at least one SLO on a per-request metric. A request with one token has no TPOT"
        " and cannot miss a limit on it.",
    ),
    Metric(
        "slo_attainment",
        "SLO attainment",
        "share",
        "higher",
        "run",
        "requests that met every per-request SLO / requests for which that is known",
        "Failed requests count as missed. Requests during a clock step, or whose decisive time"
        " stamp is uncertain, are left out and counted.",
    ),
    Metric(
        "errors",
        "Failed requests",
        "share",
        "lower",
        "run",
        "requests whose outcome is not ok / all requests",
        "Rejections under load (429), HTTP errors, timeouts, cut streams, and requests that"
        " were in flight when the client stopped. Tools that drop them from their figures make"
        " a server that refuses work look fast.",
    ),
)

_BY_NAME = MappingProxyType({m.name: m for m in METRICS})


def metric(name: str) -> Metric:
    """The metric called ``name``; UsageFault names the nearest ones where there is none."""
    found = _BY_NAME.get(name)
    if found is None:
        from difflib import get_close_matches

        near = get_close_matches(name, _BY_NAME, n=3, cutoff=0.5) or list(_BY_NAME)
        raise UsageFault(f"there is no metric called {name!r}", f"try {', '.join(near)}")
    return found


def _mlperf(ttft_ms: int, tpot_ms: int) -> tuple[str, ...]:
    return (f"ttft.p99<{ttft_ms}ms", f"tpot.p99<{tpot_ms}ms")


#: Named sets of objectives. MLPerf Inference, Server and Interactive scenarios: the p99 limits of
#: loadgen/mlperf.conf in mlcommons/inference at b66003e1. LoadGen counts TTFT from the scheduled
#: instant; in a run that is valid here, that is within a millisecond of ``ttft``.
SLO_PRESETS = MappingProxyType(
    {
        "mlperf:llama2-70b": _mlperf(2000, 200),
        "mlperf:llama2-70b-interactive": _mlperf(450, 40),
        "mlperf:llama3.1-405b": _mlperf(6000, 175),
        "mlperf:llama3.1-405b-interactive": _mlperf(4500, 80),
        "mlperf:llama3.1-8b": _mlperf(2000, 100),
        "mlperf:llama3.1-8b-interactive": _mlperf(500, 30),
        "mlperf:deepseek-r1": _mlperf(2000, 80),
        "mlperf:deepseek-r1-interactive": _mlperf(1500, 15),
        "mlperf:gpt-oss-120b": _mlperf(3000, 80),
        "mlperf:gpt-oss-120b-interactive": _mlperf(2000, 15),
    }
)
