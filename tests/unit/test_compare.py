"""``latdiag compare``: what differs first, unlike runs refused, the same each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latdiag.cli import run

from .compared_runs import differences, load, result, said, two_runs, with_header
from .probe_rows import Reply
from .saved_probe import save
from .test_blackbox import WAITS, probe

pytestmark = pytest.mark.usefixtures("one_comparison")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_runs(tmp_path_factory.mktemp("runs"))


# ---------------------------------------------------------------------- what is found
def test_the_time_that_was_added_is_found_where_it_was_added(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result(capsys, runs / "a.run", runs / "b.run")
    assert found["verb"] == "compare" and found["run"] == str(runs / "a.run")
    assert found["runs"] == [str(runs / "a.run"), str(runs / "b.run")]
    compared = found["compared"]
    for entry in (compared["metrics"]["ttft"]["mean"], compared["components"]["mean"]["gateway"]):
        apart = entry["difference"]
        assert apart["lo"] < 6.0 < apart["hi"] and apart["contains_zero"] is False
    assert compared["components"]["mean"]["decode"]["difference"]["contains_zero"] is True
    assert compared["metrics"]["tpot"]["mean"]["difference"]["contains_zero"] is True
    assert set(compared["metrics"]) == {"ttft", "tpot", "itl", "e2e", "output_throughput"}
    tail = compared["components"]["p95_tail"]
    assert tail["total"]["a"]["n"] == 35 and tail["total"]["difference"]["lo"] is not None
    assert "gateway+frontend+queue+prefill" in compared["sentence"]


def test_swapping_a_and_b_negates_every_number(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = result(capsys, runs / "a.run", runs / "b.run")["compared"]
    other = result(capsys, runs / "b.run", runs / "a.run")["compared"]
    here, there = differences(one), differences(other)
    assert here.keys() == there.keys() and len(here) > 15
    for place, apart in here.items():
        for key, opposite in (("value", "value"), ("lo", "hi"), ("hi", "lo")):
            value = there[place][opposite]
            assert apart[key] == (None if value is None else -value), place
    assert [(e["a"], e["b"]) for e in one["differs"]] == [
        (e["b"], e["a"]) for e in other["differs"]
    ]


def test_neither_writers_nor_the_order_of_rows_matter(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = result(capsys, runs / "a.run", runs / "b.run")["compared"]
    again = save(tmp_path / "a.run", load()[::-1], designed=False, writers=("z", "k", "b"))
    found = result(capsys, again, runs / "b.run")["compared"]
    assert found["components"] == expected["components"]
    assert found["metrics"] == expected["metrics"]


def test_twice_gives_the_same_bytes_and_another_seed_other_intervals(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # each comparison anew
    args = (runs / "a.run", runs / "b.run")
    assert said(capsys, *args, "--json") == said(capsys, *args, "--json")
    one, other = (result(capsys, *args, "--seed", seed)["compared"] for seed in (0, 5))
    assert (
        one["metrics"]["ttft"]["mean"]["difference"]["lo"]
        != (other["metrics"]["ttft"]["mean"]["difference"]["lo"])
    )
    assert one["components"]["mean"]["total"]["a"] == other["components"]["mean"]["total"]["a"]


def test_a_side_of_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in range(4):
        since = 10**15 + place * 10**12
        for name, queue in (("a", 20.0), ("b", 23.0)):
            rows = load(120, queue=queue, seed=10 * place + len(name) + int(queue))
            save(tmp_path / f"{name}{place}.run", rows, designed=False, since=since + int(queue))
    found = result(capsys, tmp_path / "a*.run", tmp_path / "b*.run")
    assert len(found["runs"]) == 8 and len(found["compared"]["a"]["runs"]) == 4
    whole = found["compared"]["components"]["mean"]["total"]
    assert whole["a"]["n"] == 480 and whole["a"]["segments"] == 4
    assert "4 whole runs or segments" in whole["difference"]["method"]
    assert found["compared"]["metrics"]["output_throughput"]["difference"]["lo"] is not None
    assert not any("fewer than" in note for note in found["compared"]["notes"])


def test_probes_are_compared_in_the_classes_that_both_have_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that could not tell prefill from frontend decides for both."""
    one = save(tmp_path / "p.run", probe(WAITS * 2))
    other = save(tmp_path / "q.run", probe([1.5 * w for w in WAITS] * 2, seed=3, refuses=False))
    mean = result(capsys, one, other)["compared"]["components"]["mean"]
    assert mean["frontend"]["members"] == ["frontend", "prefill"] and "prefill" not in mean
    assert mean["queue"]["difference"]["value"] == pytest.approx(np.mean(WAITS) / 2, rel=0.1)
    alone = result(capsys, one, save(tmp_path / "r.run", probe(WAITS * 2, seed=5)))
    assert {"frontend", "prefill"} <= set(alone["compared"]["components"]["mean"])


# ---------------------------------------------------------------------- what differs
UNLIKE = {
    "target__model": ("n", "model m against n"),
    "plan__isl": (512, "ISL 256 against 512"),
    "plan__osl": (128, "OSL 24 against 128"),
    "plan__rate": (4.0, "rate 8.0 against 4.0"),
    "plan__arrivals": ("constant", "arrivals poisson against constant"),
    "plan__concurrency": (16, "concurrency none against 16"),
    "plan__prompts": (9, "prompts none against 9"),
    "plan__designed": (True, "designed probe no against yes"),
}


@pytest.mark.parametrize("path", UNLIKE)
def test_unlike_workloads_are_refused_with_13_unless_forced(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value, words = UNLIKE[path]
    one = with_header(tmp_path, "a.run", load(60))
    other = with_header(tmp_path, "b.run", load(60, seed=2), **{path: value})
    error = result(capsys, one, other, code=13)["error"]
    assert error["code"] == "unlike" and words in error["text"] and "--force" in error["remedy"]
    forced = result(capsys, one, other, "--force")
    assert [c["code"] for c in forced["caveats"]] == ["LD121"]
    assert words in forced["caveats"][0]["text"]
    text = said(capsys, one, other, "--force", "--full")
    assert "! not the same workload" in text and "LD121" in text
    assert "Note LD121: A and B are different workloads" in said(capsys, one, other, "--force")


def test_lengths_that_came_out_otherwise_are_unlike_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [replace(r, isl=300) for r in load(60, seed=2)]
    one, other = with_header(tmp_path, "a.run", load(60)), with_header(tmp_path, "b.run", rows)
    text = result(capsys, one, other, code=13)["error"]["text"]
    assert "ISL (actual) 256.0 against 300.0" in text
    # A few tokens more, or lengths that are drawn from the same wide law, are no other work.
    random = np.random.default_rng(1)
    drawn = [replace(r, isl=int(random.lognormal(5.5, 0.7))) for r in load(60, seed=3)]
    more = [replace(r, isl=int(random.lognormal(5.5, 0.7))) for r in load(60, seed=4)]
    one, other = (with_header(tmp_path, f"{n}.run", r) for n, r in (("c", drawn), ("d", more)))
    assert result(capsys, one, other)["compared"]["differs"] == []


def test_an_unlike_run_within_a_side_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_header(tmp_path, "a1.run", load(60))
    with_header(tmp_path, "a22.run", load(60, seed=2), plan__rate=4.0)
    other = with_header(tmp_path, "b.run", load(60, seed=3))
    error = result(capsys, tmp_path / "a*.run", other, code=13)["error"]
    assert "rate 4.0 / 8.0 against 8.0" in error["text"]


def test_versions_and_clients_are_named_first_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = with_header(tmp_path, "a.run", load(60))
    other = with_header(
        tmp_path, "b.run", load(60, seed=2),
        stacks=[{"name": "vllm", "version": "0.25.1", "grounds": "a metric"}],
        tool__version="1.1", plan__seed=2,
        client__priority="realtime", plan__connections="fresh",
    )  # fmt: skip
    found = result(capsys, one, other)["compared"]
    differs = {e["what"]: (e["a"], e["b"]) for e in found["differs"]}
    assert differs == {
        "stacks": (["vllm 0.24.0"], ["vllm 0.25.1"]), "latdiag": ("1.0", "1.1"), "seed": (1, 2),
        "client priority": ("ordinary", "realtime"), "connections": ("reuse", "fresh"),
    }  # fmt: skip
    assert found["alike"]["model"] == "m" and found["alike"]["rate"] == 8.0
    text = said(capsys, one, other, "--full")
    assert text.index("vllm 0.25.1") < text.index("TTFT mean") < text.index("end to end")


def test_what_an_import_does_not_state_is_not_unlike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = with_header(tmp_path, "a.run", load(60))
    other = with_header(tmp_path, "b.run", load(60, seed=2), verb="import")
    differs = {e["what"]: e for e in result(capsys, one, other)["compared"]["differs"]}
    assert differs["rate"] == {"what": "rate", "a": 8.0, "b": None, "unlike": False}


# ---------------------------------------------------------------------- the same, the invalid
def test_a_run_with_itself_says_so(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, runs / "a.run", runs / "a.run")["compared"]
    assert found["same_run"] and found["differs"] == []
    for apart in differences(found).values():
        assert apart["value"] in (0.0, None) and apart["lo"] is None
    assert "THE SAME RUN" in said(capsys, runs / "a.run", runs / "a.run", "--full")
    assert said(capsys, runs / "a.run", runs / "a.run").startswith("The same run on both sides: ")


def test_a_copy_of_a_run_is_that_run(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_ = save(tmp_path / "copy.run", load(), designed=False, writers=("x", "y"))
    assert result(capsys, copy_, runs / "a.run")["compared"]["same_run"]
    save(tmp_path / "copz.run", load(), designed=False)
    error = result(capsys, tmp_path / "cop*.run", runs / "b.run", code=2)["error"]
    assert "are the same run" in error["text"]


def test_an_invalid_run_is_12_and_still_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = save(tmp_path / "late.run", probe(WAITS), late_ms=60.0)
    good = save(tmp_path / "good.run", probe(WAITS, seed=4), late_ms=0.0)
    text = said(capsys, good, late, "--full", code=12)
    assert text.startswith("INVALID: B: ") and "end to end" in text
    assert said(capsys, good, late, code=12).startswith("INVALID: (B) Effect of late sending")
    found = result(capsys, good, late, code=12)
    assert not found["valid"] and found["compared"]["a"]["valid"]
    assert not found["compared"]["b"]["valid"]


def test_caveats_of_each_side_are_kept(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        found = result(capsys, runs / "a.run", runs / "b.run")["compared"][name]
        assert {"LD401", "LD402"} <= {c["code"] for c in found["caveats"]}
    args = (runs / "a.run", runs / "b.run")
    assert "caveats LD401, LD402" in said(capsys, *args, "--full")
    assert "Notes: 2 on A, 2 on B (--notes)" in said(capsys, *args)
    assert said(capsys, *args, "--notes").count("LD402 ") == 2


# ---------------------------------------------------------------------- usage
def test_what_cannot_be_compared_is_2(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = runs / "a.run", runs / "b.run"
    for args, words in (
        ((a, runs / "none.run"), "is not a run"),
        ((runs / "*.ran", b), "nothing matches"),
        ((a, b, "--metric", "ttfx"), "no metric called"),
        ((a, b, "--metric", "goodput"), "cannot be compared"),
    ):
        error = result(capsys, *args, code=2)["error"]
        assert words in error["text"] and error["remedy"]
    assert run(["compare", str(a)]) == 2


def test_only_the_metrics_asked_for(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = (runs / "a.run", runs / "b.run", "--metric", "icl", "--metric", "request_rate")
    found = result(capsys, *args)["compared"]["metrics"]
    assert list(found) == ["icl", "request_rate"]
    assert "Requests/s" in said(capsys, *args)


def test_failures_only_are_a_comparison_without_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Reply("load", 100, 10**9 * n, status=500) for n in range(40)]
    failed = save(tmp_path / "f.run", rows, designed=False)
    other = save(tmp_path / "g.run", load(50), designed=False)
    found = result(capsys, failed, other, "--force")["compared"]
    assert found["a"]["failed"] == 40 and found["components"] == {}
    assert found["metrics"]["ttft"]["mean"]["difference"]["refused"]
    text = said(capsys, failed, other, "--force")
    assert text.startswith("No answer: on one side, no request's time could be broken down.")
