"""The whole attribution: what a probe adds to what any load proves, and the claims on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import Phase, given

from latdiag.attribution.accounts import Account
from latdiag.attribution.client_only import partition
from latdiag.attribution.parts import Parts, Source
from latdiag.attribution.replies.source import rank_of
from latdiag.diagnosis.attribution import POPULATIONS, Attribution, attribute
from latdiag.diagnosis.result import Result
from latdiag.measurement.frame import frame
from latdiag.measurement.observations import Observations
from latdiag.model.components import COMPONENTS
from latdiag.report import json as report_json
from tests.profiles import examples
from tests.schema import validate

from .probe_rows import Reply, any_replies, reply, seen
from .test_blackbox import WAITS, parse, probe

SOURCES = partition(frame([])).sources


def whole_of(found: Observations) -> Parts:
    """What any load proves of the workload's rows: everything behind the hop is one class."""
    rows = found.of("S10")
    columns = {
        "client": found.client[rows],
        "network": found.network[rows],
        "queue": found.server[rows],
        "decode": (found.last - found.first)[rows],
        "unattributed": (found.done - found.last)[rows],
    }
    total, ttft = (found.done - found.begin)[rows], (found.first - found.begin)[rows]
    flags = found.delayed[rows]
    return Parts(total, ttft, columns, flags, 0, SOURCES)


def attributed(rows: Sequence[Reply], valid: bool = True) -> Attribution:
    return _attributed(tuple(rows), valid)


@lru_cache(maxsize=8)
def _attributed(rows: tuple[Reply, ...], valid: bool) -> Attribution:
    """Several tests look at the same probe from several sides."""
    found = seen(rows)
    return attribute(whole_of(found), found, valid)


def as_result(said: Attribution) -> dict[str, object]:
    """A result with this attribution in it, as it would be printed."""
    keys = ("breakdowns", "leaves", "by", "verdict", "learned", "claims")
    result = Result(verb="probe", **{key: getattr(said, key) for key in keys})
    return dict(json.loads(report_json.dump(result)))


# ---------------------------------------------------------------------- with and without a probe
def test_a_probe_splits_what_a_load_leaves_merged() -> None:
    said = attributed(probe(WAITS))
    mean = said.breakdowns["mean"]
    assert set(mean.shares) == {
        *("client", "network", "frontend", "queue", "prefill", "decode", "unattributed")
    }
    assert said.learned is not None and said.leaves["mean"]["decode.base"].share > 0.5
    load = attribute(whole_of(seen(probe(WAITS))), None, True)
    assert load.breakdowns["mean"].shares["queue"].members == (
        "queue",
        "prefill",
        "frontend",
        "gateway",
    )
    assert load.learned is None and load.leaves == {}


@pytest.mark.parametrize("parted", [True, False])
def test_replies_that_do_not_tell_queue_from_the_rest_are_no_better_than_a_probe(
    parted: bool,
) -> None:
    found = seen(probe(WAITS))
    whole = whole_of(found)
    server = whole.parts["queue"]
    named = (
        {"queue": server // 2, "prefill": server - server // 2}
        if parted
        else {"queue": server - server // 4, "prefill": server // 4}
    )
    sources = dict(SOURCES) | {
        "queue": Source("A", "replies") if parted else Source("E", "rest", ("queue", "gateway")),
        "prefill": Source("A", "replies"),
    }
    replied = replace(whole, parts=whole.parts | named, sources=sources)
    said = attribute(whole, found, True, servers=[Account(rank_of(replied), replied)])
    grades = {said.breakdowns["mean"].shares["queue"].grade}
    assert grades == ({"A"} if parted else {"C"})
    lower = [c for c in said.claims["prefill"] if not c.used]
    assert ("A" in {c.grade for c in lower}) is not parted


def test_what_the_probe_could_not_teach_stays_merged() -> None:
    only = [row for row in probe(WAITS) if row.stage in ("S1", "S10")]
    said = attributed(only)
    assert said.learned is None
    assert said.breakdowns["mean"].shares["queue"].members == (
        "queue",
        "prefill",
        "frontend",
        "gateway",
    )


def test_what_was_learned_is_what_the_server_does() -> None:
    learned = attributed(probe(WAITS)).learned
    assert learned is not None
    for band in learned.alone_ms:
        # Path, frontend and prefill of the books; the path is an HTTP layer and stays inside.
        truth = 0.3 + parse(band.isl) + 12.0 + 0.05 * band.isl
        assert band.lo <= band.value <= band.hi
        assert band.value == pytest.approx(truth, rel=0.02)
    for band in learned.frontend_ms:
        assert band.value == pytest.approx(0.3 + parse(band.isl), rel=0.05)
    assert learned.path_ms.value == pytest.approx(0.3, rel=0.05)
    assert learned.path_ms.is_way is False and learned.path_ms.n == 10
    assert learned.step_ms == pytest.approx(10.0, rel=0.02)
    assert learned.transfer_ms is None and learned.let_in is None
    assert learned.prefill_stops_decode == "shared" and learned.bursts_ms is None
    assert learned.prefill_stops_decode_share == pytest.approx(0.9, abs=0.06)


def test_a_population_that_says_too_little_says_so() -> None:
    said = attributed(probe(WAITS))
    assert said.breakdowns["mean"].insufficient is None
    assert said.breakdowns["p95_tail"].insufficient.startswith("3 requests; 30 are needed")
    assert said.verdict.population == "mean"
    few = attributed(probe(WAITS[:20]))
    assert few.breakdowns["mean"].insufficient is not None
    assert few.verdict.kind == "insufficient"


# ---------------------------------------------------------------------- claims
def test_every_share_that_is_used_is_a_claim_and_the_bounds_are_kept() -> None:
    said = attributed(probe(WAITS))
    for population in POPULATIONS:
        for name, entry in said.breakdowns[population].shares.items():
            for member in entry.members or (name,):
                mine = [c for c in said.claims[member] if c.population == population]
                (used,) = [c for c in mine if c.used]
                assert (used.share, used.lo, used.hi) == (entry.share, entry.lo, entry.hi)
                assert used.why is None and used.evidence
    (lost,) = [c for c in said.claims["gateway"] if c.population == "mean"]
    assert not lost.used and lost.why and lost.of[0] == "queue" and lost.grade == "E"


def test_a_claim_that_lost_contains_what_was_used() -> None:
    """The bound of everything behind the hop is the sum of what the probe split it into."""
    said = attributed(probe(WAITS))
    mean = said.breakdowns["mean"]
    (bound,) = [c for c in said.claims["queue"] if c.population == "mean" and not c.used]
    inside = sum(mean.shares[name].share for name in ("frontend", "queue", "prefill"))
    assert bound.share == pytest.approx(inside)


# ---------------------------------------------------------------------- what always holds
@examples(50, phases=[Phase.generate, Phase.explicit])
@given(any_replies(most=45))
def test_whatever_comes_the_result_keeps_to_its_schema(rows: list[Reply]) -> None:
    said = attributed(rows)
    result = as_result(said)
    validate(result)
    for entry in said.breakdowns.values():
        named = entry.shares
        assert sum(e.sum_ns for e in named.values()) == entry.total_ns
        merged = [e.members for e in named.values() if e.members]
        hidden = {member for members in merged for member in members[1:]}
        assert not hidden & set(named)
    assert set(said.claims) <= set(COMPONENTS)
    again = as_result(attributed(rows[::-1]))
    assert json.dumps(again) == json.dumps(result)


def test_a_broken_self_audit_takes_the_verdict_and_nothing_else() -> None:
    rows = probe(WAITS)
    good, bad = attributed(rows), attributed(rows, valid=False)
    assert bad.verdict.kind == "client_limited" and good.verdict.kind != "client_limited"
    assert bad.breakdowns == good.breakdowns and bad.claims == good.claims


def test_streams_of_the_workload_may_be_a_single_token_long() -> None:
    rows = [row for row in probe(WAITS) if row.stage != "S10"]
    rows += [
        reply("S10", 300, 90_000 + 500 * k, 29.5, [], scenario="segment-1") for k in range(40)
    ]
    said = attributed(rows)
    assert said.breakdowns["mean"].shares["decode"].sum_ns == 0
    assert np.isclose(said.breakdowns["mean"].shares["prefill"].share, 27.0 / 29.8, atol=0.05)
