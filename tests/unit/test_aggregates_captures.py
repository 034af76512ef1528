"""Differences of recorded scrapes against the spans of the same requests, added up by hand."""

from __future__ import annotations

import gzip
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from latdiag.attribution.metrics.claims import Aggregates, aggregates, contradictions
from latdiag.attribution.metrics.deltas import Deltas, Sample, deltas, samples
from latdiag.attribution.metrics.traffic import Own, totals
from latdiag.ingest.prometheus import columns_of
from latdiag.stacks import catalogue

from .capture_sums import CAPTURES, scenarios, sglang_sums, vllm_sums

VLLM = sorted((CAPTURES / "vllm-0.24.0-h200").glob("*/client.jsonl.gz"))
SGLANG = sorted((CAPTURES / "sglang-0.5.16-h200").glob("*/client.jsonl.gz"))


def scraped(folder: Path, scenario: str) -> list[Sample]:
    """The scrapes around a scenario; the file's second part names the server's role."""
    found: list[Sample] = []
    for path in sorted((folder / "metrics").glob(f"{scenario}.*.prom.gz")):
        _, role, edge, *_ = path.name.split(".")
        text = gzip.decompress(path.read_bytes()).decode()
        columns = columns_of(
            text,
            at_ns=int(text.partition("\n")[0].split()[-1]),
            replica=role,
            edge=edge,
            families=catalogue.families(),
            role=None if role == "server" else role,
        )
        found += samples(columns)
    return found


def window(folder: Path, scenario: str) -> Deltas:
    return deltas(scraped(folder, scenario), "before", "after")


def whole(folder: Path) -> list[str]:
    """The scenarios of a capture with a scrape before and after at every server."""
    requests = set(scenarios(folder).values())
    servers = {path.name.split(".")[1] for path in (folder / "metrics").glob("*.prom.gz")}
    return [
        name
        for name in sorted(requests)
        if len(list((folder / "metrics").glob(f"{name}.*.prom.gz"))) == 2 * len(servers)
    ]


@cache
def vllm(folder: Path) -> dict[tuple[str, str], Counter[str]]:
    return vllm_sums(folder)


@cache
def sglang(folder: Path) -> dict[str, Counter[str]]:
    return sglang_sums(folder)


def cases(paths: list[Path]) -> list[tuple[Path, str]]:
    return [(path.parent, name) for path in paths for name in whole(path.parent)]


def _id(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


def claimed(folder: Path, scenario: str, stack: str, own: int | None = None) -> Aggregates:
    known = catalogue.stack(stack)
    n = Counter(scenarios(folder).values())[scenario] if own is None else own
    return aggregates(window(folder, scenario), known.signals, Own(n), known.ranks)


def by_component(found: Aggregates) -> Counter[str]:
    """Claimed seconds by component; one claim never names two where all phases are known."""
    sums: Counter[str] = Counter()
    for claim in found.claims:
        assert len(claim.components) == 1
        assert claim.sum_ns is not None and claim.lo_ns <= claim.sum_ns <= claim.hi_ns
        sums[claim.components[0]] += claim.sum_ns / 1e9
    return sums


def test_there_are_captures_of_one_and_of_two_servers() -> None:
    assert {path.parent.name for path in VLLM} >= {"tp1", "tp2", "pd"}
    assert {path.parent.name for path in SGLANG} >= {"tp1", "pd"}
    assert len(cases(VLLM)) >= 12 and len(cases(SGLANG)) >= 4


@pytest.mark.parametrize(("folder", "scenario"), cases(VLLM), ids=_id)
def test_vllm_sums_are_those_of_the_spans(folder: Path, scenario: str) -> None:
    known = catalogue.stack("vllm")
    checked = 0
    for one in totals(window(folder, scenario), known.signals):
        word = one.signal.name.rpartition(".")[2]
        truth = vllm(folder)[scenario, one.role]
        if word in ("queue", "prefill", "decode", "e2e", "ttft"):
            assert one.n == truth["n"] == Counter(scenarios(folder).values())[scenario]
            # Both are sums of the same doubles, in another order.
            assert one.sum_ns / 1e9 == pytest.approx(truth[word], rel=1e-6, abs=1e-6)
            checked += 1
    assert checked in (5, 8)


@pytest.mark.parametrize(("folder", "scenario"), cases(VLLM), ids=_id)
def test_vllm_claims_are_the_phases_and_the_rest_is_frontend(folder: Path, scenario: str) -> None:
    found = claimed(folder, scenario, "vllm")
    assert (found.traffic.verdict, found.traffic.bias, found.doubts) == ("own", 0.0, ())
    truth = {role: sums for (name, role), sums in vllm(folder).items() if name == scenario}
    sums = by_component(found)
    if "unified" in truth:
        one = truth["unified"]
        want = {"queue": one["queue"], "prefill": one["prefill"], "decode": one["decode"]}
        want["frontend"] = one["e2e"] - sum(want.values())
    else:
        first, second = truth["prefill"], truth["decode"]
        want = {
            "queue": first["queue"],
            "interconnect": second["queue"],  # an idle engine that waits for KV has no queue
            "prefill": first["prefill"] + second["prefill"],
            "decode": second["decode"],
        }
        want["frontend"] = first["e2e"] + second["e2e"] - sum(want.values())
    n = Counter(scenarios(folder).values())[scenario]
    # TTFT and e2e are read in another process than the phases: within 1 ms a request.
    for component, seconds in want.items():
        slack = 1e-3 * n if component == "frontend" else 1e-5 * n
        assert sums[component] == pytest.approx(seconds, abs=slack), component
    assert set(sums) <= set(want)


@pytest.mark.parametrize(("folder", "scenario"), cases(SGLANG), ids=_id)
def test_sglang_claims_are_the_spans_phases(folder: Path, scenario: str) -> None:
    found = claimed(folder, scenario, "sglang")
    assert (found.traffic.verdict, found.traffic.bias, found.doubts) == ("own", 0.0, ())
    truth, sums = sglang(folder)[scenario], by_component(found)
    near = {"rel": 1e-4, "abs": 1e-3}
    assert sums["prefill"] == pytest.approx(truth["prefill_forward"], **near)
    queue = truth["prefill_waiting"] + (
        truth["decode_waiting"] if folder.name == "pd" else 0.0  # on one server: interference
    )
    assert sums["queue"] == pytest.approx(queue, **near)
    if folder.name == "pd":
        names = ("prefill_bootstrap", "prefill_transfer_kv_cache", "decode_bootstrap")
        known_wait = sum(truth[name] for name in names)
        # What the decode server waited for beyond all that the prefill server says it did.
        remote = ("prefill_bootstrap", "prefill_waiting", "prefill_forward")
        rest = truth["decode_transferred"] - truth["prefill_transfer_kv_cache"]
        rest -= sum(truth[name] for name in remote)
        assert known_wait - 1e-3 <= sums["interconnect"] <= known_wait + max(0.0, rest) + 1e-3
    else:
        assert "interconnect" not in sums
    # Added up, the claims are the server's own end to end: nothing lost, nothing twice. (Its ITL
    # and TTFT are stamped elsewhere than its e2e: in one recording they are 1.1 % longer.)
    known = catalogue.stack("sglang")
    role = "decode" if folder.name == "pd" else "unified"
    e2e = next(
        one
        for one in totals(window(folder, scenario), known.signals)
        if one.signal.name == "sglang.metrics.e2e" and one.role == role
    )
    assert 1 - 1e-6 <= sum(sums.values()) / (e2e.sum_ns / 1e9) <= 1.02


def test_more_traffic_than_ones_own_is_only_bounded() -> None:
    folder = CAPTURES / "vllm-0.24.0-h200" / "tp1"
    found = claimed(folder, "c64", "vllm", own=100)
    assert found.traffic.verdict == "others" and found.traffic.finished == {"unified": 192}
    whole_window = by_component(claimed(folder, "c64", "vllm"))
    for claim in found.claims:
        assert claim.sum_ns is None
        assert 0 <= claim.lo_ns <= claim.hi_ns
    queue = next(one for one in found.claims if one.components == ("queue",))
    assert queue.hi_ns <= whole_window["queue"] * 1e9 * (1 + 1e-9)


def test_fewer_requests_than_were_sent_is_a_contradiction() -> None:
    found = claimed(CAPTURES / "vllm-0.24.0-h200" / "tp1", "c64", "vllm", own=193)
    assert found.traffic.verdict == "contradictory" and found.claims == ()
    assert "192" in found.traffic.text and "193" in found.traffic.text


def test_metrics_contradict_spans_that_were_mixed_up() -> None:
    folder = CAPTURES / "vllm-0.24.0-h200" / "tp1"
    truth = vllm(folder)["c64", "unified"]
    claims = claimed(folder, "c64", "vllm").claims
    n = int(truth["n"])
    right = {name: (round(truth[name] * 1e9), n) for name in ("queue", "prefill", "decode")}
    assert contradictions(claims, right) == []
    swapped = {**right, "queue": right["prefill"], "prefill": right["queue"]}
    said = contradictions(claims, swapped)
    assert len(said) == 2 and said[0].startswith("queue: 372.7 ms")
