"""The dashboards in the repository: as the code makes them, each metric known to somebody."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from latdiag.dashboards.__main__ import DASHBOARDS, files, main
from latdiag.dashboards.rules import Targets, alerts, recordings
from latdiag.watch.metrics import BY_NAME, METRICS
from tests.dashboards_replay import names, samples_of

ROOT = Path(__file__).parents[3]
OURS = {sample: metric for metric in METRICS for sample in samples_of(metric)}
#: Labels that Prometheus adds, and that of a bucket.
ADDED = {"instance", "job", "le"}
EXAMPLES = {
    "$__rate_interval": "1m",
    "$watch": "w1",
    "$model": ".*",
    "$served": ".*",
    "$replica": ".*",
    "$window": "5m",
    "$group": "replica",
    "$slo": "2.5",
}
_SELECTOR = re.compile(r"\b([a-zA-Z_][\w:]*)\{([^{}]*)\}")
_GROUPING = re.compile(r"\b(?:by|on|ignoring|group_left) \(([^()]*)\)")


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def expressions(document: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in panels(document) for target in panel["targets"]]


def filled(expr: str) -> str:
    for name, value in EXAMPLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def metrics_in(expr: str) -> set[str]:
    """Names of metrics: words that are no function, no keyword and no label."""
    bare = re.sub(r"\{[^{}]*\}|\[[^\]]*\]", " ", expr)
    bare = _GROUPING.sub(" ", bare)
    words = set(re.findall(r"[a-zA-Z_][\w:]*(?!\s*\(|\w|:)", bare))
    return words - {"by", "on", "and", "or", "unless", "ignoring", "group_left", "bool"}


ALL = [(one, one.document()) for one in DASHBOARDS]
each_dashboard = pytest.mark.parametrize(
    ("dashboard", "document"), ALL, ids=[one.uid for one, _ in ALL]
)


def test_the_files_are_what_the_code_makes() -> None:
    made = dict(files(Targets()))
    there = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "dashboards").iterdir()}
    assert made == there, "run: python -m latdiag.dashboards dashboards"


@each_dashboard
def test_every_metric_is_exposed_by_watch_or_by_the_stack(dashboard: Any, document: Any) -> None:
    stack = dashboard.uid.removeprefix("latdiag-")
    known = set(OURS) | (set() if stack == "overview" else names(stack))
    for expr in expressions(document):
        assert metrics_in(expr), expr
        assert metrics_in(expr) <= known, expr


@each_dashboard
def test_labels_of_watch_are_those_of_the_table(dashboard: Any, document: Any) -> None:
    for expr in map(filled, expressions(document)):
        for name, matchers in _SELECTOR.findall(expr):
            if name in OURS:
                asked = set(re.findall(r'(\w+)(?:=~|!=|=)"', matchers))
                assert asked <= {*OURS[name].labels, *ADDED}, (name, asked)
                assert "instance" in asked, expr  # one watch at a time


@each_dashboard
def test_nothing_averages_means_or_quantiles(dashboard: Any, document: Any) -> None:
    for expr in expressions(document):
        assert not re.search(r"\bavg\b|avg_over_time|\bquantile\b", expr)
        for inner in re.findall(r"histogram_quantile\(([^,]+), sum by \(([^)]*)\)", expr):
            assert inner[1].split(", ")[0] == "le"
        rates = re.findall(r"\b(?:rate|increase)\([^[]*\[([^\]]*)\]", expr)
        assert set(rates) <= {"$__rate_interval"}, expr
        for counter in re.findall(r"\w+(?:_total|_sum|_count|_bucket)\{[^}]*\}(.)", expr):
            assert counter == "[", expr  # a counter has no meaning without a rate


@each_dashboard
def test_a_panel_says_what_it_shows_and_overlaps_no_other(dashboard: Any, document: Any) -> None:
    assert document["schemaVersion"] >= 39
    assert document["uid"] == dashboard.uid
    assert document["description"].endswith(".")
    all_panels = document["panels"]
    assert len({panel["id"] for panel in all_panels}) == len(all_panels)
    titles = [panel["title"] for panel in all_panels]
    assert len(set(titles)) == len(titles)
    for panel in panels(document):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["legendFormat"]
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            told = re.sub(r"[^\w ]", " ", filled(target["expr"])).split()
            assert labels <= {*told, "kind", "component", "confidence", "model"}, target
    for one, other in itertools.combinations((panel["gridPos"] for panel in all_panels), 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
        assert one["x"] + one["w"] <= 24


@each_dashboard
def test_variables_are_defined_and_used(dashboard: Any, document: Any) -> None:
    defined = {each["name"] for each in document["templating"]["list"]}
    text = json.dumps(document["panels"]) + json.dumps(document["annotations"])
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval"}
    assert used == defined
    for panel in panels(document):
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"


def test_every_metric_of_watch_that_is_seen_in_production_is_drawn() -> None:
    asked = {
        name for _, document in ALL for expr in expressions(document) for name in metrics_in(expr)
    }
    drawn = {metric.name for name, metric in OURS.items() if name in asked}
    # The first is only drawn as annotation and table of changes that hold, not as a count.
    assert set(BY_NAME) - drawn == {"latdiag_changes", "latdiag_start_time_seconds"}


def promtools() -> list[Path]:
    debian = shutil.which("promtool")
    return [Path(debian)] if debian else []


def check_rules(promtool: Path, folder: Path) -> None:
    """Every expression of dashboards and rules, parsed by Prometheus's own parser."""
    all_of_them = [
        *(filled(expr) for _, document in ALL for expr in expressions(document)),
        *(rule.expr for rule in recordings(Targets())),
        *(alert.value for alert in alerts(Targets())),
    ]
    rules = [{"record": f"e{n}", "expr": expr} for n, expr in enumerate(all_of_them)]
    path = folder / "all.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", "--lint=none", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@pytest.mark.skipif(not promtools(), reason="promtool is not installed")
def test_prometheus_parses_every_expression(tmp_path: Path) -> None:
    for promtool in promtools():
        check_rules(promtool, tmp_path)


def test_a_target_that_no_bucket_counts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--ttft-target", "3"]) == 2
    assert "choose one of 0.001, " in capsys.readouterr().err
    assert main([str(tmp_path), "--objective", "0.9"]) == 2
    assert "choose one between 0.931 and 1" in capsys.readouterr().err
    assert main([str(tmp_path / "new"), "--ttft-target", "0.5", "--objective", "0.95"]) == 0
    assert 'le="0.5"' in (tmp_path / "new" / "latdiag.rules.yaml").read_text()
