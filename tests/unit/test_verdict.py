"""The verdict: which sentence follows from which breakdown, and when there is none."""

from __future__ import annotations

from typing import Any

import pytest

from latdiag.attribute.verdict import verdict

NAMES = ("client", "network", "queue", "decode", "unattributed")


def entry(shares: dict[str, float], n: int = 1000, half: float | None = 0.02) -> dict[str, Any]:
    """A breakdown with these shares; the rest is queue. ``half``: half width of the intervals."""
    left = 1.0 - sum(shares.values())
    found: dict[str, Any] = {"interval": "client_e2e", "total_ns": 10**12, "n": n}
    for name in NAMES:
        share = shares.get(name, 0.0) + (left if name == "queue" else 0.0)
        found[name] = {
            "share": share,
            "lo": None if half is None else share - half,
            "hi": None if half is None else share + half,
            "sum_ns": round(share * 10**12),
            "grade": "E" if name == "queue" else "A",
        }
    found["queue"]["members"] = ["queue", "prefill", "frontend", "gateway"]
    return found


def tail(shares: dict[str, float], n: int = 50, half: float | None = 0.02) -> dict[str, Any]:
    return entry(shares, n, half)


QUEUE, DECODE, NETWORK = {"queue": 0.7, "decode": 0.3}, {"decode": 0.8}, {"network": 0.6}
CLIENT, EVEN = {"client": 0.9}, {"decode": 0.49}

TABLE = [
    # mean, tail, valid -> dominant, population, confidence, kind
    (QUEUE, QUEUE, True, "queue", "p95_tail", "bounded", "bottleneck"),
    (QUEUE, DECODE, True, "decode", "p95_tail", "measured", "bottleneck"),
    (DECODE, None, True, "decode", "mean", "measured", "bottleneck"),
    (NETWORK, NETWORK, True, "network", "p95_tail", "measured", "bottleneck"),
    (CLIENT, CLIENT, True, "client", "p95_tail", "measured", "client_limited"),
    (EVEN, EVEN, True, None, "p95_tail", "bounded", "ambiguous"),
    (QUEUE, QUEUE, False, None, "p95_tail", "insufficient", "client_limited"),
    (CLIENT, None, False, None, "mean", "insufficient", "client_limited"),
]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: f"{case[6]}-{case[3]}-{case[4]}")
def test_the_table(case: tuple[Any, ...]) -> None:
    mean, slow, valid, dominant, population, confidence, kind = case
    found = {"mean": entry(mean)} | ({} if slow is None else {"p95_tail": tail(slow)})
    said = verdict(found, valid)
    assert said["dominant"] == dominant
    assert said["population"] == population
    assert said["confidence"] == confidence
    assert said["kind"] == kind
    assert said["sentence"].endswith(".") and said["next"].endswith(".")


@pytest.mark.parametrize("found", [{}, {"mean": entry(QUEUE, n=29)}], ids=["none", "29"])
@pytest.mark.parametrize("valid", [True, False])
def test_too_few_requests_bear_no_verdict(found: dict[str, Any], valid: bool) -> None:
    said = verdict(found, valid)
    assert said["kind"] == said["confidence"] == "insufficient" and said["dominant"] is None
    assert f"{29 if found else 0} requests" in said["sentence"]


def test_a_thin_tail_leaves_the_word_to_the_mean() -> None:
    found = {"mean": entry(DECODE), "p95_tail": tail(QUEUE, n=29, half=None)}
    said = verdict(found, True)
    assert (said["population"], said["dominant"]) == ("mean", "decode")
    assert "all requests" in said["sentence"]
    assert "slowest 5 %" in verdict(found | {"p95_tail": tail(QUEUE, n=30)}, True)["sentence"]


@pytest.mark.parametrize(("half", "kind"), [(0.04, "bottleneck"), (0.06, "ambiguous")])
def test_a_leader_leads_only_over_its_whole_interval(half: float, kind: str) -> None:
    """55 % against 45 %."""
    said = verdict({"mean": entry({"decode": 0.55}, half=half)}, True)
    assert said["kind"] == kind
    if kind == "ambiguous":
        assert "55 %" in said["sentence"] and "45 %" in said["sentence"]
        assert "neither leads" in said["sentence"]
    else:
        assert said["sentence"].startswith("55 % of the time of all requests goes to decode")


def test_without_intervals_nobody_leads() -> None:
    assert verdict({"mean": entry(QUEUE, half=None)}, True)["kind"] == "ambiguous"


def test_the_merged_class_is_named_whole_and_the_next_step_splits_it() -> None:
    said = verdict({"mean": entry(QUEUE)}, True)
    assert "queue, prefill, frontend" in said["sentence"]
    assert "--concurrency 1" in said["next"]


def test_a_bounded_network_is_said_to_be_bounded() -> None:
    found = entry(NETWORK)
    found["network"]["grade"] = "D"
    assert verdict({"mean": found}, True)["confidence"] == "bounded"


def test_requests_that_took_no_time_bear_no_verdict() -> None:
    found = entry(QUEUE)
    found["total_ns"] = 0
    for name in NAMES:
        found[name] |= {"share": None, "lo": None, "hi": None, "sum_ns": 0}
    assert verdict({"mean": found}, True)["kind"] == "insufficient"
