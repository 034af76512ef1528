"""The readings behind the self-audit: percentiles of lags, shares of wall time, the outbox."""

from __future__ import annotations

import asyncio
import contextlib
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.processes.audit import Audit, AuditFigures, LagFigures, Lags
from latdiag.load.processes.outbox import Outbox, Reading
from latdiag.runtime.channel import Frames

SECOND = 1_000_000_000


# ---------------------------------------------------------------------- percentiles
@given(
    st.lists(st.integers(-(10**6), 10**13), min_size=1, max_size=200),
    st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
    st.integers(1, 5),
)
def test_a_quantile_is_never_too_low_and_a_tenth_too_high_at_most(
    values: list[int], q: float, cuts: int
) -> None:
    lags = Lags()
    for piece in np.array_split(np.array(values, dtype=np.int64), cuts):
        lags.add(piece)
    sane = np.sort(np.maximum(values, 0))
    truth = int(sane[int(np.ceil(q * len(sane))) - 1])
    found = lags.quantile_ns(q)
    assert found is not None and lags.n == len(values)
    # Bins are 9 % wide, and 91 ns at the low end.
    assert truth - 1 <= found <= truth * 1.0906 + 92
    assert found <= lags.largest_ns == sane[-1]


def test_without_values_there_is_no_quantile() -> None:
    lags = Lags()
    lags.add(np.zeros(0, dtype=np.int64))
    assert lags.figures() == LagFigures(n=0, p50_ns=None, p99_ns=None, max_ns=None)


# ---------------------------------------------------------------------- ticks
def tick(
    at_s: float,
    cpu_s: float = 0.0,
    starved_s: float = 0.0,
    queue_known: bool = True,
    loop_lags_ns: tuple[int, ...] = (),
    backlog: int = 0,
    rss_kb: int = 1000,
) -> Reading:
    return Reading(
        clock=(round(at_s * SECOND), 0, 0),
        cpu_ns=round(cpu_s * SECOND),
        queued_ns=round(2 * starved_s * SECOND),
        starved_ns=round(starved_s * SECOND),
        queue_known=queue_known,
        loop_lags_ns=loop_lags_ns,
        backlog=backlog,
        rss_kb=rss_kb,
    )


def audit_of(*ticks: Reading) -> AuditFigures:
    audit = Audit()
    for one in ticks:
        audit.add(one)
    return audit.figures()


def test_five_busy_seconds_in_an_idle_hour_are_found() -> None:
    cpu, ticks = 0.0, []
    for second in range(120):
        ticks.append(tick(second, cpu))
        cpu += 0.95 if 60 <= second < 65 else 0.01
    found = audit_of(*ticks)
    assert found.reader_cpu_worst_5s == pytest.approx(0.95)
    assert found.reader_cpu == pytest.approx((5 * 0.95 + 114 * 0.01) / 119)


def test_four_busy_seconds_are_no_five() -> None:
    cpu, ticks = 0.0, []
    for second in range(20):
        ticks.append(tick(second, cpu))
        cpu += 0.99 if 8 <= second < 12 else 0.0
    assert audit_of(*ticks).reader_cpu_worst_5s == pytest.approx(4 * 0.99 / 5)


def test_a_run_shorter_than_the_window_is_read_as_a_whole() -> None:
    assert audit_of(tick(0), tick(1, 0.9), tick(2, 1.8)).reader_cpu_worst_5s == 0.9


def test_shares_of_the_run_queue_are_of_the_wall_time() -> None:
    found = audit_of(tick(0, starved_s=1.0), tick(10, starved_s=1.5))
    assert found.starved_share == pytest.approx(0.05)
    assert found.run_queue_share == pytest.approx(0.10)
    assert found.wall_ns == 10 * SECOND


def test_what_the_system_does_not_tell_is_null() -> None:
    found = audit_of(tick(0, queue_known=False), tick(1, queue_known=False))
    assert found.starved_share is None and found.run_queue_share is None
    for too_few in (audit_of(), audit_of(tick(0))):
        assert too_few.reader_cpu is None and too_few.reader_cpu_worst_5s is None


def test_peaks_are_kept_and_lags_gathered() -> None:
    found = audit_of(
        tick(0, backlog=7, rss_kb=5, loop_lags_ns=(1000, 3000)),
        tick(1, backlog=3, rss_kb=9, loop_lags_ns=(2000,)),
    )
    assert (found.reader_peak_backlog_bytes, found.reader_peak_rss_kb) == (7, 9)
    assert found.loop_lag.n == 3 and found.loop_lag.max_ns == 3000


# ---------------------------------------------------------------------- the outbox
def drained(fd: int) -> bytes:
    data = b""
    while piece := os.read(fd, 1 << 20):
        data += piece
    return data


def test_a_writer_that_is_slow_holds_up_nobody_and_gets_everything() -> None:
    reading, writing = os.pipe()
    loop = asyncio.new_event_loop()
    outbox = Outbox(loop, writing, lambda: None)
    sent = [(0, number, b"x" * 5000) for number in range(100)]
    for one in sent:  # half a megabyte into a pipe of 64 KB that nobody reads
        outbox.records.append(one)
        outbox.hand_over()
    assert outbox.backlog > 400_000 and not outbox.records

    async def until_empty() -> bytes:
        data = b""
        while outbox.backlog:
            with contextlib.suppress(BlockingIOError):
                data += os.read(reading, 1 << 16)
            await asyncio.sleep(0)
        return data

    os.set_blocking(reading, False)
    data = loop.run_until_complete(asyncio.wait_for(until_empty(), 10))
    os.set_blocking(reading, True)
    data += os.read(reading, 1 << 17)
    outbox.records.append((9, 9))
    outbox.close()
    data += drained(reading)
    loop.close()
    os.close(reading)
    found = [one for batch in Frames().feed(data) for one in batch]
    assert found == [*sent, (9, 9)]


def test_a_writer_that_is_gone_is_noted_once_and_costs_no_memory() -> None:
    reading, writing = os.pipe()
    loop = asyncio.new_event_loop()
    lost: list[int] = []
    outbox = Outbox(loop, writing, lambda: lost.append(1))
    os.close(reading)
    for _ in range(3):
        outbox.records.append((0, b"x" * 1000))
        outbox.hand_over()
    assert lost == [1] and outbox.broken and outbox.backlog == 0
    outbox.close()
    loop.close()
