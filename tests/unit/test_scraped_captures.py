"""Recorded metrics without the spans beside them, against those spans' own sums."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run as latdiag
from latdiag.diagnosis.diagnose import result_of
from latdiag.report.console import compose
from latdiag.report.json import dump
from latdiag.store.run import Run
from tests.schema import validate

from . import read_result
from .capture_sums import CAPTURES, VLLM, lines, scenarios, spans, vllm_sums

TP1, PD = (CAPTURES / "vllm-0.24.0-h200" / name for name in ("tp1", "pd"))
SGLANG = CAPTURES / "sglang-0.5.16-h200"
Change = Callable[[str, str], str | None]


def folder_of(
    source: Path, where: Path, *, spans: bool = False, change: Change | None = None
) -> Path:
    """The capture with or without its spans. ``change``: a scrape's name and text to another
    text, or to None for no such file."""
    (where / "metrics").mkdir(parents=True)
    for name in ("client.jsonl.gz", *(["spans.otlp.jsonl.gz"] if spans else [])):
        (where / name).symlink_to((source / name).resolve())
    for path in sorted((source / "metrics").iterdir()):
        if change is None:
            (where / "metrics" / path.name).symlink_to(path.resolve())
            continue
        text = change(path.name, gzip.decompress(path.read_bytes()).decode())
        if text is not None:
            (where / "metrics" / path.name).write_bytes(gzip.compress(text.encode(), 1))
    return where


def diagnosed(folders: Sequence[Path], out: Path, *scenarios: str) -> dict[str, Any]:
    words = ["import", *map(str, folders), "--out", str(out), "--json", "--quiet"]
    for name in scenarios:
        words += ["--scenario", name]
    assert latdiag(words) == 0
    result = result_of(Run.open(str(out)), "diagnose").to_json()
    validate(json.loads(dump(result)))
    return result


def without_spans(source: Path, where: Path, *scenarios: str, **more: Any) -> dict[str, Any]:
    return diagnosed([folder_of(source, where / "capture", **more)], where / "a.run", *scenarios)


def shares(result: dict[str, Any], population: str = "mean") -> dict[str, float]:
    found = result["breakdown"][population]
    return {name: entry["share"] for name, entry in found.items() if isinstance(entry, dict)}


def grades(result: dict[str, Any]) -> dict[str, str]:
    found = result["breakdown"]["mean"]
    return {name: entry["grade"] for name, entry in found.items() if isinstance(entry, dict)}


def codes(result: dict[str, Any]) -> dict[str, str]:
    return {each["code"]: each["text"] for each in result["caveats"]}


def text_of(result: dict[str, Any]) -> str:
    page = compose(read_result.result(result), True, "full")
    assert all(sum(len(span.text) for span in line) <= 79 for line in page.lines)
    return " ".join(" ".join(span.text for span in line) for line in page.lines)


@cache
def stated(folder: Path) -> dict[str, dict[str, float]]:
    """Trace id -> seconds of queue and prefill, as the spans of one server have it."""
    return {
        span["traceId"]: {word: float(said[VLLM[word]]) for word in ("queue", "prefill")}
        for span, said in spans(folder)
        if span["name"] == "llm_request"
    }


def clients(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [row for row in lines(folder / "client.jsonl.gz") if row["scenario"] in names]


# ---------------------------------------------------------------------- one server
@pytest.mark.parametrize("scenario", ["c16", "c64", "overload"])
def test_vllm_s_queue_and_prefill_have_the_spans_share(tmp_path: Path, scenario: str) -> None:
    result = without_spans(TP1, tmp_path, scenario)
    rows = clients(TP1, scenario)
    whole = sum(row["done_ns"] - row["send_ns"] for row in rows) / 1e9
    truth = vllm_sums(TP1)[scenario, "unified"]
    got = shares(result)
    for name in ("queue", "prefill"):
        assert got[name] == pytest.approx(truth[name] / whole, abs=1e-6), name
    # What the server's own frontend took, and no more: this client stamped in user space.
    frontend = truth["ttft"] - truth["queue"] - truth["prefill"]
    assert got["frontend"] == pytest.approx(frontend / whole, abs=1e-4)
    assert 0 < got["unattributed"] < 0.02
    assert grades(result)["queue"] == grades(result)["prefill"] == "B"
    found = result["aggregates"]
    assert found["used"] and (found["verdict"], found["bias"]) == ("own", 0.0)
    assert found["own"] == found["finished"]["unified"] == len(rows)
    (window,) = found["windows"]
    assert window["name"] == scenario and window["own"] == len(rows)
    assert {"LD413"} <= codes(result).keys() and not {"LD416", "LD417"} & codes(result).keys()
    assert "evidence" not in result and [s["name"] for s in result["stacks"]] == ["vllm"]
    said = f"Metrics: 1 server, {len(rows)} of {len(rows)} finished requests are this client's;"
    assert said in text_of(result) and "(mean, B)" in " ".join(text_of(result).split())


def test_the_tail_of_an_overload_lies_in_its_interval(tmp_path: Path) -> None:
    result = without_spans(TP1, tmp_path, "overload")
    rows = sorted(clients(TP1, "overload"), key=lambda row: row["done_ns"] - row["send_ns"])
    tail = rows[-result["breakdown"]["p95_tail"]["n"] :]
    whole = sum(row["done_ns"] - row["send_ns"] for row in tail) / 1e9
    claims = {claim["of"][0]: claim for claim in result["aggregates"]["claims"] if claim["tail"]}
    for name, within in (("queue", 0.03), ("prefill", 0.02)):
        truth = sum(stated(TP1)[row["trace_id"]][name] for row in tail)
        assert shares(result, "p95_tail")[name] == pytest.approx(truth / whole, abs=within)
        said = claims[name]["tail"]
        assert said["n"] == len(tail)
        assert said["lo_ms"] <= 1e3 * truth / len(tail) <= said["hi_ms"]
        assert said["lo_ms"] <= said["mean_ms"] <= said["hi_ms"]


def test_all_scenarios_are_added_up(tmp_path: Path) -> None:
    """Every window has its own sums: they are those of all spans together."""
    result = without_spans(TP1, tmp_path)
    rows = clients(TP1, *set(scenarios(TP1).values()))
    truth: Counter[str] = Counter()
    for sums in vllm_sums(TP1).values():
        truth.update(sums)
    whole = sum(row["done_ns"] - row["send_ns"] for row in rows) / 1e9
    for name in ("queue", "prefill"):
        assert shares(result)[name] == pytest.approx(truth[name] / whole, abs=1e-6)
    found = result["aggregates"]
    assert found["own"] == found["finished"]["unified"] == len(rows) == 816
    assert [window["name"] for window in found["windows"]] == sorted(set(scenarios(TP1).values()))
    (replica,) = found["replicas"]
    assert replica["finished"] == 816 and replica["left_out"] is None
    queue = next(claim for claim in found["claims"] if claim["of"] == ["queue"])
    assert queue["mean_ms"] == pytest.approx(1e3 * truth["queue"] / 816)
    alone = next(claim for claim in replica["claims"] if claim["of"] == ["queue"])
    assert alone["mean_ms"] == pytest.approx(queue["mean_ms"])


# ---------------------------------------------------------------------- two servers
def test_two_servers_each_have_their_phases(tmp_path: Path) -> None:
    result = without_spans(PD, tmp_path, "c64")
    first, second = (vllm_sums(PD)["c64", role] for role in ("prefill", "decode"))
    whole = sum(row["done_ns"] - row["send_ns"] for row in clients(PD, "c64")) / 1e9
    got = shares(result)
    assert got["queue"] == pytest.approx(first["queue"] / whole, abs=1e-6)
    assert got["prefill"] == pytest.approx(
        (first["prefill"] + second["prefill"]) / whole, abs=1e-6
    )
    # An idle engine that waits for the cache has no queue.
    assert got["interconnect"] == pytest.approx(second["queue"] / whole, abs=1e-3)
    assert {r["role"] for r in result["aggregates"]["replicas"]} == {"prefill", "decode"}


def test_roles_are_known_from_labels_where_nobody_names_them(tmp_path: Path) -> None:
    """SGLang says in each series which kind of server it is; a scrape by URL says no more."""
    named = without_spans(SGLANG / "pd", tmp_path / "named", "c16")
    folder = folder_of(SGLANG / "pd", tmp_path / "bare" / "capture")
    for path in (folder / "metrics").iterdir():
        path.rename(path.with_name(path.name.replace("prefill", "a").replace("decode", "b")))
    bare = diagnosed([folder], tmp_path / "bare" / "a.run", "c16")
    assert {r["replica"]: r["role"] for r in bare["aggregates"]["replicas"]} == {
        "a": "prefill",
        "b": "decode",
    }
    assert bare["aggregates"]["used"] and shares(bare) == shares(named)


def test_what_servers_counted_says_who_does_which_part(tmp_path: Path) -> None:
    """Prompt tokens that came from another server are those of one that decodes."""
    named = without_spans(PD, tmp_path / "named", "c16")
    folder = folder_of(PD, tmp_path / "bare" / "capture")
    for path in (folder / "metrics").iterdir():
        path.rename(path.with_name(path.name.replace("prefill", "a").replace("decode", "b")))
    bare = diagnosed([folder], tmp_path / "bare" / "a.run", "c16")
    assert {r["replica"]: r["role"] for r in bare["aggregates"]["replicas"]} == {
        "a": "prefill",
        "b": "decode",
    }
    assert bare["aggregates"]["used"] and shares(bare) == shares(named)


def test_servers_that_share_requests_without_roles_claim_nothing(tmp_path: Path) -> None:
    """An older vLLM does not say which of two servers prefills: both have finished every
    request."""
    folder = folder_of(
        PD,
        tmp_path / "capture",
        change=lambda _, text: re.sub(r"(?m)^vllm:prompt_tokens_by_source.*\n", "", text),
    )
    for path in (folder / "metrics").iterdir():
        path.rename(path.with_name(path.name.replace("prefill", "a").replace("decode", "b")))
    result = diagnosed([folder], tmp_path / "a.run", "c16")
    assert not result["aggregates"]["used"]
    assert "each of 2 servers finished all 64 requests" in codes(result)["LD416"]
    assert result["breakdown"] == {}


# ---------------------------------------------------------------------- beside spans
@pytest.mark.parametrize(
    ("source", "scenario"),
    [
        (TP1, "c64"),
        (TP1, "overload"),
        (PD, "c64"),
        (SGLANG / "tp1", "c16"),
        (SGLANG / "pd", "c16"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_beside_spans_metrics_lose_and_agree(tmp_path: Path, source: Path, scenario: str) -> None:
    result = without_spans(source, tmp_path, scenario, spans=True)
    assert grades(result)["queue"] == "A"
    assert not {"LD416", "LD417"} & codes(result).keys()
    claims = [c for c in result["claims"]["queue"] if c["population"] == "mean"]
    used = next(claim for claim in claims if claim["used"])
    lost = next(claim for claim in claims if not claim["used"] and claim["grade"] == "B")
    assert used["grade"] == "A" and lost["why"] == "weaker evidence"
    assert lost["share"] == pytest.approx(used["share"], abs=0.01)


def test_metrics_that_were_swapped_contradict_the_spans(tmp_path: Path) -> None:
    def swapped(_: str, text: str) -> str:
        one, two = "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds"
        return text.replace(one, "\0").replace(two, one).replace("\0", two)

    result = without_spans(TP1, tmp_path, "c64", spans=True, change=swapped)
    assert codes(result)["LD417"].startswith(
        "The metrics do not agree with the spans: queue: 245.5 ms"
    )
    assert grades(result)["queue"] == "A"


# ---------------------------------------------------------------------- what cannot be used
def changed_after(what: Callable[[str], str | None]) -> Change:
    return lambda name, text: what(text) if ".after." in name else text


def restarted(text: str) -> str:
    return "\n".join(
        f"{line}9" if line.startswith("process_start_time_seconds ") else line
        for line in text.split("\n")
    )


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (changed_after(lambda text: None), "LD416", "no server was scraped both before and after"),
        (changed_after(restarted), "LD419", "its process restarted during the window"),
    ],
    ids=["no second scrape", "restart"],
)
def test_without_a_whole_window_nothing_is_claimed(
    tmp_path: Path, change: Change, code: str, words: str
) -> None:
    result = without_spans(TP1, tmp_path, "c64", change=change)
    found = result["aggregates"]
    assert not found["used"] and found["claims"] == [] and found["verdict"] == "uncounted"
    assert words in codes(result)[code] and "LD416" in codes(result)
    assert result["breakdown"] == {}
    assert "Metrics: 1 server" in text_of(result) and "are this client's" not in text_of(result)


def test_longer_phases_than_the_client_saw_are_a_contradiction(tmp_path: Path) -> None:
    def hours(name: str, text: str) -> str:
        if ".after." not in name:
            return text
        return "\n".join(
            line.rpartition(" ")[0] + " 99999.0"
            if line.startswith("vllm:request_queue_time_seconds_sum")
            else line
            for line in text.split("\n")
        )

    result = without_spans(TP1, tmp_path, "c64", change=hours)
    assert not result["aggregates"]["used"]
    assert "the client waited" in codes(result)["LD416"]
    assert result["breakdown"] == {}


def test_requests_of_two_clocks_are_not_set_against_the_scrapes(tmp_path: Path) -> None:
    folders = [folder_of(TP1, tmp_path / "one"), folder_of(PD, tmp_path / "two")]
    result = diagnosed(folders, tmp_path / "a.run", "c16")
    assert "several clocks" in codes(result)["LD416"] and not result["aggregates"]["used"]


def test_hostile_names_stay_words(tmp_path: Path) -> None:
    folder = folder_of(TP1, tmp_path / "capture")
    for path in (folder / "metrics").glob("c16.*"):
        path.rename(path.with_name(path.name.replace("server", "\x1b[2J")))
    result = diagnosed([folder], tmp_path / "a.run", "c16")
    assert result["aggregates"]["used"] and "\x1b" not in text_of(result)
    assert all("\x1b" not in text for text in codes(result).values())
