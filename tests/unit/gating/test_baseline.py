"""Runs that are recorded, pinned, dropped, and what a later run is compared with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latdiag.cli import run
from latdiag.gate.baseline.history import against_all, compared, exit_code
from latdiag.gate.baseline.record import METRICS, Figures, Record, from_file, to_file
from latdiag.gate.baseline.shelf import add, comparable, pin, shelf_of
from latdiag.gate.baseline.stores import RUNS, Store, open_store
from latdiag.gate.settings import Settings
from latdiag.model.errors import RunFault, UnlikeRuns, UsageFault
from latdiag.store.place import ArrowPlace
from tests.profiles import repetitions
from tests.unit.compared_runs import load
from tests.unit.saved_probe import save

KIND = {"model": "m", "gpu": "H100", "rate": "4.0"}


def record(number: int, factor: float = 1.0, sigma: float = 0.03, **kind: str) -> Record:
    """A run of which every time is ``factor`` and the day's own by ``sigma``."""
    random = np.random.default_rng(number)
    day = factor * math.exp(sigma * random.standard_normal())
    figures = {}
    for metric, usual in zip(METRICS, (50e6, 10e6, 10e6, 400e6), strict=True):
        values = np.sort(usual * day * random.lognormal(0, 0.2, 400))
        quantiles = tuple(int(values[min(399, 4 * at)]) for at in range(101))
        logs = np.log(values)
        figures[metric] = Figures(400, float(logs.mean()), quantiles, tuple(logs[:10].tolist()))
    made = f"2026-01-{number % 28 + 1:02}T10:{number // 28:02}:00+00:00"
    return Record(f"{number:032x}", made, f"c{number}", 400, {**KIND, **kind}, figures)


def folder(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "baselines"))


def arrow(tmp_path: Path) -> Store:
    """Any filesystem of pyarrow."""
    import pyarrow.fs

    held = pyarrow.fs._MockFileSystem()
    for name in ("runs", "anchors"):
        held.create_dir(f"store/{name}", recursive=True)
    return ArrowPlace(held, "store", "mock://store")


@pytest.fixture(params=[folder, arrow])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    make: Callable[[Path], Store] = request.param
    return make(tmp_path)


def test_a_record_comes_back_as_it_was() -> None:
    one = record(1)
    assert from_file(to_file(one), "x") == one


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "gate"},
        {"schema": 2},
        {"identity": 3},
        {"fingerprint": {str(n): "" for n in range(101)}},
        {"metrics": {"ttft": {"n": 1, "log_mean": 1e9, "quantiles": [1] * 101, "parts": []}}},
        {"metrics": {"ttft": {"n": 1, "log_mean": 1.0, "quantiles": [1] * 100, "parts": []}}},
        {"metrics": {"ttft": {"n": True, "log_mean": 1.0, "quantiles": [1] * 101, "parts": []}}},
        {"metrics": []},
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, object]) -> None:
    raw = json.loads(to_file(record(1))) | change
    with pytest.raises(RunFault):
        from_file(json.dumps(raw).encode(), "x")


def test_the_newest_are_kept_and_those_of_an_anchor(store: Store) -> None:
    for number in range(12):
        assert add(store, record(number), 50, ()) == []
    assert pin(store, "v1", "2026-02-01") == 12
    for number in range(12, 24):
        add(store, record(number), 10, ())
    shelf = shelf_of(store)
    labels = [each.label for each in shelf.runs.values()]
    assert labels == [f"c{n}" for n in (*range(12), *range(14, 24))]
    assert [each.label for each in shelf.pinned("v1")] == [f"c{n}" for n in range(12)]
    add(store, record(99, model="another"), 10, ())
    assert len(shelf_of(store).runs) == 23  # another kind takes nobody's place
    with pytest.raises(UsageFault, match="recorded already"):
        add(store, record(23), 10, ())
    with pytest.raises(UsageFault, match="pinned already"):
        pin(store, "v1", "2026-02-02")
    for name in ("../x", "", "a/b", ".x"):
        with pytest.raises(UsageFault, match="no name of an anchor"):
            pin(store, name, "2026-02-02")


def test_a_run_of_another_gpu_is_refused_and_what_differs_is_named(store: Store) -> None:
    with pytest.raises(UnlikeRuns, match="holds no other runs") as empty:
        comparable(record(1), (), (), "S")
    assert empty.value.exit_code == 13
    others = [record(1, rate="8.0", gpu="A100"), record(2), record(3, rate="8.0")]
    with pytest.raises(UnlikeRuns) as fault:
        comparable(record(9, gpu="H200", engine="vllm"), others, (), "S")
    assert "gpu (H100 recorded, H200 here)" in fault.value.text
    assert "engine (not stated recorded, vllm here)" in fault.value.text
    assert "rate" not in fault.value.text
    assert comparable(record(9, gpu="H200"), others, ("gpu",), "S") == [others[1]]


def test_fewer_than_ten_runs_decide_nothing() -> None:
    part = compared(record(99, 2.0), [record(n) for n in range(9)], Settings(), "x")
    assert (part.verdict, part.needed, part.runs) == ("INCONCLUSIVE", 1, 9)


def test_large_changes_are_seen_and_small_ones_are_not_claimed() -> None:
    earlier = [record(n, sigma=0.08) for n in range(20)]
    words = {f: compared(record(99, f), earlier, Settings(), "x").verdict for f in (0.5, 1.0, 2.0)}
    assert words == {0.5: "IMPROVED", 1.0: "INCONCLUSIVE", 2.0: "REGRESSED"}
    calm = [record(n, sigma=0.005) for n in range(20)]
    assert compared(record(99, 1.0, 0.005), calm, Settings(), "x").verdict == "OK"
    part = compared(record(99, 2.0), earlier, Settings(), "x")
    assert [exit_code([part], level, Settings()) for level in ("warn", "error")] == [0, 10]


@pytest.mark.repeated
def test_an_equal_run_is_seldom_red_with_no_margin() -> None:
    """At alpha .05 over six checks that move together; days differ by 5 %."""
    from latdiag.gate.settings import settings_of
    from latdiag.gate.table import Table

    settings = settings_of(Table({"alpha": 0.05, "min_effect": 0.0}, "x"))
    runs = repetitions(1_000)
    red = sum(
        compared(
            record(100 * n + 99, sigma=0.05),
            [record(100 * n + k, sigma=0.05) for k in range(10)],
            settings,
            "x",
        ).verdict
        == "REGRESSED"
        for n in range(1, runs + 1)
    )
    assert red <= 0.05 * runs + 3 * (0.05 * 0.95 * runs) ** 0.5
    assert red >= 0.002 * runs  # it can fire


def test_an_anchor_shows_a_drift_that_the_latest_runs_hide(tmp_path: Path) -> None:
    store = folder(tmp_path)
    for number in range(12):
        add(store, record(number, sigma=0.01), 10, ())
    pin(store, "v1", "2026-02-01")
    for number in range(12, 40):
        add(store, record(number, 1.012 ** (number - 12), sigma=0.01), 10, ())
    new = record(99, 1.012**28, sigma=0.01)
    latest, anchor = against_all(new, shelf_of(store), Settings(), 10, "S")
    assert latest.verdict != "REGRESSED" and anchor.verdict == "REGRESSED"
    assert anchor.against == "the runs of anchor v1"
    with pytest.raises(UsageFault) as fault:
        against_all(new, shelf_of(store), Settings(), 10, "S", "v2")
    assert fault.value.remedy == "there are: v1"


# ---------------------------------------------------------------------- as verbs
def test_record_history_and_pin_as_a_user_calls_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latdiag.toml").write_text(
        '[gate.baseline]\nstore = "kept"\nfacts = { gpu = "H100" }\n', encoding="utf-8"
    )
    for n in range(11):
        save(Path(f"{n}.run"), load(60, seed=n), designed=False)
    slow = save(Path("slow.run"), load(60, step=20.0, queue=60.0, seed=99), designed=False)
    for n in range(10):
        assert run(["gate", "record", f"{n}.run", "--label", f"c{n}"]) == 0
    assert len(list(Path("kept", RUNS).iterdir())) == 10
    assert run(["gate", "history", "10.run"]) == 0
    capsys.readouterr()
    assert run(["gate", "history", slow, "--level", "error"]) == 10
    assert "REGRESSED: slower than the latest runs (10) in" in capsys.readouterr().out
    assert run(["gate", "history", slow]) == 0
    assert "REGRESSED" in capsys.readouterr().out
    assert run(["gate", "record", slow]) == 10
    assert "Not recorded: it is slower than the latest runs." in capsys.readouterr().out
    assert len(list(Path("kept", RUNS).iterdir())) == 10
    assert run(["gate", "history", "10.run", "--fact", "gpu=H200"]) == 13
    assert "gpu (H100 recorded, H200 here)" in capsys.readouterr().err
    assert run(["gate", "pin", "v1"]) == 0
    capsys.readouterr()
    assert run(["gate", "history", slow, "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert [(each["against"], each["verdict"]) for each in parts] == [
        ("the latest runs", "REGRESSED"),
        ("the runs of anchor v1", "REGRESSED"),
    ]
    assert run(["gate", "record", slow, "--json"]) == 10
    assert json.loads(capsys.readouterr().out)["slower_than"] == "the latest runs"
    assert run(["gate", "record", slow, "--accept", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] in {
        p.name for p in Path("kept", RUNS).iterdir()
    }
    for wrong in ("gpu", "=x", "gpu="):
        assert run(["gate", "record", "10.run", "--fact", wrong]) == 2
    assert run(["gate", "record", "*.run"]) == 2


def test_a_run_that_its_client_spoiled_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    late = [replace(each, stage="S10") for each in load(60)]
    save(Path("late.run"), late, designed=False, late_ms=50.0)
    assert run(["gate", "record", "late.run", "--store", "kept"]) == 12
    assert "is INVALID" in capsys.readouterr().err
    assert run(["gate", "record", "late.run"]) == 2
    assert "no store is named" in capsys.readouterr().err


def test_a_store_of_foreign_files_is_refused(tmp_path: Path) -> None:
    store = folder(tmp_path)
    add(store, record(1), 10, ())
    store.put(f"{RUNS}/odd.json", b"{}")
    with pytest.raises(RunFault, match=r"odd\.json is no record"):
        shelf_of(store)
    assert replace(record(1), made="never").file.startswith("0-")
