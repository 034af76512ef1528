"""What charts show, held against sums over every request and every gap, one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.diagnosis.examples import examples_of
from latdiag.diagnosis.several import diagnosed
from latdiag.measurement.gap_counts import GapCounts
from latdiag.measurement.silences import LongGaps, silences_of
from latdiag.measurement.timeline import CLOUD, POINTS, STEPS, Reader, Timeline
from latdiag.store.run import Run

from .probe_rows import MS, Reply, reply
from .saved_probe import save


def timeline(path: Path, replies: list[Reply], **more: object) -> Timeline:
    reader = Reader()
    Run.open(save(path, replies, designed=False, **more)).read(reader)  # type: ignore[arg-type]
    return reader.result()


def load(n: int, gap_ms: float = 5.0, tokens: int = 20) -> list[Reply]:
    return [
        reply("", 100 + 10 * (k % 30), 25.0 * k, 20.0 + k % 7, [gap_ms] * tokens) for k in range(n)
    ]


def test_few_requests_are_points_and_many_are_quantiles(tmp_path: Path) -> None:
    few = timeline(tmp_path / "a.run", load(50))
    assert len(few.ttft.at) == 50 and set(few.ttft.p95) == {None}
    assert few.ttft.at[0] == pytest.approx(0.0, abs=1e-3) and few.ttft.at[-1] == pytest.approx(
        1.225
    )
    many = timeline(tmp_path / "b.run", load(900))
    assert 50 < len(many.ttft.at) <= STEPS
    for p50, p95 in zip(many.ttft.p50, many.ttft.p95, strict=True):
        assert p50 is not None and p95 is not None and 20.0 <= p50 <= p95 <= 26.5


def test_a_step_in_which_nobody_asked_has_no_value(tmp_path: Path) -> None:
    early, late = load(300), [
        reply("", 100, 60_000.0 + 25.0 * k, 20.0, [5.0] * 20) for k in range(300)
    ]  # fmt: skip
    found = timeline(tmp_path / "a.run", early + late)
    hole = [v for t, v in zip(found.ttft.at, found.ttft.p50, strict=True) if 10 < t < 58]
    assert hole and set(hole) == {None}
    quiet = [v for t, v in zip(found.icl.at, found.icl.p50, strict=True) if 10 < t < 58]
    assert quiet and set(quiet) == {None}


def test_requests_at_once_are_counted_at_each_instant(tmp_path: Path) -> None:
    replies = load(200)
    found = timeline(tmp_path / "a.run", replies)
    origin = min(each.begin for each in replies)
    for t, streaming, waiting in zip(found.at, found.streaming, found.waiting, strict=True):
        at = origin + round(t * 1e9)
        assert abs(streaming - sum(r.arrivals[0] <= at < r.arrivals[-1] for r in replies)) <= 1
        assert waiting == sum(r.begin <= at < r.arrivals[0] for r in replies)


def test_a_silence_is_of_all_streams_and_as_long_as_it_was(tmp_path: Path) -> None:
    def stream(k: int, pause_ms: float) -> Reply:
        """Each has its tokens at the same instants: 10 before the pause and 10 after it."""
        return reply("", 100, 0.0, 20.0, [5.0] * 9 + [pause_ms] + [5.0] * 9 + [float(k)])

    found = timeline(tmp_path / "a.run", [stream(k, 400.0) for k in range(1, 6)])
    (silence,) = found.silences
    assert silence.streams == 5 and silence.until_s - silence.from_s == pytest.approx(0.4)
    # One stream that goes on shows that the server did.
    lively = reply("", 100, 0.0, 20.0, [5.0] * 120)
    assert (
        timeline(tmp_path / "b.run", [lively, *[stream(k, 400.0) for k in range(1, 6)]]).silences
        == ()
    )
    assert timeline(tmp_path / "c.run", [stream(1, 400.0)]).silences == ()
    assert timeline(tmp_path / "d.run", [stream(k, 20.0) for k in range(1, 6)]).silences == ()


@given(
    st.lists(
        st.tuples(st.integers(0, 10**12), st.integers(0, 10**14)), min_size=1, max_size=60
    ),
    st.integers(1, 5),
)  # fmt: skip
def test_gaps_are_counted_alike_however_they_come(pairs: list[tuple[int, int]], cuts: int) -> None:
    gaps, at = (np.array(each, dtype=np.int64) for each in zip(*pairs, strict=True))
    whole, pieces = GapCounts(), GapCounts()
    whole.add(gaps, at)
    for part in np.array_split(np.arange(len(gaps)), cuts):
        pieces.add(gaps[part], at[part])
    assert whole.n == pieces.n == len(gaps)
    assert whole.distribution(0) == pieces.distribution(0)
    ranked = np.sort(np.maximum(gaps, 1_000)) / 1e6
    _, values, shares = whole.distribution(0)
    for value, share in zip(values, shares, strict=True):
        # The upper end of a bucket that is 4.4 % wide: so many gaps are below it, none is cut.
        assert np.sum(ranked <= value * 1.0000001) >= round(share * len(gaps)) or value > 4e6
        assert np.sum(ranked < value / 1.0444) <= round(share * len(gaps))


def test_clocks_of_two_runs_share_no_axis(tmp_path: Path) -> None:
    paths = [
        save(tmp_path / "a.run", load(40), designed=False, clock="one"),
        save(tmp_path / "b.run", load(70), designed=False, clock="two", since=10**17),
    ]
    reader = Reader()
    Run.open(*paths).read(reader)
    found = reader.result()
    assert (found.n, found.requests) == (70, 110)
    assert max(found.ttft.at) < 3.0


def test_a_page_holds_no_more_points_for_more_requests(tmp_path: Path) -> None:
    found = timeline(tmp_path / "a.run", load(2_500))
    assert len(found.lengths.isl) == CLOUD and sum(g[2] for g in found.lengths.groups) == 2_500
    assert len(found.lengths.groups) <= 8
    for each in found.distributions.values():
        assert len(each.value) <= POINTS + 1 and each.at[-1] == 1.0
        assert list(each.value) == sorted(each.value) and list(each.at) == sorted(each.at)


def test_instants_beyond_reason_end_in_no_error() -> None:
    gaps, longest = GapCounts(), LongGaps()
    wild = np.array([0, 2**62, 2**63 - 1, -5, 10**9], dtype=np.int64)
    gaps.add(wild, wild[::-1].copy())
    longest.add(wild, wild, np.arange(5))
    assert gaps.n == 3 and len(gaps.over_time(0, STEPS)[0]) <= STEPS + 1
    silences_of(longest, wild, wild, gaps.median(), 0)


def test_the_median_request_and_the_slowest_are_these(tmp_path: Path) -> None:
    replies = [reply("", 100, 100.0 * k, 20.0, [5.0] * (5 + k)) for k in range(9)]
    found = examples_of(
        diagnosed(Run.open(save(tmp_path / "a.run", replies, designed=False))).parts
    )
    assert [each.what.split()[0] for each in found] == ["Median", "Slowest", "Second", "Third"]
    lengths = [round((each.total_ns - each.ttft_ns) / (5 * MS)) for each in found]
    assert lengths == [9, 13, 12, 11]
    assert all(sum(ns for _, ns in each.parts) == each.total_ns for each in found)
    one = examples_of(
        diagnosed(Run.open(save(tmp_path / "b.run", replies[:1], designed=False))).parts
    )
    assert [each.what for each in one] == ["The only request"]
    assert examples_of(None) == ()
