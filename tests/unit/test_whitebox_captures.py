"""Breakdowns of recorded servers, against figures computed here from the raw files alone.

Of vLLM the whole recordings, of SGLang two scenarios. With LATDIAG_CAPTURES=FOLDER those in full.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run as latdiag
from latdiag.diagnosis.diagnose import result_of
from latdiag.store.run import Run

HERE = Path(__file__).parents[1] / "captures"
CAPTURES = Path(os.environ.get("LATDIAG_CAPTURES", HERE))
VLLM, SGLANG = CAPTURES / "vllm-0.24.0-h200", CAPTURES / "sglang-0.5.16-h200"
MS = 1e6
Diagnosed = Callable[[Path, str], dict[str, Any]]


# ---------------------------------------------------------------------- the raw files
def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


@cache
def clients(folder: Path, scenario: str) -> list[dict[str, Any]]:
    return [row for row in lines(folder / "client.jsonl.gz") if row["scenario"] == scenario]


@cache
def spans(folder: Path) -> list[dict[str, Any]]:
    return [
        span | {"sender": sender(resource)}
        for export in lines(folder / "spans.otlp.jsonl.gz")
        for resource in export["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def sender(resource: dict[str, Any]) -> str:
    named = {a["key"]: a["value"] for a in resource["resource"]["attributes"]}
    return str(named["service.instance.id"]["stringValue"])


def attribute(span: dict[str, Any], name: str) -> float:
    found = {a["key"]: a["value"] for a in span["attributes"]}
    return float(next(iter(found[name].values())))


def stated(folder: Path, scenario: str, name: str, tokens: Callable[[float], bool]) -> list[float]:
    """ns that the spans of the requests of a scenario state, of those with such token counts."""
    ids = {row["trace_id"] for row in clients(folder, scenario)}
    return [
        1e9 * attribute(span, f"gen_ai.latency.{name}")
        for span in spans(folder)
        if span["traceId"] in ids and tokens(attribute(span, "gen_ai.usage.completion_tokens"))
    ]


def lasted(folder: Path, scenario: str, name: str) -> dict[str, float]:
    """trace id -> ns of its spans of that name."""
    ids = {row["trace_id"] for row in clients(folder, scenario)}
    found: dict[str, float] = dict.fromkeys(ids, 0.0)
    for span in spans(folder):
        if span["name"] == name and span["traceId"] in ids:
            length = int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])
            found[span["traceId"]] += length
    return found


def ends_of(folder: Path, name: str) -> dict[str, int]:
    return {s["traceId"]: int(s["endTimeUnixNano"]) for s in spans(folder) if s["name"] == name}


# ---------------------------------------------------------------------- what latdiag says
@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Diagnosed]:
    """Of recordings as they are: several tests look at the same."""

    @cache
    def once(folder: Path, scenario: str) -> dict[str, Any]:
        return diagnosed(folder, tmp_path_factory.mktemp("recorded"), scenario)

    yield once
    for held in (clients, spans):  # large: no later test is to carry them
        held.cache_clear()


def diagnosed(folder: Path, where: Path, scenario: str) -> dict[str, Any]:
    out = where / "a.run"
    words = ["import", str(folder), "--scenario", scenario, "--out", str(out)]
    assert latdiag([*words, "--json", "--quiet"]) == 0
    return result_of(Run.open(str(out)), "diagnose").to_json()


def sums(result: dict[str, Any]) -> dict[str, int]:
    """ns per component of all requests."""
    found = result["breakdown"]["mean"]
    return {k: v["sum_ns"] for k, v in found.items() if isinstance(v, dict)}


def mutated(
    folder: Path, where: Path, scenario: str, change: Callable[[dict[str, Any]], bool]
) -> Path:
    """The folder with every span of a scenario changed, and those of others left out; ``change``
    says whether to keep it."""
    ids = {row["trace_id"] for row in clients(folder, scenario)}
    where.mkdir()
    (where / "client.jsonl.gz").symlink_to(folder / "client.jsonl.gz")
    with gzip.open(where / "spans.otlp.jsonl.gz", "wt", compresslevel=1) as file:
        for export in lines(folder / "spans.otlp.jsonl.gz"):
            for resource in export["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    named = [
                        span | {"sender": sender(resource)}
                        for span in scope["spans"]
                        if span["traceId"] in ids
                    ]
                    scope["spans"] = [span for span in named if change(span)]
            file.write(json.dumps(export) + "\n")
    return where


def close(got: float, values: Iterable[float], within_ms: float = 0.01) -> bool:
    return abs(got - statistics.median(values) / MS) <= within_ms


# ---------------------------------------------------------------------- golden breakdowns
@pytest.mark.parametrize("scenario", ["c64", "overload"])
def test_vllm_on_one_gpu(recorded: Diagnosed, scenario: str) -> None:
    folder = VLLM / "tp1"
    result = recorded(folder, scenario)
    rows = clients(folder, scenario)
    assert result["evidence"]["told"] == result["evidence"]["joined"] == len(rows)
    got = result["evidence"]["medians_ms"]
    times = {
        "queue": stated(folder, scenario, "time_in_queue", bool),
        "prefill": stated(folder, scenario, "time_in_model_prefill", bool),
        "decode": stated(folder, scenario, "time_in_model_decode", bool),
    }
    for name, values in times.items():
        # One at a time may be cut by a tick of the two clocks of one span.
        assert close(got[name], values, 0.5), name
    summed = sums(result)
    whole = sum(row["done_ns"] - row["send_ns"] for row in rows)
    assert result["breakdown"]["mean"]["total_ns"] == whole == sum(summed.values())
    # What no attribute holds of the span is the frontend's, and what the client saw beyond it is
    # nobody's: two sums that do not follow from each other.
    inside = sum(lasted(folder, scenario, "llm_request").values())
    stated_ns = sum(map(sum, times.values()))
    assert summed["frontend"] == pytest.approx(inside - stated_ns, rel=0.02)
    assert summed["unattributed"] == pytest.approx(whole - inside, rel=0.02)
    assert summed["network"] == 0  # this client measured no round trip
    assert {"LD413"} <= {caveat["code"] for caveat in result["caveats"]}


def test_vllm_on_one_gpu_in_the_figures_that_were_read_off_it(recorded: Diagnosed) -> None:
    result = recorded(VLLM / "tp1", "c64")
    rows = clients(VLLM / "tp1", "c64")
    ttft = statistics.median(row["chunks"][0][0] - row["send_ns"] for row in rows)
    assert round(ttft / MS, 1) == 665.4
    got = result["evidence"]["medians_ms"]
    assert (round(got["queue"], 1), round(got["prefill"])) == (28.7, 382)


def test_vllm_disaggregated_books_the_wait_for_the_cache_to_interconnect(
    recorded: Diagnosed,
) -> None:
    folder = VLLM / "pd"
    result = recorded(folder, "c16")
    got = result["evidence"]["medians_ms"]
    wait = stated(folder, "c16", "time_in_queue", lambda tokens: tokens > 1)
    queue = stated(folder, "c16", "time_in_queue", lambda tokens: tokens == 1)
    assert statistics.median(wait) / MS > 50 > statistics.median(queue) / MS
    assert close(got["interconnect"], wait, 0.5)
    assert close(got["queue"], queue, 0.5)
    assert {r for s in result["evidence"]["senders"] for r in s["roles"]} == {"prefill", "decode"}


@pytest.mark.parametrize("scenario", ["c16"])
def test_sglang_on_one_gpu(recorded: Diagnosed, scenario: str) -> None:
    folder = SGLANG / "tp1"
    result = recorded(folder, scenario)
    assert result["evidence"]["joined"] == len(clients(folder, scenario))
    total = {
        name: sum(lasted(folder, scenario, name).values())
        for name in ("prefill_waiting", "prefill_forward", "decode_waiting", "decode_forward")
    }
    got = sums(result)
    assert got["queue"] == pytest.approx(total["prefill_waiting"], rel=1e-6)
    assert got["prefill"] == pytest.approx(total["prefill_forward"], rel=1e-6)
    decode = total["decode_waiting"] + total["decode_forward"]
    assert got["decode"] == pytest.approx(decode, rel=1e-6)
    leaves = result["leaves"]["mean"]
    assert total["decode_waiting"] > 0
    assert leaves["decode.interference"]["sum_ns"] == pytest.approx(
        total["decode_waiting"], rel=1e-6
    )


def test_sglang_disaggregated_counts_nothing_twice(recorded: Diagnosed) -> None:
    folder = SGLANG / "pd"
    result = recorded(folder, "c16")
    rows = clients(folder, "c16")
    assert result["evidence"]["told"] == len(rows)
    got = sums(result)
    whole = sum(row["done_ns"] - row["send_ns"] for row in rows)
    blind = sum(
        sum(lasted(folder, "c16", name).values())
        for name in ("decode_transferred", "decode_forward", "prefill_forward",
                     "prefill_waiting", "prefill_transfer_kv_cache")
    )  # fmt: skip
    assert blind > 1.1 * whole  # added up they are more than there is
    assert sum(got.values()) == whole
    assert abs(got["unattributed"]) < 0.1 * whole
    assert got["prefill"] == pytest.approx(
        sum(lasted(folder, "c16", "prefill_forward").values()), rel=0.01
    )
    # Until the two have found each other, and from the end of the prompt's computation until the
    # decode server has its cache; both read the clock of one host here, and may be compared.
    ends = {name: ends_of(folder, name) for name in ("prefill_forward", "decode_transferred")}
    ids = [row["trace_id"] for row in rows]
    wait = sum(ends["decode_transferred"][i] - ends["prefill_forward"][i] for i in ids)
    wait += round(sum(lasted(folder, "c16", "prefill_bootstrap").values()))
    shares = result["breakdown"]["mean"]["interconnect"]
    assert shares["lo"] <= wait / whole <= shares["hi"]
    assert got["interconnect"] == pytest.approx(wait, rel=0.1)


# ---------------------------------------------------------------------- mutations
BOTH = pytest.mark.parametrize(
    "folder", [VLLM / "tp1", VLLM / "pd", SGLANG / "tp1", SGLANG / "pd"], ids=str
)


@BOTH
def test_a_server_whose_clock_is_half_a_second_off(
    recorded: Diagnosed, tmp_path: Path, folder: Path
) -> None:
    one = sorted({span["sender"] for span in spans(folder)})[0]

    def shift(span: dict[str, Any]) -> bool:
        if span["sender"] == one:
            for edge in ("startTimeUnixNano", "endTimeUnixNano"):
                span[edge] = str(int(span[edge]) + 500_000_000)
        return True

    right = recorded(folder, "c16")
    wrong = diagnosed(mutated(folder, tmp_path / "c", "c16", shift), tmp_path, "c16")
    for key in ("breakdown", "leaves", "by", "verdict"):
        assert right[key] == wrong[key]
    assert right["evidence"]["clocks"] != wrong["evidence"]["clocks"]


def test_two_attributes_swapped_change_the_breakdown(tmp_path: Path) -> None:
    names = ("gen_ai.latency.time_in_queue", "gen_ai.latency.time_in_model_prefill")

    def swap(span: dict[str, Any]) -> bool:
        for found in span["attributes"]:
            if found["key"] in names:
                found["key"] = names[1 - names.index(found["key"])]
        return True

    result = diagnosed(mutated(VLLM / "tp1", tmp_path / "c", "c64", swap), tmp_path, "c64")
    got = result["evidence"]["medians_ms"]
    assert close(got["queue"], stated(VLLM / "tp1", "c64", "time_in_model_prefill", bool), 0.5)


@BOTH
def test_three_requests_in_ten_without_spans(
    recorded: Diagnosed, tmp_path: Path, folder: Path
) -> None:
    ids = sorted(row["trace_id"] for row in clients(folder, "c16"))
    lost = set(random.Random(1).sample(ids, 3 * len(ids) // 10))
    right = recorded(folder, "c16")
    kept = mutated(folder, tmp_path / "c", "c16", lambda span: span["traceId"] not in lost)
    result = diagnosed(kept, tmp_path, "c16")
    assert result["evidence"]["joined"] == len(ids) - len(lost)
    assert {"LD411"} <= {caveat["code"] for caveat in result["caveats"]}
    whole, wholly = result["breakdown"]["mean"], right["breakdown"]["mean"]
    for name, total in sums(result).items():
        share = total / whole["total_ns"]
        # Another draw of the same requests: near, and not the same.
        assert share == pytest.approx(wholly[name]["share"], abs=0.05), name
    assert sums(result) != sums(right)


@pytest.mark.parametrize("folder", [SGLANG / "tp1", SGLANG / "pd"], ids=str)
def test_three_spans_in_ten_lost_are_said_to_be_unknown(
    recorded: Diagnosed, tmp_path: Path, folder: Path
) -> None:
    drawn = random.Random(1)
    right = recorded(folder, "c16")["breakdown"]["mean"]
    kept = mutated(folder, tmp_path / "c", "c16", lambda span: drawn.random() >= 0.3)
    result = diagnosed(kept, tmp_path, "c16")
    got = result["breakdown"]["mean"]
    assert sum(sums(result).values()) == got["total_ns"]
    assert got["unattributed"]["share"] > right["unattributed"]["share"]
    for name in ("queue", "prefill"):
        assert got[name]["share"] < right[name]["share"] + 0.05, name
        # What was lost of it is not another's: it is unattributed.
        with_lost = got[name]["share"] + got["unattributed"]["share"]
        assert with_lost > right[name]["share"] - 0.05, name
    assert {"LD412"} <= {caveat["code"] for caveat in result["caveats"]}
