"""Examples for production: their command lines are those of our own program, and what one file
calls another by is there."""

from __future__ import annotations

import json
import re
from typing import Any

import click
import pytest

from latdiag.cli import VERBS
from latdiag.cli.group import Verbs
from tests.example_commands import EXAMPLES, command_lines

yaml: Any = pytest.importorskip("yaml")


def parsed(line: list[str]) -> click.Context:
    """Parsed and not run."""
    command = Verbs("latdiag", table=VERBS, what="verb").get_command(click.Context(Verbs(
        "latdiag", table=VERBS, what="verb")), line[0])  # fmt: skip
    assert command is not None, line
    return command.make_context(line[0], line[1:])


LINES = command_lines(yaml)


def test_there_is_a_line_for_each_form() -> None:
    assert [line[0] for line in LINES.values()] == ["watch", "probe", "watch", "watch"]


@pytest.mark.parametrize("name", LINES)
def test_every_command_line_parses(name: str) -> None:
    context = parsed(list(LINES[name]))
    if LINES[name][0] == "watch" and context.params["otlp"].startswith("0.0.0.0"):
        # Doors that are open to others ask for a token, or say that they need none.
        assert context.params["allow_unauthenticated"] or context.params["token_env"]


def test_an_option_that_is_not_there_is_refused() -> None:
    with pytest.raises(click.UsageError):
        parsed(["probe", "http://vllm:8000", "--no-such-option"])


def load(path: str) -> Any:
    return yaml.safe_load((EXAMPLES / path).read_text(encoding="utf-8"))


def test_grafana_finds_its_data_sources_and_dashboards() -> None:
    sources = load("compose/grafana/datasources/latdiag.yaml")["datasources"]
    uids = {one["uid"]: one for one in sources}
    (exemplars,) = uids["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert exemplars["name"] == "trace_id"  # the label of watch's exemplars
    assert exemplars["datasourceUid"] in uids
    services = load("compose/compose.yaml")["services"]
    for one in sources:
        assert (
            re.fullmatch(r"http://(\w+):\d+", one["url"])
            and one["url"].split("/")[2].split(":")[0] in services
        )
    (provider,) = load("compose/grafana/dashboards/latdiag.yaml")["providers"]
    mounts = services["grafana"]["volumes"]
    assert f"../../dashboards:{provider['options']['path']}:ro" in mounts
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (EXAMPLES.parent / "dashboards" / home.rpartition("/")[2]).exists()


def test_prometheus_scrapes_what_the_services_open() -> None:
    services = load("compose/compose.yaml")["services"]
    jobs = load("compose/prometheus.yml")["scrape_configs"]
    targets = [t for job in jobs for each in job["static_configs"] for t in each["targets"]]
    assert all(target.partition(":")[0] in services for target in targets)
    assert any(f"--listen=0.0.0.0:{t.partition(':')[2]}" in services["watch"]["command"]
               for t in targets if t.startswith("watch:"))  # fmt: skip


def test_no_registry_and_no_path_of_a_machine() -> None:
    for path in EXAMPLES.rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".yml", ""):
            text = path.read_text(encoding="utf-8")
            images = re.findall(r"(?:image:|FROM) (\S+)", text)
            assert not [one for one in images if "." in one.partition("/")[0].partition(":")[0]]
            assert "/home/" not in text, path
    assert json.dumps(LINES)
