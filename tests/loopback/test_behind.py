"""``latdiag probe URL --behind URL2``: one verdict from a gateway and the server behind it."""

from __future__ import annotations

import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run
from latdiag.sim.demo import serving
from latdiag.sim.params import FAULTS, Params
from latdiag.store.run import Run
from tests.schema import validate

Captured = pytest.CaptureFixture[str]
#: Of the end-to-end time: what the difference of two runs and the ends of events may be off by.
CLOSE = 0.03


def truth_of(place: Path, run_path: Path) -> tuple[float, float]:
    """(The gateway's share of the end-to-end time of the workload, the engine's), by their own
    accounts of these very requests."""
    gateway = {
        one["request_id"]: one["gateway_ns"]
        for one in map(json.loads, Path(f"{place}.gateway").read_text().splitlines())
    }
    engine = {
        one["request_id"]: sum(one["leaves"].values())
        for one in map(json.loads, place.read_text().splitlines())
    }
    whole = front = behind = 0
    for row in Run.open(str(run_path)).frame().to_dict("records"):
        if row["stage"] == "S10" and row["outcome"] == "ok":
            whole += int(row["done_ns"]) - min(int(row["due_ns"]), int(row["sent_ns"]))
            front += gateway[row["request_id"]]
            behind += engine[row["request_id"]]
    return front / whole, behind / whole


@pytest.mark.parametrize("fault", ["gateway", "gateway-tokens"])
def test_what_is_in_front_is_the_difference(fault: str, tmp_path: Path, capsys: Captured) -> None:
    place, saved = tmp_path / "truth.jsonl", tmp_path / "x.run"
    with serving(FAULTS[fault], truth=place) as demo:
        code = run(["probe", demo.url, "--behind", str(demo.behind), "-o", str(saved), "--json"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    validate(result)
    assert result["target"]["behind"].startswith(str(demo.behind))
    front, behind = truth_of(place, saved)
    whole = result["breakdown"]["mean"]
    mean = {name: part for name, part in whole.items() if isinstance(part, dict)}
    assert sum(part["sum_ns"] for part in mean.values()) == whole["total_ns"]
    gateway = mean["gateway"]
    assert gateway["lo"] - CLOSE <= front <= gateway["hi"] + CLOSE
    others = [part["share"] for name, part in mean.items() if name not in ("client", "gateway")]
    assert sum(others) == pytest.approx(behind, abs=CLOSE)
    stages = Counter(row["stage"] for row in Run.open(str(saved)).frame().to_dict("records"))
    assert stages["S10"] == stages["S11"] == result["load"]["requests"] > 30
    if code == 12:
        assert result["verdict"]["kind"] == "client_limited" and result["invalid_because"]
        return
    assert code == 0 and result["verdict"]["dominant"] == "gateway"
    assert not mean["gateway"].get("members")
    # What was done is not asked for.
    assert "--behind" not in result["verdict"]["next"]
    assert "LD402" not in {each["code"] for each in result["caveats"]}
    assert run(["diagnose", str(saved), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["breakdown"] == result["breakdown"]


def refused(argv: list[str], capsys: Captured, code: int, *words: str) -> None:
    assert run(["probe", *argv]) == code
    error = capsys.readouterr().err
    assert all(word in error for word in words), error


@pytest.mark.parametrize("other", ["http://127.0.0.1:{}", "localhost:{}/v1", "127.0.0.1:{}/v1/"])
def test_one_endpoint_named_twice(other: str, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "x.run"
    argv = ["http://127.0.0.1:9/v1", "--behind", other.format(9), "-o", str(out)]
    refused(argv, capsys, 2, "--behind names the target itself", "passes requests on to")
    assert not out.exists()


def test_two_dialects(capsys: Captured) -> None:
    argv = ["http://127.0.0.1:9/v1/completions", "--behind", "http://127.0.0.1:8"]
    refused(argv, capsys, 2, "/v1/completions", "/v1/chat/completions", "--path")


def test_behind_nothing_listens(tmp_path: Path, capsys: Captured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    out = tmp_path / "x.run"
    with serving(Params()) as demo:
        argv = [demo.url, "--behind", f"http://127.0.0.1:{port}", "-o", str(out)]
        refused(argv, capsys, 15, f"127.0.0.1:{port}")
    assert not out.exists()


def test_two_models(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "x.run"
    with serving(Params()) as one, serving(Params(), model="another") as other:
        argv = [one.url, "--behind", other.url, "-o", str(out)]
        refused(argv, capsys, 2, "'demo'", "'another'", "--model")
    assert not out.exists()


def test_what_is_no_url(capsys: Captured) -> None:
    for other in ("ftp://x", "", "http://"):
        refused(["http://127.0.0.1:9", "--behind", other], capsys, 2, "not an http or https URL")
