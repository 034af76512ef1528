"""Absolute limits: the end of an interval decides, and what is not measured is never kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run
from tests.unit.compared_runs import load
from tests.unit.saved_probe import save


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return save(tmp_path / "a.run", load(700), designed=False)


def result(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run(["gate", "slo", *args, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_end_of_the_interval_decides(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, made = result(capsys, saved, "--slo", "ttft.p50<1s")
    (limit,) = made["limits"]
    lo, value, hi = (limit[key] / 1e6 for key in ("lo", "value", "hi"))
    assert lo < value < hi
    for bound, code, word in (
        (hi * 1.01, 0, "KEPT"),
        ((value + hi) / 2, 0, "INCONCLUSIVE"),
        ((value + lo) / 2, 0, "INCONCLUSIVE"),
        (lo * 0.99, 14, "BROKEN"),
    ):
        got, made = result(capsys, saved, "--slo", f"ttft.p50<{bound:.6f}ms")
        assert (got, made["verdict"]) == (code, word)
        decided = {"KEPT": hi, "BROKEN": lo}.get(word)
        bound_ns = made["limits"][0]["bound"]
        assert (bound_ns and bound_ns / 1e6) == decided
    got, made = result(capsys, saved, "--slo", "request_rate>1", "--slo", "ttft.p50<1ms")
    assert (got, made["verdict"]) == (14, "BROKEN")


def test_what_is_not_measured_is_never_kept(
    saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, made = result(capsys, saved, "--slo", "ttft.p99.9<10s")
    assert (code, made["limits"][0]["verdict"]) == (0, "INCONCLUSIVE")
    assert made["limits"][0]["why"]
    Path("latdiag.toml").write_text('[gate]\non_inconclusive = "fail"\nslo = "ttft.p99.9<10s"\n')
    code, made = result(capsys, saved)
    assert (code, made["verdict"]) == (11, "INCONCLUSIVE")


def test_presets_by_name_and_no_limit_at_all(
    saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gate", "slo", saved, "--slo", "mlperf:llama3.1-8b"]) in (0, 14)
    assert "ttft.p99<2s" in capsys.readouterr().out.replace("2000ms", "2s")
    assert run(["gate", "slo", saved]) == 2
    assert "no limit is given" in capsys.readouterr().err
    assert run(["gate", "slo", saved, "--slo", "mlperf:llama9"]) == 2


def test_a_run_that_its_client_spoiled_is_invalid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = [replace(each, stage="S10") for each in load(60)]
    late = save(tmp_path / "late.run", replies, designed=False, late_ms=50.0)
    code, made = result(capsys, late, "--slo", "ttft.p50<10s")
    assert (code, made["verdict"]) == (12, "INVALID") and made["reasons"]
