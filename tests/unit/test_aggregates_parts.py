"""Sums of servers handed out to requests: exact, never negative, and honest about the rest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from latdiag.attribution.metrics import explain as aggregates_parts
from latdiag.attribution.metrics.division import poured
from latdiag.attribution.metrics.shares import Share, Told
from latdiag.attribution.metrics.windows import Edges
from latdiag.attribution.parts import Parts
from latdiag.diagnosis.breakdown import breakdown, chosen_rows
from latdiag.measurement.frame import Frame, joined
from tests.profiles import examples

MS = 1_000_000
#: Upper bounds of vLLM's histograms of phases, ns.
BOUNDS = (*(1e9 * s for s in (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 20)), math.inf)
Ints = NDArray[np.int64]


def requests(
    behind: Ints, decode: Ints | int = 100 * MS, *, kernel: bool = True, first_at: int = 10**15
) -> Frame:
    """Requests 1 ms apart: 1 ms of client, 2 ms of network (1 to 4), then ``behind``."""
    n = len(behind)
    begin = first_at + MS * np.arange(n)
    first = begin + 3 * MS + behind
    last = first + decode
    texts = np.array([f"{at:032x}" for at in range(n)], dtype=object)
    given: dict[str, Any] = {
        "trace_id": texts,
        "span_id": texts,
        "request_id": texts,
        "response_id": texts,
        "scenario": np.full(n, "", dtype=object),
        "clock_id": np.full(n, "c", dtype=object),
        "begin": begin,
        "sent": begin + MS,
        "first": first,
        "last": last,
        "done": last + 5,
        "client": np.full(n, MS),
        "network": np.full(n, 2 * MS),
        "network_lo": np.full(n, MS),
        "network_hi": np.full(n, 4 * MS),
        "delayed": np.zeros(n, dtype=bool),
        "kernel": np.full(n, kernel),
    }
    return joined([given])


NOBODY = requests(np.zeros(0, dtype=np.int64))


def share(component: str, values: Ints, *, open_ns: int = 0, bounds: Any = BOUNDS) -> Share:
    """The sum of what each request had, and its histogram."""
    total = int(values.sum())
    counts = tuple(int((values <= bound).sum()) for bound in bounds)
    return Share(
        component,
        f"{component}.admission" if component == "queue" else "",
        "unified",
        f"{component}_seconds",
        "B",
        total,
        total - open_ns,
        total + open_ns,
        tuple(bounds),
        counts,
    )


def window(n: int, *shares: Share, begin: int = 0, end: int = 2**62) -> Told:
    return Told(Edges((begin, begin), (end, end)), n, tuple(shares))


def explained(rows: Frame, *windows: Told, others: Frame = NOBODY) -> Parts:
    found = aggregates_parts.explain(rows, others, windows)
    assert isinstance(found, Parts), found
    return found


# ---------------------------------------------------------------------- pouring
@st.composite
def pourings(draw: st.DrawFn) -> tuple[NDArray[np.float64], Ints, int]:
    n = draw(st.integers(1, 40))
    most = draw(st.sampled_from([3, 1000, 10**13]))
    room = np.array(draw(st.lists(st.integers(0, most), min_size=n, max_size=n)))
    wanted = draw(st.lists(st.floats(-1e12, 1e14), min_size=n, max_size=n))
    return np.array(wanted), room.astype(np.int64), draw(st.integers(0, int(room.sum())))


@examples(300)
@given(pourings())
def test_what_is_poured_fits_and_adds_up_to_the_nanosecond(
    case: tuple[NDArray[np.float64], Ints, int],
) -> None:
    wanted, room, total = case
    found = poured(wanted, room, total)
    assert int(found.sum()) == total
    assert ((found >= 0) & (found <= room)).all()


def test_what_fits_as_it_is_wanted_is_left_alone() -> None:
    wanted = np.array([3.0, 0.0, 7.0])
    assert poured(wanted, np.array([5, 5, 7]), 10).tolist() == [3, 0, 7]


@pytest.mark.parametrize("total", [-1, 11])
def test_what_has_no_room_is_refused(total: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        poured(np.ones(2), np.array([5, 5]), total)


# ---------------------------------------------------------------------- exact sums
@st.composite
def worlds(draw: st.DrawFn) -> tuple[Ints, Ints, Ints]:
    """(queue, prefill, what else lies behind the hop) of each request, ns."""
    n = draw(st.integers(1, 60))
    times = st.lists(st.integers(0, 20_000 * MS), min_size=n, max_size=n)
    found = [np.array(draw(times), dtype=np.int64) for _ in range(3)]
    return found[0], found[1], found[2]


@examples(150)
@given(worlds(), st.booleans())
def test_sums_are_the_servers_and_rows_add_up(
    world: tuple[Ints, Ints, Ints], kernel: bool
) -> None:
    queue, prefill, other = world
    rows = requests(queue + prefill + other, kernel=kernel)
    parts = explained(rows, window(rows.n, share("queue", queue), share("prefill", prefill)))
    assert int(parts.parts["queue"].sum()) == queue.sum()
    assert int(parts.parts["prefill"].sum()) == prefill.sum()
    assert (np.sum([*parts.parts.values()], axis=0) == parts.total).all()
    assert all((column >= 0).all() for column in parts.parts.values())
    early = parts.inside("client_ttft")
    assert (np.sum([*early.values()], axis=0) == parts.ttft).all()
    assert (parts.inside("decode")["decode"] == rows.last - rows.first).all()
    # However it is handed out, it is as much in all.
    for name, draws in parts.draws.items():
        assert np.allclose(draws.sum(axis=1), float(parts.parts[name].sum()), rtol=1e-12, atol=1)
        assert (draws >= 0).all()


@examples(60)
@given(worlds(), st.randoms())
def test_the_order_of_requests_that_end_together_does_not_matter(
    world: tuple[Ints, Ints, Ints], random: Any
) -> None:
    queue, prefill, other = world
    behind = queue + prefill + np.unique(other)[0] + np.arange(len(queue))  # no two alike
    rows = requests(behind)
    told = window(rows.n, share("queue", queue), share("prefill", prefill))
    order = np.array(random.sample(range(rows.n), rows.n))
    one, other_way = explained(rows, told), explained(rows.select(order), told)
    for name in one.parts:
        assert int(one.parts[name].sum()) == int(other_way.parts[name].sum())


def test_each_window_has_its_own_sums() -> None:
    early, late = np.full(40, 50 * MS), np.full(40, 900 * MS)
    rows = requests(np.concatenate([early, late]) + 100 * MS)
    cut = int(rows.done[39])
    halves = [
        window(40, share("queue", early), share("prefill", np.full(40, 10 * MS)), end=cut),
        window(40, share("queue", late), share("prefill", np.full(40, 30 * MS)), begin=cut),
    ]
    found = explained(rows, *halves)
    assert int(found.parts["queue"][:40].sum()) == early.sum()
    assert int(found.parts["queue"][40:].sum()) == late.sum()
    assert int(found.parts["prefill"][:40].sum()) == 400 * MS


def test_a_warm_up_has_its_part_of_the_sums_and_none_of_the_parts() -> None:
    behind = np.full(90, 100 * MS)
    rows, warm = requests(behind), requests(np.full(10, 1000 * MS), first_at=9 * 10**14)
    queue = np.concatenate([np.full(90, 20 * MS), np.full(10, 800 * MS)])
    told = window(100, share("queue", queue), share("prefill", np.full(100, 10 * MS)))
    parts = explained(rows, told, others=warm)
    assert len(parts.total) == 90
    # The coarse buckets leave most of it open, but not that the slow ten had most.
    assert 0 < parts.parts["queue"].sum() < 0.4 * queue.sum()


def test_requests_without_usable_stamps_keep_their_part() -> None:
    queue, prefill = np.full(100, 40 * MS), np.full(100, 10 * MS)
    rows = requests(np.full(95, 100 * MS))
    parts = explained(rows, window(100, share("queue", queue), share("prefill", prefill)))
    assert int(parts.parts["queue"].sum()) == 95 * 40 * MS
    less, more = (float(each.sum()) for each in parts.slack["queue"])
    assert less == pytest.approx(5 * 40 * MS) and more == pytest.approx(5 * 40 * MS)


# ---------------------------------------------------------------------- what is merged, what not
def mean_ms(parts: Parts, name: str) -> float:
    """ms a request."""
    return float(parts.parts[name].mean()) / MS


def told_of(kernel: bool, *names: str) -> Parts:
    times = {"queue": 60 * MS, "prefill": 20 * MS, "interconnect": 5 * MS, "frontend": 3 * MS}
    rows = requests(np.full(50, 100 * MS), kernel=kernel)
    return explained(rows, window(50, *(share(n, np.full(50, times[n])) for n in names)))


def test_what_is_left_is_frontend_and_gateway() -> None:
    parts = told_of(True, "queue", "prefill", "frontend")
    assert parts.sources["frontend"].members == ("frontend", "gateway")
    assert parts.sources["frontend"].grade == "E"
    assert mean_ms(parts, "frontend") == 20
    assert {parts.sources[name].grade for name in ("queue", "prefill")} == {"B"}
    assert "queue_seconds" in parts.sources["queue"].evidence
    assert (parts.leaves["queue.admission"] == parts.parts["queue"]).all()


def test_an_unknown_prefill_stays_in_what_is_left() -> None:
    parts = told_of(True, "queue")
    assert parts.sources["prefill"].members == ("prefill", "frontend", "gateway")
    assert mean_ms(parts, "prefill") == 40


def test_a_client_that_stamps_in_user_space_may_have_made_the_rest_itself() -> None:
    parts = told_of(False, "queue", "prefill", "frontend")
    assert not parts.sources["frontend"].members
    assert mean_ms(parts, "frontend") == 3
    assert mean_ms(parts, "unattributed") == pytest.approx(17, abs=1e-5)
    assert "user stamps" in parts.sources["client"].evidence


def test_a_transfer_before_the_first_token_is_no_frontend() -> None:
    parts = told_of(True, "queue", "prefill", "interconnect")
    assert mean_ms(parts, "interconnect") == 5
    assert mean_ms(parts, "frontend") == 15
    assert "interconnect" not in parts.inside("decode")


@pytest.mark.parametrize(
    ("names", "end", "why"),
    [
        (("prefill",), 2**62, "how long requests were queued"),
        (("queue", "prefill"), 10**15, "50 of 50 requests did not end between two scrapes"),
    ],
)
def test_what_cannot_be_used_says_why(names: tuple[str, ...], end: int, why: str) -> None:
    rows = requests(np.full(50, 100 * MS))
    told = window(50, *(share(name, np.full(50, 10 * MS)) for name in names), end=end)
    found = aggregates_parts.explain(rows, NOBODY, [told])
    assert isinstance(found, str) and why in found


def test_more_than_the_client_waited_is_a_contradiction() -> None:
    rows = requests(np.full(50, 100 * MS))
    told = window(50, share("queue", np.full(50, 90 * MS)), share("prefill", np.full(50, 11 * MS)))
    found = aggregates_parts.explain(rows, NOBODY, [told])
    assert found == (
        "by the metrics queue and prefill took 5.05 s, but the client waited only 5.00 s behind"
        " the first hop"
    )


# ---------------------------------------------------------------------- what is open
def test_bounds_of_the_sums_and_of_the_network_are_slack() -> None:
    rows = requests(np.full(50, 100 * MS))
    told = window(
        50,
        share("queue", np.full(50, 60 * MS), open_ns=300 * MS),
        share("prefill", np.full(50, 20 * MS)),
    )
    slack = {
        name: (round(float(less.sum())), round(float(more.sum())))
        for name, (less, more) in explained(rows, told).slack.items()
    }
    assert slack["queue"] == (300 * MS, 300 * MS) and slack["prefill"] == (0, 0)
    assert slack["network"] == (50 * MS, 100 * MS)
    # What the others have more, the rest has less: 2 ms of network a request, and the queue.
    assert slack["frontend"] == (400 * MS, 350 * MS)


def world(seed: int) -> tuple[Ints, Ints, Ints]:
    """(queue, prefill, decode) where who waits long need not be slow: streams differ too."""
    random = np.random.default_rng(seed)
    n = 900
    queue = random.exponential(500, n) * (random.random(n) < 0.7)
    prefill = 30 + random.gamma(2, 80, n)
    decode = random.gamma(3, 300, n)
    return tuple((each * MS).astype(np.int64) for each in (queue, prefill, decode))  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(8))
def test_the_tail_s_interval_holds_the_truth_and_the_mean_s_is_none(seed: int) -> None:
    queue, prefill, decode = world(seed)
    rows = requests(queue + prefill + 2 * MS, decode)
    told = window(rows.n, share("queue", queue), share("prefill", prefill))
    parts = explained(rows, told)
    tail = chosen_rows(parts.total, "p95_tail")
    whole = float(parts.total[tail].sum())
    entry = breakdown(parts, "client_e2e", "p95_tail")
    assert entry is not None and entry.insufficient is None
    for name, truth in (("queue", queue), ("prefill", prefill)):
        assert (
            entry.shares[name].lo <= float(truth[tail].sum()) / whole <= entry.shares[name].hi
        ), name
        assert abs(entry.shares[name].share - float(truth[tail].sum()) / whole) < 0.05, name
    ranges = aggregates_parts.tails(rows, NOBODY, [told], parts)
    for name, truth in (("queue", queue), ("prefill", prefill)):
        assert ranges[name].lo_ns <= truth[tail].sum() <= ranges[name].hi_ns
        assert ranges[name].n == len(tail)
        # The hand-out is what the draws differ in; of all requests they say one thing.
        drawn = parts.draws[name]
        assert np.ptp(drawn.sum(axis=1)) < 1e-9 * drawn.sum()
        assert np.ptp(drawn[:, tail].sum(axis=1)) > 0
