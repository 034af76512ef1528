"""``latdiag diagnose``: a saved run attributed again, the same each time; every claim on it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run
from latdiag.model.components import COMPONENTS
from tests.schema import validate

from .probe_rows import Reply
from .saved_probe import save
from .test_blackbox import WAITS, probe

#: The path of a run in a result: the only thing that two copies of a run may differ in, but for
#: the last bits of the metrics, whose means are sums in the order of the rows.
_PLACES = ("run", "runs")


pytestmark = pytest.mark.usefixtures("one_diagnosis")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("saved") / "a.run", probe(WAITS))


def said(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    capsys.readouterr()
    assert run(["diagnose", *args]) == code
    return capsys.readouterr().out


def result(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict[str, Any]:
    document = json.loads(said(capsys, *args, "--json", code=code))
    validate(document)
    assert isinstance(document, dict)
    return document


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Everything but where it was read from; attribution to the byte. The stages stand in the
    order in which their runs are named."""
    one, other = ({**each, "stages": _by_name(each)} for each in (one, other))
    for key in one.keys() - {*_PLACES, "metrics"}:
        assert json.dumps(one[key]) == json.dumps(other[key]), key
    left, right = _numbers(one["metrics"]), _numbers(other["metrics"])
    assert left.keys() == right.keys()
    for place, value in left.items():
        if isinstance(value, int | float):
            # An effective n is cut to an integer: its last bits move the interval by one of n.
            rel = 1e-9 if place.endswith(".value") else 0.02
            assert right[place] == pytest.approx(value, rel=rel), place


def _by_name(found: dict[str, Any]) -> list[Any]:
    return sorted(found.get("stages", []), key=lambda stage: str(stage["name"]))


def _numbers(node: Any, place: str = "") -> dict[str, Any]:
    """Every value of a document by its place."""
    if not isinstance(node, dict):
        return {place: node}
    return {
        k: v for key, below in node.items() for k, v in _numbers(below, f"{place}.{key}").items()
    }


def load_rows(n: int = 80) -> list[Reply]:
    """Only a workload, as ``latdiag load`` saves it."""
    work = [r for r in probe((WAITS * 2)[:n]) if r.stage == "S10"]
    return [replace(r, stage="load", scenario="") for r in work]


# ---------------------------------------------------------------------- the same each time
def test_the_result_is_that_of_the_probe(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, saved)
    assert found["verb"] == "diagnose" and found["run"] == saved and "runs" not in found
    mean = found["breakdown"]["mean"]
    assert mean["n"] == 60 and mean["segments"] == 2 and "members" not in mean["queue"]
    assert mean["queue"]["sum_ns"] / 1e6 == pytest.approx(sum(WAITS), rel=0.02)
    assert found["learned"]["step_ms"] == pytest.approx(10.0, rel=0.02)
    assert found["load"]["requests"] == 60, "designed stages are no workload"


def test_twice_gives_the_same_bytes(
    saved: str, capsys: pytest.CaptureFixture[str], _results: dict[Any, Any]
) -> None:
    """Of two diagnoses, each shown in every way."""
    views = (("--json",), (), ("--why", "queue", "--json"))
    rounds = []
    for _ in range(2):
        _results.clear()
        rounds.append([said(capsys, saved, *view) for view in views])
        assert len(_results) == 1
    assert rounds[0] == rounds[1]


def test_neither_writers_nor_the_order_of_their_parts_change_anything(
    tmp_path: Path, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same requests by one writer, by three, and by three whose names sort the other way."""
    rows = probe(WAITS)
    expected = result(capsys, saved)
    for number, writers in enumerate((("a", "b", "c"), ("c", "b", "a"), ("z", "b"))):
        path = save(tmp_path / f"{number}.run", rows[::-1] if number else rows, writers=writers)
        assert_same(result(capsys, path), expected)


def test_several_runs_are_taken_together_in_any_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the workload in each of two runs, an hour apart."""
    monkeypatch.undo()  # each diagnosis anew
    rows = probe(WAITS)
    work = [r for r in rows if r.stage == "S10"]
    one = save(tmp_path / "1.run", [r for r in rows if r not in work[30:]])
    two = save(tmp_path / "2.run", work[30:], since=10**15 + 3600 * 10**9)
    found = result(capsys, one, two)
    assert found["runs"] == [one, two] and found["run"] == one
    assert found["breakdown"]["mean"]["n"] == 60
    assert_same(found, result(capsys, two, one))
    assert_same(found, result(capsys, str(tmp_path / "*.run")))
    assert said(capsys, one, two, "--json") == said(capsys, one, two, "--json")


# ---------------------------------------------------------------------- a run of load
def test_a_load_gives_the_merged_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "l.run", load_rows(), designed=False)
    found = result(capsys, path)
    assert found["breakdown"]["mean"]["queue"]["members"] == [
        "queue", "prefill", "frontend", "gateway",
    ]  # fmt: skip
    assert found["learned"] is None and found["leaves"] == {}
    assert "queue + prefill + frontend + gateway" in said(capsys, path)


# ---------------------------------------------------------------------- exit codes
def test_an_invalid_run_is_12_and_still_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "late.run", probe(WAITS), late_ms=60.0)
    assert said(capsys, path, code=12).startswith("INVALID: ")
    found = result(capsys, path, code=12)
    assert not found["valid"] and found["verdict"]["kind"] == "client_limited"
    assert "INVALID" in said(capsys, path, "--why", "queue", code=12)


@pytest.mark.parametrize(
    ("slo", "code"),
    [("ttft.p50<10s", 0), ("ttft.p50<1ms", 14), ("ttft.p99<10s", 11)],
    ids=["met", "missed", "cannot be told"],
)
def test_objectives_are_judged_as_in_a_load(
    slo: str, code: int, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result(capsys, saved, "--slo", slo, code=code)
    assert [each["slo"] for each in found["slo"]] == [slo]


def test_a_run_of_failures_only_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Reply("load", 100, 10**9 * n, status=500) for n in range(9)]
    path = save(tmp_path / "f.run", rows, designed=False)
    found = result(capsys, path)
    assert found["verdict"]["kind"] == "insufficient" and found["errors"]
    assert "no evidence in this run measures it" in " ".join(
        said(capsys, path, "--why", "decode").split()
    )


def test_what_is_no_run_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    newer = tmp_path / "newer.run"
    newer.mkdir()
    (newer / "run.json").write_text('{"schema": 99}')
    cases = {
        str(tmp_path / "empty"): "is not a run",
        str(tmp_path / "missing.run"): "is not a run",
        str(newer): "of schema 99",
        str(tmp_path / "*.ran"): "nothing matches",
    }
    for path, words in cases.items():
        document = result(capsys, path, code=2)
        assert words in document["error"]["text"] and document["error"]["code"] == "run"
    assert run(["diagnose"]) == 2


def test_runs_that_cannot_be_taken_together_are_2(
    tmp_path: Path, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    load = save(tmp_path / "l.run", load_rows(), designed=False)
    other = save(tmp_path / "b.run", probe(WAITS, seed=2), clock="c2")
    for paths, words in (
        ((saved, saved), "named more than once"),
        ((saved, f"{saved}/"), "named more than once"),
        ((saved, load), "a probe and a load"),
        ((saved, other), "clocks cannot be compared"),
    ):
        error = result(capsys, *paths, code=2)["error"]
        assert words in error["text"] and error["remedy"]


def test_runs_of_different_targets_come_with_a_caveat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = save(tmp_path / "1.run", load_rows(), designed=False)
    two = save(tmp_path / "2.run", load_rows(), designed=False, url="http://127.0.0.2/v1")
    same = save(tmp_path / "3.run", load_rows(), designed=False)
    codes = [c["code"] for c in result(capsys, one, two)["caveats"]]
    assert "LD117" in codes
    assert "LD117" not in [c["code"] for c in result(capsys, one, same)["caveats"]]


def test_a_header_that_says_what_none_says_ends_it_with_the_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "1.run"
    save(path, load_rows(), designed=False)
    header = json.loads((path / "run.json").read_bytes())
    (path / "run.json").write_text(json.dumps(header | {"target": {"url": ["http://a"]}}))
    error = result(capsys, str(path), code=2)["error"]
    assert "1.run/run.json" in error["text"] and "target.url is a list" in error["text"]


# ---------------------------------------------------------------------- --why
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_claim_on_a_component_is_shown_in_79_columns(
    component: str, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, saved, "--why", component)
    assert all(len(line) <= 79 for line in text.splitlines())
    assert text.startswith(component)
    document = result(capsys, saved, "--why", component)
    whole = result(capsys, saved)
    assert document["claims"] == whole["claims"].get(component, [])
    assert set(document) & {"metrics", "breakdown", "verdict"} == set()
    flat = " ".join(text.split())
    for claim in document["claims"]:
        about = document["populations"][claim["population"]]
        assert f"({about['n']} requests in 2 segments)" in flat
        assert claim["evidence"] in flat and (claim["why"] or "") in flat
    assert text.count("  used") == sum(c["used"] for c in document["claims"])
    assert text.count("  lost") == sum(not c["used"] for c in document["claims"])


def test_a_claim_shows_its_share_interval_and_grade(
    saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, saved, "--why", "queue")
    (used, lost) = (c for c in result(capsys, saved, "--why", "queue")["claims"] if c["lo"])
    for word, claim in (("used", used), ("lost", lost)):
        percent, lo, hi = (round(100 * claim[key]) for key in ("share", "lo", "hi"))
        names = re.escape(" + ".join(claim["of"]))
        assert re.search(rf"{word} +{percent} % \[{lo}, {hi}\] +{claim['grade']}  {names}", text)
    tail = text[text.index("slowest 5 %") :]
    assert "insufficient: 3 requests; 30 are needed" in tail and " % [" not in tail


def test_a_merged_component_is_found_by_each_of_its_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "m.run", probe(WAITS, path=80.0))
    claims = result(capsys, path, "--why", "gateway")["claims"]
    assert ["network", "gateway"] in [c["of"] for c in claims if c["used"]]


@pytest.mark.parametrize(
    ("word", "remedy"), [("gpu", "latdiag explain"), ("decode.base", "--why decode")]
)
def test_an_unknown_component_names_the_known_ones(
    word: str, remedy: str, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = result(capsys, saved, "--why", word, code=2)["error"]
    assert all(name in error["text"] for name in COMPONENTS) and remedy in error["remedy"]
    assert error["code"] == "usage"
    # It is said before anything is read.
    assert "no component" in result(capsys, "/nowhere", "--why", "gpu", code=2)["error"]["text"]


# ---------------------------------------------------------------------- the terminal
def test_the_report_shows_what_the_json_holds(
    saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, saved, "--full")
    assert all(len(line) <= 79 for line in text.splitlines())
    flat = " ".join(text.split())
    assert "(60 requests in 2 segments," in flat
    assert "decode.base" in text and "What the probe learned" in text
    assert text.rstrip().endswith(f"Read {saved}")
    assert "insufficient: 3 requests; 30 are needed for an interval" in flat
