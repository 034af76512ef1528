"""The rules against recorded hours: a healthy one, one with too many requests, a blind one.

The requests are those of a recorded vLLM on an H200 (tests/captures/vllm-0.24.0-h200): 16 at a
time while healthy, 256 at a time, more than it serves, in the incident.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from latdiag.dashboards.rules import Targets, alerts
from tests.dashboards_replay import Key, Watch, input_series, requests
from tests.unit.dashboards.test_dashboards import ROOT, promtools

RULES = ROOT / "dashboards" / "latdiag.rules.yaml"
#: Requests of a minute.
EACH_MINUTE = 30
Minute = Callable[[Watch, int], None]


def healthy(watch: Watch, minute: int) -> None:
    _count(watch, "c16", minute)


def _count(watch: Watch, scenario: str, minute: int) -> None:
    begin = minute * EACH_MINUTE
    for request in islice(cycle(requests(scenario)), begin, begin + EACH_MINUTE):
        watch.count(request)
    # As many servers do, it also sends spans that no stack uses.
    watch.add("latdiag_spans_received", EACH_MINUTE)
    watch.add("latdiag_spans_dropped", EACH_MINUTE, reason="unknown")
    watch.add("latdiag_spans_dropped", 0, reason="full")
    watch.add("latdiag_requests", EACH_MINUTE * 5, fate="unknown")
    watch.add("latdiag_requests", 0, fate="partial")


def overloaded(watch: Watch, minute: int) -> None:
    """From minute 60 on the server gets more than it serves; watch says so from minute 63."""
    _count(watch, "c16" if minute < 60 else "overload", minute)
    if minute >= 63:
        watch.set(
            "latdiag_dominant", 1.0,
            component="queue", kind="overloaded", confidence="measured", window="5m",
        )  # fmt: skip


def blind(watch: Watch, minute: int) -> None:
    """From minute 30 on most requests lose spans, from minute 60 on no span comes."""
    if minute < 30:
        _count(watch, "c16", minute)
    elif minute < 60:
        for request in requests("c16")[:8]:
            watch.count(request)
        watch.add("latdiag_spans_received", 22)
        watch.add("latdiag_spans_dropped", 22, reason="full")
        watch.add("latdiag_requests", 22, fate="partial")


def renamed(watch: Watch, minute: int) -> None:
    """From minute 30 on spans bear names that no stack knows."""
    if minute < 30:
        _count(watch, "c16", minute)
    else:
        watch.add("latdiag_spans_received", EACH_MINUTE)
        watch.add("latdiag_spans_dropped", EACH_MINUTE, reason="unknown")
        watch.add("latdiag_requests", EACH_MINUTE, fate="unknown")


def silent(watch: Watch, minute: int) -> None:
    """watch ends at minute 30."""
    if minute >= 30:
        watch.values.clear()
    else:
        _count(watch, "c16", minute)


#: (what happens, minute, alerts that fire then)
CASES: tuple[tuple[Minute, int, set[str]], ...] = (
    (healthy, 59, set()),
    (healthy, 119, set()),
    (overloaded, 59, set()),
    (
        overloaded,
        80,
        {
            "LatdiagWaitingDominates",
            "LatdiagQueueGrows",
            "LatdiagOverloaded",
            "LatdiagFirstTokenTargetMissed1H",
            "LatdiagFirstTokenTargetMissed6H",
        },
    ),
    (blind, 29, set()),
    (blind, 55, {"LatdiagEvidenceLost", "LatdiagSpansDropped"}),
    (blind, 80, {"LatdiagRequestsStopped"}),
    (renamed, 29, set()),
    (renamed, 55, {"LatdiagRequestsStopped"}),
    (silent, 29, set()),
    (silent, 45, {"LatdiagWatchGone"}),
)


def case(story: Minute, minute: int, firing: set[str]) -> dict[str, Any]:
    """A test as ``promtool test rules`` reads it."""
    watch, minutes = Watch(), list[dict[Key, float]]()
    for number in range(minute + 1):
        story(watch, number)
        minutes.append(dict(watch.values))
    return {
        "interval": "1m",
        "input_series": input_series(minutes),
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0',
                "eval_time": f"{minute}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)
                ],
            }
        ],
    }


def outcome(promtool: Path, folder: Path, tests: list[dict[str, Any]]) -> tuple[int, str]:
    path = folder / "test.json"
    path.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests})
    )
    done = subprocess.run(
        [promtool, "test", "rules", path], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(not promtools(), reason="promtool is not installed")
def test_alerts_fire_in_recorded_incidents_and_stay_silent_in_healthy_hours(
    tmp_path: Path,
) -> None:
    for promtool in promtools():
        code, text = outcome(promtool, tmp_path, [case(*one) for one in CASES])
        assert code == 0, text
        # The incident without its alerts: the test of the rules can fail.
        assert outcome(promtool, tmp_path, [case(overloaded, 80, set())])[0] != 0


def test_every_alert_has_an_incident() -> None:
    assert {alert.name for alert in alerts(Targets())} == set().union(*(f for *_, f in CASES))
