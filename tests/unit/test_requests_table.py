"""A row for each request: its times are those of the metrics, and its parts add up to them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import latdiag
from latdiag.cli import run as verb
from latdiag.diagnosis.requests import request_table
from latdiag.model.errors import RunFault, UsageFault
from latdiag.report import requests_page
from latdiag.store.batch import Lists
from latdiag.store.run import Run
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state
from tests.schema import validate

from .golden import CAPTURES, RUNS, said, unpack

DEMO = sorted(path.name.removesuffix(".run.tar.gz") for path in RUNS.glob("*.tar.gz"))
SUMS = {"client_e2e": "e2e_ms", "client_ttft": "ttft_ms", "decode": None}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, latdiag.Result]:
    folder = tmp_path_factory.mktemp("runs")
    runs = {name: folder / unpack(RUNS / f"{name}.run.tar.gz", folder) for name in DEMO}
    for stack, capture in (("vllm-0.24.0-h200", "pd"), ("sglang-0.5.16-h200", "tp1")):
        shutil.copytree(CAPTURES / stack / capture, folder / stack)
        runs[stack] = folder / f"{stack}.run"
        said("import", str(folder / stack), "--out", str(runs[stack]), "--json")
    return {name: latdiag.diagnose_run(path) for name, path in runs.items()}


def ns(column: Any) -> Any:
    return np.rint(column.to_numpy(dtype=float) * 1e6).astype(np.int64)


NAMES = (*DEMO, "vllm-0.24.0-h200", "sglang-0.5.16-h200")


@pytest.mark.parametrize("name", NAMES)
def test_parts_add_up_to_the_nanosecond(name: str, results: dict[str, latdiag.Result]) -> None:
    result = results[name]
    for interval, whole in SUMS.items():
        table = result.requests(interval)
        parts = list(table.attrs["grades"])
        known = table[table[parts].notna().all(axis=1)]
        of = result.breakdowns if interval == "client_e2e" else result.by[interval]
        mean = of["mean"]
        assert len(known) == mean.n > 0 and set(table.attrs["grades"].values()) <= set("ABCDE")
        assert not known[parts].isna().any().any() and table[parts].dropna(how="all").equals(
            known[parts]
        )
        if whole is not None:
            assert (sum(ns(known[part]) for part in parts) == ns(known[whole])).all()
        # The columns are those of the breakdown, and so are their sums; the lag is the client's.
        lag = ns(known.schedule_lag_ms.fillna(0)).sum()
        sums = {part.removesuffix("_ms").split("+")[0]: ns(known[part]).sum() for part in parts}
        if "client" in sums:
            sums["client"] += lag
        assert sum(sums.values()) == mean.total_ns
        assert set(sums) == set(mean.shares)


@pytest.mark.parametrize("name", NAMES)
def test_times_are_those_of_the_metrics(name: str, results: dict[str, latdiag.Result]) -> None:
    result = results[name]
    table = result.requests()
    assert result.load is not None and len(table) == result.load.requests
    for metric in ("ttft", "tpot", "e2e"):
        column = table[f"{metric}_ms"].dropna()
        mean = result.metrics[metric].statistics["mean"]
        assert len(column) == mean.n
        assert mean.value is not None and column.mean() == pytest.approx(mean.value / 1e6)
    assert table.start.is_monotonic_increasing and str(table.start.dt.tz) == "UTC"
    assert table.request_id.is_unique and (table.outcome == "ok").sum() == result.load.ok


def test_the_day_is_that_of_the_run(results: dict[str, latdiag.Result]) -> None:
    """Within a second or so of what run.json says of its own beginning, and the captures' day."""
    for name in DEMO:
        result = results[name]
        assert result.source is not None
        created = np.datetime64(str(result.source.header["created"])[:19])
        first = result.requests().start.min().tz_localize(None).to_datetime64()
        assert np.timedelta64(-2, "s") < first - created < np.timedelta64(10, "m")
    assert results["vllm-0.24.0-h200"].requests().start.dt.year.between(2024, 2030).all()


# ---------------------------------------------------------------------- rows of one's own
MS = 1_000_000
#: 2027-01-15T08:00:00Z; the clock is slewed by 1 % from then on.
NOON = 1_800_000_000 * 10**9
HOSTILE = "=cmd|' /C'!A0\x1b[2J\u202e,\"\n<b>"


def written(path: Path, n: int = 3, clock: str | None = None, text: str = HOSTILE) -> str:
    """A load of ``n`` good requests and one that timed out before its first token."""
    run = create_run(str(path), header("load"))
    writer = RunWriter(run, "w0")
    told = state(writer="w0", clock=[[1000 * MS, NOON, 300], [2000 * MS, NOON + 1010 * MS, 300]])
    total = n + 1
    ends = np.array([0, *np.arange(2, 2 * n + 1, 2), 2 * n], dtype=np.int64)
    sent = [(1000 + 100 * i) * MS for i in range(total)]
    arrivals = np.array([t for s in sent[:n] for t in (s + 50 * MS, s + 90 * MS)], dtype=np.int64)
    writer.write_part(
        {
            "request_id": [f"{text}{i}" for i in range(total)],
            "attempt": [1] * total,
            "response_id": [text] * total,
            "outcome": ["ok"] * n + ["timeout"],
            "stage": ["load"] * total,
            "clock_id": [clock or told["clock_id"]] * total,
            "due_ns": [s - 2 * MS for s in sent],
            "sent_ns": sent,
            "written_ns": [s + MS for s in sent],
            "wire_ns": [s + 2 * MS for s in sent],
            "wire_last_ns": [s + 2 * MS for s in sent],
            "acked_ns": [s + 3 * MS for s in sent],
            "min_rtt_ns": [900_000] * total,
            "retransmits": [0] * total,
            "clock_step": [False] * total,
            "done_ns": [s + 90 * MS for s in sent[:n]] + [None],
            "osl": [2] * n + [None],
            "error": [None] * n + [text],
            "arrivals_ns": Lists.whole(arrivals, ends),
            "kinds": Lists.whole(np.full(2 * n, 3, dtype=np.int8), ends),
            "censored": Lists.whole(np.zeros(2 * n, dtype=bool), ends),
        }
    )
    writer.write_state(told)
    return run


def test_one_request_by_hand(tmp_path: Path) -> None:
    result = latdiag.diagnose_run(written(tmp_path / "a.run"))
    table = result.requests()
    row = table.iloc[0]
    assert (row.ttft_ms, row.tpot_ms, row.e2e_ms, row.schedule_lag_ms) == (50, 40, 90, 2)
    # client 2 ms until it left (its lag stands apart), network 1 ms at most, 0.9 at least.
    assert (row.client_ms, row.network_ms, row.decode_ms) == (2, 0.95, 40)
    assert row["queue+prefill+frontend+gateway_ms"] == 47.05 and row.unattributed_ms == 0
    assert [str(start) for start in table.start[:2]] == [
        "2027-01-15 08:00:00+00:00",
        "2027-01-15 08:00:00.101000+00:00",
    ]
    failed = table.iloc[-1]
    assert failed.outcome == "timeout" and failed.isna()[["ttft_ms", "e2e_ms", "client_ms"]].all()
    assert failed.isna()[["isl", "osl", "status"]].all()
    assert table.attrs["grades"]["queue+prefill+frontend+gateway_ms"] == "E"


def test_no_day_is_made_up(tmp_path: Path) -> None:
    """Instants of a clock that nobody held against the time of day have none."""
    table = latdiag.diagnose_run(written(tmp_path / "a.run", clock="another")).requests()
    assert table.start.isna().all() and len(table) == 4
    table = latdiag.diagnose_run(written(tmp_path / "b.run", clock="capture:x")).requests()
    assert table.start.isna().all()  # 1970: no REALTIME


def test_a_run_that_changed_since_is_not_mixed_up(tmp_path: Path) -> None:
    result = latdiag.diagnose_run(written(tmp_path / "a.run"))
    assert result.parts is not None
    other = Run.open(written(tmp_path / "b.run", n=2))
    for run in (other, Run.open(str(tmp_path / "a.run"))):
        if run is not other:
            shutil.copy(tmp_path / "b.run" / "requests" / "part-w0-000001.parquet",
                        tmp_path / "a.run" / "requests" / "part-v0-000001.parquet")  # fmt: skip
        with pytest.raises(RunFault, match="changed since"):
            request_table(run, result.parts)


def test_a_comparison_has_no_requests(tmp_path: Path) -> None:
    run = written(tmp_path / "a.run")
    with pytest.raises(UsageFault, match="no requests"):
        latdiag.compare_runs(run, run).result().requests()


# ---------------------------------------------------------------------- the verb
def test_the_page_fits_a_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = written(tmp_path / "w.run", n=40, text="漢字" * 40)
    for run in (written(tmp_path / "a.run", n=40), wide):
        assert verb(["requests", run]) == 0
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert err == "" and out.isascii() and "\x1b" not in out
        assert len(lines) <= 24 and max(map(len, lines)) <= 79
        assert lines[0] == "41 requests, 1 failed; the slowest 10 of them, times in ms"
        assert "queue+3 is queue + prefill + frontend + gateway" in out
        assert out.count("queue+3 52 %") == 10
    assert verb(["requests", wide, "--slowest", "41"]) == 0
    assert capsys.readouterr().out.count("timeout") == 1


def test_the_page_of_a_terminal_says_where_the_rest_is(results: dict[str, Any]) -> None:
    for name, result in results.items():
        table = result.requests()
        chosen = requests_page.slowest(table, requests_page.LINES)
        for ascii_only in (True, False):
            page = requests_page.page(table, chosen, ascii_only, True)
            assert len(page.lines) <= 24, name
            text = "\n".join("".join(span.text for span in line) for line in page.lines)
            assert "--csv or --json" in text and max(map(len, text.splitlines())) <= 79


def test_csv_is_the_same_table_and_no_formula(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written(tmp_path / "a.run")
    assert verb(["requests", run, "--csv", "-o", str(tmp_path / "a.csv")]) == 0
    assert capsys.readouterr() == ("", "")
    text = (tmp_path / "a.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 4 and not {"\x1b", "\u202e"} & set(text)
    table = latdiag.diagnose_run(run).requests()
    assert list(rows[0]) == list(table.columns)
    assert [row["ttft_ms"] for row in rows] == ["50.0", "50.0", "50.0", ""]
    assert all(row["request_id"].startswith("'=cmd") for row in rows)
    assert verb(["requests", run, "--csv", "-o", str(tmp_path / "a.csv")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert verb(["requests", run, "-o", str(tmp_path / "no" / "a.csv")]) == 16
    assert "cannot be written" in capsys.readouterr().err


def test_json_is_the_same_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "a.run")
    assert verb(["requests", run, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    validate(document)
    rows, table = document["requests"], latdiag.diagnose_run(run).requests()
    assert document["grades"] == table.attrs["grades"] and document["runs"] == [run]
    assert [row["request_id"] for row in rows] == list(table.request_id)
    assert rows[0]["start"].endswith("Z") and rows[-1]["osl"] is None
    assert rows[0]["e2e_ms"] == 90 and rows[-1]["e2e_ms"] is None
    assert verb(["requests", run, "--json", "--slowest", "2"]) == 0
    assert len(json.loads(capsys.readouterr().out)["requests"]) == 2
    assert verb(["requests", run, "--json", "--csv"]) == 2
    assert verb(["requests", str(tmp_path), "--json"]) == 2


def test_a_run_without_a_client_has_no_rows(tmp_path: Path) -> None:
    """What only servers say is of none of our requests."""
    shutil.copytree(CAPTURES / "vllm-0.24.0-h200" / "tp2", tmp_path / "tp2")
    said("import", str(tmp_path / "tp2"), "--out", str(tmp_path / "a.run"), "--json")
    shutil.rmtree(tmp_path / "a.run" / "requests")
    table = latdiag.diagnose_run(tmp_path / "a.run").requests()
    assert not len(table) and table.attrs["grades"] == {}
    printed = said("requests", str(tmp_path / "a.run"))
    assert printed.startswith("0 requests") and printed.endswith("exit 0\n")
