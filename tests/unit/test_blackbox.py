"""From outside: the workload's requests in components, against servers with known books."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.laws import explain as blackbox
from latdiag.attribution.laws.laws import Laws
from latdiag.attribution.parts import Parts
from latdiag.diagnosis.breakdown import breakdown, leaves
from latdiag.model.components import COMPONENTS
from tests.profiles import examples, repetitions

from .probe_rows import CLIENT, MS, REST, TRIP, Reply, any_replies, gets, refusals, reply, seen
from .test_laws import thrown

STEP = 10.0


def parse(isl: int) -> float:
    return 1.0 + 0.004 * isl


def compute(isl: int) -> float:
    return 12.0 + 0.05 * isl


def probe(
    waits: list[float],
    *,
    path: float = 0.3,
    transfer: float = 0.0,
    refuses: bool = True,
    seed: int = 0,
    segments: int = 2,
    lost: float | None = 0.9,
    loaded: bool = True,
    every: float = 120.0,
) -> list[Reply]:
    """Designed stages, and a workload whose requests wait ``waits`` ms before their prefill.

    ``lost``: of a long prompt's time, by the streams that run; None: nobody tried. ``loaded``:
    GETs and refusals beside the workload are as quick as alone, and of two prompts at once one
    waits for the other. ``every``: ms between the workload's requests.
    """
    random = np.random.default_rng(seed)

    def one(
        stage: str, isl: int, at: float, osl: int, wait: float = 0.0, segment: str = ""
    ) -> Reply:
        server = (path + parse(isl) + compute(isl)) * random.normal(1, 0.003) + wait
        gaps = [STEP * random.lognormal(0, 0.01) for _ in range(osl - 1)]
        if stage == "S10":
            # One engine makes the tokens of all streams in the same steps.
            gaps = [STEP] * (osl - 1)
            at -= (at + server) % STEP
        gaps[0] += transfer
        return reply(stage, isl, at, server, gaps, scenario=segment)

    rows = gets(path * random.normal(1, 0.01, 10))
    if refuses:
        lengths = (32, 512, 1024) * 3
        rows += refusals((n, (path + parse(n)) * random.normal(1, 0.01)) for n in lengths)
    if loaded:
        rows += [replace(row, stage="S7") for row in rows]
        rows += in_turn(path)
    ladder = (32, 64, 128, 256, 512, 768, 1024) * 3
    rows += [one("S3", isl, 1000 * (k + 2), 4) for k, isl in enumerate(ladder)]
    rows += thrown(lost, own=lambda n: path + parse(n) + compute(n)) if lost is not None else []
    rows += [one("S5", isl, 30_000 + 9000 * k, 65) for k, isl in enumerate((32, 2048))]
    for k, wait in enumerate(waits):
        segment = f"segment-{1 + k * segments // len(waits)}"
        osl, isl = int(random.integers(8, 40)), int(random.integers(40, 1000))
        rows.append(one("S10", isl, 100_000 + every * k, osl, wait, segment))
    return rows


def in_turn(path: float) -> list[Reply]:
    """S4: of two prompts at once one waits for the other, twice."""
    alone, work = path + parse(2048) + compute(2048), compute(2048)
    return [
        reply("S4", 2048, at, alone + wait, [STEP])
        for at in (90_000.0, 92_000.0)
        for wait in (0.0, work)
    ]


def explained(rows: Sequence[Reply]) -> tuple[Parts, Laws]:
    return _explained(tuple(rows))


@lru_cache(maxsize=8)
def _explained(rows: tuple[Reply, ...]) -> tuple[Parts, Laws]:
    """Several tests look at the same probe from several sides."""
    found = blackbox.explain(seen(rows))
    assert found is not None
    return found


def total_ms(parts: Parts, name: str) -> float:
    return float(parts.parts[name].sum()) / MS


WAITS = np.random.default_rng(5).exponential(60.0, 60).tolist()


# ---------------------------------------------------------------------- known books
@pytest.mark.parametrize("seed", range(3))
def test_waiting_is_what_a_prompt_takes_beyond_its_own(seed: int) -> None:
    rows = probe(WAITS, seed=seed)
    parts, laws = explained(rows)
    work = [row for row in rows if row.stage == "S10"]
    assert laws.refusals is not None and laws.transfer is None
    assert total_ms(parts, "queue") == pytest.approx(sum(WAITS), rel=0.02)
    assert total_ms(parts, "frontend") == pytest.approx(sum(parse(r.isl) for r in work), rel=0.1)
    own = sum(compute(r.isl) for r in work)
    assert total_ms(parts, "prefill") == pytest.approx(own, rel=0.02)
    stream = sum(r.arrivals[-1] - r.arrivals[0] for r in work)
    assert int(parts.parts["decode"].sum()) == stream
    assert parts.segments == 2 and parts.left_out == 0
    assert parts.sources["prefill"].members == () and parts.sources["network"].members == ()


def test_who_waits_alone_does_not_wait_in_a_queue_of_ours() -> None:
    """No request of ours is there: another's may be, or the laws are wrong."""
    parts, _ = explained(probe(WAITS, every=3000.0))
    (members,) = {source.members for source in parts.sources.values() if source.members}
    assert {"queue", "prefill"} <= set(members) and "decode" not in members


def test_without_waiting_there_is_no_queue() -> None:
    parts, _ = explained(probe([0.0] * 60))
    assert abs(total_ms(parts, "queue")) < 0.01 * float(parts.total.sum()) / MS


def test_a_long_way_is_network_merged_with_gateway() -> None:
    parts, _ = explained(probe(WAITS, path=80.0))
    assert parts.sources["network"].members == ("network", "gateway")
    assert parts.sources["network"].grade == "C" and parts.sources["queue"].members == ()
    assert total_ms(parts, "network") == pytest.approx(60 * (80.0 + TRIP / MS), rel=0.02)
    assert total_ms(parts, "queue") == pytest.approx(sum(WAITS), rel=0.06)


def test_without_refusals_prefill_and_frontend_stay_merged() -> None:
    rows = probe([0.0] * 60, refuses=False, lost=None)
    parts, _ = explained(rows)
    assert parts.sources["frontend"].members == ("frontend", "prefill", "interconnect")
    assert parts.sources["frontend"].grade == "E" and "prefill" not in parts.parts
    own = sum(parse(r.isl) + compute(r.isl) for r in rows if r.stage == "S10")
    assert total_ms(parts, "frontend") == pytest.approx(own, rel=0.02)


def test_streams_that_stop_for_a_prompt_show_how_much_of_it_the_engine_takes() -> None:
    """No refusal says what a frontend takes; but the streams say that it is little."""
    rows = probe(WAITS, refuses=False)
    parts, laws = explained(rows)
    assert laws.before is not None and laws.before.constant_ns == 0
    assert parts.sources["prefill"].members == ()
    own = sum(parse(r.isl) + compute(r.isl) for r in rows if r.stage == "S10")
    assert total_ms(parts, "prefill") == pytest.approx(own, rel=0.02)
    assert float(parts.slack["frontend"][1].sum()) > 0


def test_a_transfer_is_taken_out_of_the_stream() -> None:
    parts, laws = explained(probe(WAITS, transfer=90.0, lost=0.0))
    assert laws.transfer is not None and laws.transfer.proven
    assert total_ms(parts, "interconnect") == pytest.approx(60 * 90.0, rel=0.03)
    assert parts.sources["prefill"].members == ()
    entry = breakdown(parts, "decode", "mean")
    assert entry is not None and entry.shares["interconnect"].sum_ns > 0


def test_a_late_second_token_that_nothing_explains_stays_in_decode() -> None:
    """Prompts slow the streams that run: prefill is in the same engine, and hands nothing over."""
    parts, laws = explained(probe(WAITS, transfer=90.0, lost=0.9))
    assert laws.transfer is not None and not laws.transfer.proven
    assert parts.sources["interconnect"].members == ("interconnect", "decode")
    assert parts.sources["interconnect"].grade == "E" and "decode" not in parts.parts


@pytest.mark.parametrize(
    ("lost", "members"),
    [
        (0.9, ()),
        (0.0, ("queue", "prefill", "interconnect")),
        (None, ("queue", "prefill", "interconnect")),
    ],
)
def test_where_prefill_may_be_elsewhere_its_time_may_hold_a_transfer(
    lost: float | None, members: tuple[str, ...]
) -> None:
    parts, _ = explained(probe(WAITS, lost=lost))
    assert parts.sources[members[0] if members else "prefill"].members == members
    rest = "decode.interference" if lost else "decode.stall"
    assert rest in parts.leaves


def test_what_holds_tokens_back_for_a_burst_may_hold_the_first_one_back() -> None:
    """All that comes goes on each 120 ms: the last token waits too, and what was made while the
    first one waited is decode."""
    long = reply("S2", 32, 50_000, 30.0, [STEP] * 120)
    steady = [*probe([0.0] * 60), long]
    period = 120 * MS
    rows = [
        replace(row, arrivals=tuple(-(-at // period) * period for at in row.arrivals))
        for row in steady
    ]
    parts, laws = explained(rows)
    assert laws.delivery.bursts_ns == pytest.approx(period, rel=0.05)
    held = sum(
        new.arrivals[-1] - old.arrivals[-1]
        for new, old in zip(rows, steady, strict=True)
        if old.stage == "S10"
    )
    decode = sum(old.arrivals[-1] - old.arrivals[0] for old in steady if old.stage == "S10")
    assert int(parts.parts["decode"].sum()) == pytest.approx(decode, rel=0.05)
    assert "gateway" in {name for s in parts.sources.values() for name in s.members} | set(
        parts.parts
    )
    rest = int(parts.total.sum()) - int(parts.parts["decode"].sum())
    assert rest > held
    _, even = explained(steady)
    assert even.delivery.bursts_ns == 0.0


def test_what_a_request_takes_alone_leaves_its_waiting_out() -> None:
    rows = probe(WAITS)
    parts, _ = explained(rows)
    assert parts.alone is not None
    gone = (parts.total - parts.alone) / MS
    assert gone.sum() == pytest.approx(sum(WAITS), rel=0.05)


@pytest.mark.repeated
def test_the_draws_say_how_far_the_laws_may_be_off() -> None:
    """The prefill that other probes of the same server state scatters as the draws do."""
    stated, drawn = [], []
    for seed in range(max(8, repetitions(25))):
        rows = probe([0.0] * 40, seed=seed)
        fixed = [r for r in probe([0.0] * 40, seed=99) if r.stage == "S10"]
        parts, _ = explained([r for r in rows if r.stage != "S10"] + fixed)
        stated.append(total_ms(parts, "prefill"))
        drawn.append(float(parts.draws["prefill"].sum(axis=1).std()) / MS)
    assert 0.5 < float(np.median(drawn)) / float(np.std(stated)) < 2.0


# ---------------------------------------------------------------------- leaves
def test_leaves_of_decode_add_up_to_it_in_every_row() -> None:
    parts, _ = explained(probe(WAITS))
    fine = parts.leaves
    assert set(fine) == {"decode.base", "decode.batch", "decode.interference"}
    assert np.array_equal(sum(fine.values()), parts.parts["decode"])
    shares = leaves(parts, "mean")
    assert shares["decode.base"].sum_ns > 0.98 * int(parts.parts["decode"].sum())
    assert sum(e.sum_ns for e in shares.values()) == int(parts.parts["decode"].sum())


def test_streams_that_slow_down_have_a_part_beyond_their_step() -> None:
    """The workload's gaps are 14 ms where a stream alone takes 10."""
    rows = [
        replace(
            row,
            arrivals=tuple(
                row.arrivals[0] + round(1.4 * (t - row.arrivals[0])) for t in row.arrivals
            ),
        )
        if row.stage == "S10"
        else row
        for row in probe(WAITS)
    ]
    parts, _ = explained(rows)
    shares = leaves(parts, "mean")
    whole = int(parts.parts["decode"].sum())
    assert shares["decode.interference"].sum_ns / whole == pytest.approx(0.4 / 1.4, rel=0.05)


# ---------------------------------------------------------------------- what always holds
@examples(80)
@given(any_replies())
def test_sums_are_exact_and_merges_are_those_that_are_allowed(rows: list[Reply]) -> None:
    found = blackbox.explain(seen(rows))
    if found is None:
        return
    parts, _ = found
    assert set(parts.parts) == set(parts.sources) <= set(COMPONENTS)
    assert np.array_equal(sum(parts.parts.values()), parts.total)
    assert np.array_equal(sum(parts.inside("client_ttft").values()), parts.ttft)
    waits = {n for n, source in parts.sources.items() if "queue" in (n, *source.members)}
    for name in set(parts.parts) - waits - {"interconnect", "unattributed"}:
        assert (parts.parts[name] >= 0).all(), (name, parts.parts[name].min(), parts.sources[name])
    assert all((open_ >= 0).all() for both in parts.slack.values() for open_ in both)
    # What one lacks another has; of several that might have it, each.
    lacking = sum(float(less.sum()) for less, _ in parts.slack.values())
    assert lacking <= sum(float(more.sum()) for _, more in parts.slack.values()) * (1 + 1e-9) + 1
    merged = {source.members for source in parts.sources.values() if source.members}
    shown = [m for s in parts.sources.values() for m in s.members]
    assert len(shown) == len(set(shown)) and not (set(shown) - set(parts.parts) - _hidden(merged))
    ok = sum(row.stage == "S10" and bool(row.arrivals) for row in rows)
    assert len(parts.total) + parts.left_out == ok


def _hidden(merged: set[tuple[str, ...]]) -> set[str]:
    return {member for members in merged for member in members[1:]}


@examples(80)
@given(any_replies(most=40), st.sampled_from(["mean", "p95_tail"]))
def test_what_is_shown_adds_up_and_is_not_negative(rows: list[Reply], population: str) -> None:
    found = blackbox.explain(seen(rows))
    if found is None:
        return
    for interval in ("client_e2e", "client_ttft", "decode"):
        entry = breakdown(found[0], interval, population)
        if entry is None:
            continue
        named = entry.shares
        assert sum(e.sum_ns for e in named.values()) == entry.total_ns
        for name, each in named.items():
            assert each.sum_ns >= 0 or name == "unattributed", (name, interval)
    decode = [e.sum_ns for e in leaves(found[0], population).values()]
    if decode:
        assert all(value >= 0 for value in decode)


def test_the_same_rows_give_the_same_parts() -> None:
    rows = probe(WAITS)
    one, _ = explained(rows)
    two, _ = explained(rows[::-1])
    for name in one.parts:
        assert np.array_equal(one.parts[name], two.parts[name])
        assert np.array_equal(one.draws.get(name, 0), two.draws.get(name, 0))


def test_requests_that_the_stamps_do_not_split_are_counted() -> None:
    rows = probe(WAITS)
    found = seen(rows)
    lost = np.flatnonzero(found.stage == "S10")[:7]
    found.usable[lost] = False
    explained_ = blackbox.explain(found)
    assert explained_ is not None and explained_[0].left_out == 7
    assert int(explained_[0].parts["client"][0]) == CLIENT
    assert int(explained_[0].parts["unattributed"][0]) == REST


@examples(60)
@given(st.floats(0, 300), st.floats(0, 300), st.floats(0, 300), st.floats(0, 60))
def test_laws_that_are_too_dear_for_the_workload_make_no_part_negative(
    parsing: float, computing: float, took: float, path: float
) -> None:
    """A workload that the laws do not fit: its prompts came from a cache, say."""
    rows = gets([path] * 8) + refusals([(n, path + parsing) for n in (32, 1024) * 3])
    for k, isl in enumerate((32, 256, 1024) * 4):
        server = path + parsing + computing
        rows.append(reply("S3", isl, 1000 * (k + 2), server, [STEP] * 8))
    for k in range(40):
        gaps = [STEP] * 8
        rows.append(reply("S10", 512, 90_000 + 3000 * k, took, gaps, scenario="segment-1"))
    entry = breakdown(explained(rows)[0], "client_e2e", "mean")
    assert entry is not None
    named = {n: e.sum_ns for n, e in entry.shares.items()}
    assert sum(named.values()) == entry.total_ns
    assert min(named.values()) >= 0, named
    for name, each in entry.shares.items():
        assert each.lo <= each.share <= each.hi, name
