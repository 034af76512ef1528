"""What recorded spans add up to, per scenario and role, by the standard library alone."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

#: The captures in the repository, or others of the same form.
CAPTURES = Path(os.environ.get("LATDIAG_CAPTURES") or Path(__file__).parents[1] / "captures")

#: gen_ai attributes of vLLM's span by our word for them.
VLLM = {
    "queue": "gen_ai.latency.time_in_queue",
    "prefill": "gen_ai.latency.time_in_model_prefill",
    "decode": "gen_ai.latency.time_in_model_decode",
    "e2e": "gen_ai.latency.e2e",
    "ttft": "gen_ai.latency.time_to_first_token",
}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        for line in file:
            yield json.loads(line)


@cache
def scenarios(folder: Path) -> dict[str, str]:
    """Scenario by trace id, of every request of a capture."""
    return {row["trace_id"]: row["scenario"] for row in lines(folder / "client.jsonl.gz")}


def spans(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(span, attributes as plain values) of every span of a capture."""
    for export in lines(folder / "spans.otlp.jsonl.gz"):
        for resource in export["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    yield span, {a["key"]: _plain(a["value"]) for a in span.get("attributes", ())}


def _plain(value: dict[str, Any]) -> Any:
    (kind, inner), *_ = value.items()
    return int(inner) if kind == "intValue" else inner


@cache
def vllm_sums(folder: Path) -> dict[tuple[str, str], Counter[str]]:
    """Seconds by (scenario, role): sums of the attributes over the ``llm_request`` spans. With
    two spans in a trace the one of a single token is the prefill server's."""
    traces = scenarios(folder)
    held: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for span, attributes in spans(folder):
        if span["name"] == "llm_request" and span["traceId"] in traces:
            held[span["traceId"]].append(attributes)
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for trace, mine in held.items():
        for attributes in mine:
            role = "unified"
            if len(mine) > 1:
                one = attributes["gen_ai.usage.completion_tokens"] == 1
                role = "prefill" if one else "decode"
            sums = found[traces[trace], role]
            sums["n"] += 1
            for word, name in VLLM.items():
                sums[word] += attributes.get(name, 0.0)
    return found


def sglang_sums(folder: Path) -> dict[str, Counter[str]]:
    """Seconds by scenario: sums of the durations of spans by their name."""
    traces = scenarios(folder)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for span, _ in spans(folder):
        scenario = traces.get(span["traceId"])
        if scenario is not None:
            took = int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])
            found[scenario][span["name"]] += took / 1e9
            found[scenario]["n " + span["name"]] += 1
    return found
