"""TTFT as client, network and server: cases by hand, and what holds for any row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from latdiag.diagnosis.client import split_of
from latdiag.measurement.streams import read_streams
from latdiag.measurement.ttft_split import TtftSplit, split
from latdiag.model.records import Kind

from .split_rows import MS, Row, any_rows, batch, row


def one(**given_: Any) -> TtftSplit:
    found = split(batch([row(**given_)]))
    assert len(found.row) == 1
    return found


def ms(values: np.ndarray[Any, Any]) -> float:
    return float(values[0]) / MS


def bounds(found: TtftSplit) -> list[float]:
    """What the stamps prove of network, ms."""
    return [ms(found.network_lo), ms(found.network_hi)]


def check(found: TtftSplit, client: float, network: float, server: float) -> None:
    parts = [ms(found.client), ms(found.network), ms(found.server)]
    assert parts == pytest.approx([client, network, server], abs=1e-6)


# ---------------------------------------------------------------------- cases by hand
def test_a_prompt_ack_measures_the_round_trip() -> None:
    """Known to lie in [2.0, 2.1]: the middle is nowhere more than 0.05 wrong."""
    found = one()
    check(found, 1.0, 2.05, 49.95)
    assert not found.delayed[0]
    assert bounds(found) == pytest.approx([2.0, 2.1])


@pytest.mark.parametrize("late", [5.4, 20.3, 40.0])
def test_a_delayed_ack_bounds_the_network_from_above_only(late: float) -> None:
    """On a reused connection the ACK rides on the reply or comes 40 ms late."""
    found = one(acked_ns=1.0 + late)
    check(found, 1.0, 2.0, 50.0)
    assert found.delayed[0]
    assert bounds(found) == pytest.approx([2.0, late])


@pytest.mark.parametrize(("over", "delayed"), [(0.5, False), (0.5001, True)])
def test_half_a_millisecond_is_where_an_ack_begins_to_be_delayed(
    over: float, delayed: bool
) -> None:
    found = one(acked_ns=3.0 + over)
    assert bool(found.delayed[0]) == delayed
    assert ms(found.network) == pytest.approx(2.0 if delayed else 2.0 + over / 2)


def test_an_ack_after_the_first_token_is_cut_to_it() -> None:
    found = one(acked_ns=90.0)
    check(found, 1.0, 2.0, 50.0)
    assert ms(found.network_hi) == 52.0, "all that there is between wire and token"


def test_an_early_ack_leaves_the_smallest_round_trip() -> None:
    """A hop in between may ACK faster than any round trip that the kernel has kept."""
    for at in (2.0, 0.5):
        found = one(acked_ns=at)
        check(found, 1.0, 2.0, 50.0)
        assert not found.delayed[0] and ms(found.network_hi) == 2.0


def test_without_an_ack_only_the_reply_bounds_the_round_trip() -> None:
    found = one(acked_ns=None)
    check(found, 1.0, 2.0, 50.0)
    assert found.delayed[0] and ms(found.network_hi) == 52.0


def test_without_a_smallest_round_trip_a_late_ack_leaves_everything_open() -> None:
    prompt = one(min_rtt_ns=None, acked_ns=1.4)
    check(prompt, 1.0, 0.2, 51.8)
    late = one(min_rtt_ns=None, acked_ns=30.0)
    check(late, 1.0, 0.0, 52.0)
    assert late.delayed[0] and bounds(late) == [0.0, 29.0]


def test_a_retransmission_is_the_networks_time() -> None:
    """The last byte was sent again after 20 ms, and acknowledged 2.1 ms later."""
    found = one(acked_ns=23.1, resent_ns=20 * MS)
    check(found, 1.0, 22.0, 30.0)
    assert ms(found.network_hi) == pytest.approx(22.1)


def test_a_retransmission_costs_no_more_than_there_is_time() -> None:
    check(one(acked_ns=None, resent_ns=500 * MS), 1.0, 52.0, 0.0)


def test_the_upload_of_a_large_body_is_the_networks_time() -> None:
    found = one(wire_last_ns=7.0, acked_ns=9.1)
    check(found, 1.0, 8.05, 43.95)
    assert bounds(found) == pytest.approx([8.0, 8.1])


@pytest.mark.parametrize(
    ("instants", "connect"),
    [
        ({"tcp_ns": 2.2}, 2.2),
        ({"dns_ns": 3.0, "tcp_ns": 5.2}, 5.2),
        ({"dns_ns": 3.0, "tcp_ns": 5.2, "tls_ns": 10.0}, 10.0),
    ],
    ids=["tcp", "dns", "tls"],
)
def test_a_fresh_connection_is_the_networks_time_up_to_its_last_step(
    instants: dict[str, float], connect: float
) -> None:
    found = one(wire_ns=11.0, wire_last_ns=11.0, acked_ns=13.1, **instants)
    check(found, 11.0 - connect, connect + 2.05, 53.0 - 13.05)
    assert ms(found.connect) == connect


def test_a_first_try_that_was_lost_is_the_clients_time() -> None:
    """30 ms went to a dying kept-alive connection, then a fresh one took 2 ms."""
    late = {"wire_ns": 33.0, "wire_last_ns": 33.0, "acked_ns": 35.1, "tcp_ns": 32.0}
    check(one(retry_ns=30 * MS, **late), 31.0, 2.0 + 2.05, 53.0 - 35.05)


def test_a_handshake_that_seems_to_end_after_the_wire_stamp_takes_nothing_from_the_server() -> (
    None
):
    """A converted kernel stamp and a user stamp may disagree by microseconds."""
    found = one(tcp_ns=1.003)
    check(found, 0.0, 1.0 + 2.05, 49.95)


def test_the_split_begins_at_sent_whatever_was_due() -> None:
    """Schedule lag is added by the breakdown, not here."""
    check(one(due_ns=-30.0), 1.0, 2.05, 49.95)


# ---------------------------------------------------------------------- which rows
@pytest.mark.parametrize(
    "without",
    [
        {"wire_ns": None, "wire_last_ns": None},
        {"clock_step": True},
        {"arrivals": []},
        {"censored": [True, False, False, False]},
        {"kinds": [int(Kind.ROLE), int(Kind.OTHER), int(Kind.ROLE), int(Kind.USAGE)]},
        {"arrivals": [-3.0, 63.0, 73.0, 75.0]},
    ],
    ids=["user stamps", "clock step", "no token", "censored", "role only", "token before sent"],
)
def test_rows_without_exact_stamps_are_left_out(without: dict[str, Any]) -> None:
    found = split(batch([row(), row(**without), row()]))
    assert list(found.row) == [0, 2]


def test_a_first_segment_that_was_joined_with_the_rest_left_when_it_was_written() -> None:
    whole, joined = one(), one(wire_ns=None)
    assert len(joined.row) == 1 and joined.ttft[0] == whole.ttft[0]
    assert joined.client[0] + joined.network[0] + joined.server[0] == joined.ttft[0]
    assert joined.client[0] <= whole.client[0] and joined.server[0] == whole.server[0]


def test_a_later_censored_arrival_does_no_harm() -> None:
    assert len(one(censored=[False, True, True, False]).row) == 1


def test_the_first_output_is_not_the_role() -> None:
    kinds = [Kind.ROLE, Kind.REASONING, Kind.ANSWER, Kind.USAGE]
    found = one(kinds=[int(kind) for kind in kinds])
    assert ms(found.ttft) == 63.0


def test_no_rows_at_all() -> None:
    found = split(batch([]))
    assert all(len(getattr(found, name)) == 0 for name in TtftSplit.__slots__)
    streams = read_streams(batch([row(arrivals=[])]))
    assert (streams.first[0], streams.outputs[0], streams.last[0]) == (0, 0, 0)


# ---------------------------------------------------------------------- what always holds
@given(any_rows())
def test_the_parts_are_whole_and_none_is_negative(rows: list[Row]) -> None:
    found = split(batch(rows))
    assert np.array_equal(found.client + found.network + found.server, found.ttft)
    for name in ("ttft", "client", "network", "network_lo", "server", "connect"):
        assert (getattr(found, name) >= 0).all(), name
    assert (found.network_lo <= found.network).all()
    assert (found.network <= found.network_hi).all()
    assert (found.network_hi <= found.ttft).all(), "no more than there is time"
    assert found.client.dtype == found.server.dtype == np.int64


@given(any_rows(least=1))
def test_a_row_is_split_the_same_in_any_company(rows: list[Row]) -> None:
    together = split(batch(rows))
    alone = [split(batch([each])) for each in rows]
    kept = [number for number, found in enumerate(alone) if len(found.row)]
    assert list(together.row) == kept
    for name in ("client", "network", "network_lo", "network_hi", "server", "delayed"):
        expected = [getattr(alone[number], name)[0] for number in kept]
        assert list(getattr(together, name)) == expected


@pytest.mark.parametrize(("n", "p95"), [(34, None), (400, 379)])
def test_percentiles_of_the_split_follow_the_rule_of_all_others(n: int, p95: int | None) -> None:
    ms = np.arange(n, dtype=np.int64) * 1_000_000
    names = ("client", "network", "network_lo", "network_hi", "server", "ttft")
    said = split_of(SimpleNamespace(split=dict.fromkeys(names, ms), bounded=0))  # type: ignore[arg-type]
    assert said.server is not None
    assert said.server.p95_ms == p95
    # An order statistic, between bounds of the same rule.
    assert said.server.p50_ms == said.server.lo == said.server.hi == n // 2 - 1
