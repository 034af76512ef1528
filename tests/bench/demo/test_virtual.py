"""The design and the laws against drawn servers in virtual time: seconds, so always run.

What the bench proper adds is the client: sockets, stamps, processes, and lateness.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from latdiag.attribution.laws import explain as blackbox
from latdiag.diagnosis.attribution import attribute
from latdiag.measurement.stages import WORKLOAD
from latdiag.model.document import document
from latdiag.sim.params import FAULTS, OF_SERVER, Params

from . import judge
from .cases import case
from .virtual import CLIENT_NS, REST_NS, Virtual, probed

SEEDS = range(1000, 1056)


def said(server: Virtual) -> dict[str, Any]:
    seen = server.observed()
    explained = blackbox.explain(seen)
    assert explained is not None
    found = attribute(explained[0], seen, valid=True)
    shown = {"breakdown": found.breakdowns, "verdict": found.verdict, "learned": found.learned}
    return dict(document(shown))


def truth(server: Virtual) -> judge.Truth:
    rows = [row for row in server.rows if row.stage == WORKLOAD]
    total = sum(row.arrivals[-1] + REST_NS - row.begin for row in rows)
    books = [{"leaves": server.truths[row.key].leaves} for row in rows]
    return judge.truth_of(total, CLIENT_NS * len(rows), REST_NS * len(rows), books)


@cache
def preset(fault: str, seed: int) -> tuple[dict[str, Any], judge.Truth, float]:
    server = probed(FAULTS[fault], seed)
    return said(server), truth(server), server.now / 1e9


@cache
def drawn() -> list[judge.Score]:
    scores = []
    for seed in SEEDS:
        faults, params = case(seed)
        server = probed(params, seed)
        scores.append(judge.score(faults, said(server), truth(server)))
    return scores


@pytest.mark.parametrize("fault", OF_SERVER)
def test_each_fault_is_found_in_time(fault: str) -> None:
    for seed in (1, 2, 3):
        result, books, seconds = preset(fault, seed)
        found = judge.score((fault,), result, books)
        assert found.verdict == "right", (seed, found)
        assert result["verdict"]["kind"] not in ("ambiguous", "insufficient"), (seed, found)
        assert found.worst < 0.05, (seed, found)
        assert seconds < 60, "in virtual time, without the client's own start"


def test_drawn_servers_are_explained() -> None:
    assert not judge.unmet(drawn()), judge.table(drawn(), SEEDS)


def test_swapped_books_are_noticed() -> None:
    """A judge that any books would satisfy judges nothing."""
    first, second = (preset(fault, 1) for fault in ("queue", "kv-transfer"))
    straight = [
        judge.score(("queue",), first[0], first[1]),
        judge.score(("kv-transfer",), second[0], second[1]),
    ]
    crossed = [
        judge.score(("queue",), first[0], second[1]),
        judge.score(("kv-transfer",), second[0], first[1]),
    ]
    assert not judge.unmet(straight)
    missed = " ".join(judge.unmet(crossed))
    assert "wrong verdicts" in missed and "error p95" in missed and "intervals" in missed


def test_a_kv_link_that_hides_before_the_first_token_is_in_the_class_that_is_named() -> None:
    params = Params(
        disaggregated=True, kv_setup_ms=5.0, kv_us=700.0, first_token="decode", weights_ms=3.0
    )
    server = probed(params, 5)
    result = said(server)
    dominant = result["verdict"]["dominant"]
    members = result["breakdown"]["mean"][dominant]["members"]
    assert members == ["queue", "prefill", "interconnect"]
    found = judge.score(("kv-transfer",), result, truth(server))
    assert all(covers for _, _, covers in found.errors.values()), found
    # What waits for the link looks like what waits for the engine.


def test_two_equal_faults_leave_no_single_answer() -> None:
    """A way and a queue of the same size: neither may be named alone with confidence."""
    kinds = set()
    for seed in range(6):
        server = probed(Params(max_seqs=1, weights_ms=9.0, network_ms=120.0), seed)
        shares = truth(server)
        close = abs(shares.share(["network"]) - shares.share(["queue"])) < 0.05
        if close:
            kinds.add(said(server)["verdict"]["kind"])
    assert kinds == {"ambiguous"}
