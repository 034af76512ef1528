"""A real Prometheus scrapes a real ``latdiag watch``, which gets recorded spans of a vLLM as if
they came now: ``pytest -m live tests/live/test_watch_scraped.py``."""

from __future__ import annotations

import gzip
import json
import secrets
import threading
import time
import urllib.request
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from latdiag.dashboards.rules import SHARE, Targets, alerts, recordings
from tests.dashboards_replay import CAPTURES
from tests.live.test_dashboards import ALL, built, expressions, panel, prometheus, value
from tests.live.test_dashboards import without_data as lacking
from tests.live.test_production_examples import ports, running, watch

pytestmark = pytest.mark.live

EACH_SECOND = 25
#: Absent until something happens that does not happen here.
EVENTS = (
    *("latdiag_change_seconds", "latdiag_sampled_ratio", "latdiag_forwarded_exports"),
    *("latdiag_labels_folded", "latdiag_series_refused", "latdiag_spans_dropped"),
    *('kind="overloaded"', "absent("),
)
_KINDS = {"SPAN_KIND_SERVER": 2}


def spans() -> list[dict[str, Any]]:
    """Resource and spans of each request of the capture, in OTLP/JSON."""
    path = CAPTURES / "vllm-0.24.0-h200" / "tp1" / "spans.otlp.jsonl.gz"
    found = []
    for line in gzip.decompress(path.read_bytes()).splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    if span["name"] == "llm_request":
                        one = {"resource": resource["resource"], "scope": scope["scope"]}
                        found.append({**one, "span": span | {"kind": _KINDS[span["kind"]]}})
    return found


def now(one: dict[str, Any]) -> dict[str, Any]:
    """As a request that ends now, of a trace of its own."""
    span = one["span"]
    took = int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])
    end = time.time_ns()
    new = {
        "traceId": secrets.token_hex(16),
        "spanId": secrets.token_hex(8),
        "parentSpanId": "",
        "startTimeUnixNano": str(end - took),
        "endTimeUnixNano": str(end),
    }
    return {
        "resource": one["resource"],
        "scopeSpans": [{"scope": one["scope"], "spans": [span | new]}],
    }


def send(port: int, over: threading.Event) -> None:
    requests = cycle(spans())
    while not over.wait(1):
        body = {"resourceSpans": [now(one) for one in islice(requests, EACH_SECOND)]}
        call = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/traces",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(call, timeout=30).close()


def test_the_overview_and_the_rules_show_a_live_watch(tmp_path: Path) -> None:
    grpc, http, metrics = ports(3)
    command = watch(grpc, metrics)
    command[command.index("off")] = f"127.0.0.1:{http}"
    (overview,) = (document for one, document in ALL if one.uid == "latdiag-overview")
    wanted = [panel(expr).replace('"w1"', f'"127.0.0.1:{metrics}"') for expr in
              expressions(overview)]  # fmt: skip
    wanted += [rule.record for rule in recordings(Targets())]
    wanted += [alert.value for alert in alerts(Targets())]
    wanted = [one for one in wanted if not any(event in one for event in EVENTS)]
    jobs = [
        {
            "job_name": "latdiag",
            "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}],
        }
    ]
    over = threading.Event()
    sender = threading.Thread(target=send, args=(http, over))
    with running(command, metrics, tmp_path / "watch"):
        sender.start()
        try:
            with prometheus(built("prometheus"), tmp_path, jobs) as address:
                missing = lacking(address, wanted, 240)
                whole = value(address, f'sum by (interval) ({SHARE}{{interval="request"}})')
                query = "query=latdiag_ttft_seconds_bucket&start=0&end=9999999999"
                with urllib.request.urlopen(
                    f"http://{address}/api/v1/query_exemplars?{query}", timeout=30
                ) as reply:
                    traces = json.load(reply)["data"]
        finally:
            over.set()
            sender.join()
    assert missing == []
    assert whole and all(one == pytest.approx(1, abs=1e-6) for one in whole)
    assert all(len(one["labels"]["trace_id"]) == 32 for s in traces for one in s["exemplars"])
    assert traces
