"""What is said of streams in bursts: valid, and what is not the server's is refused."""

from __future__ import annotations

import pytest

from latdiag.diagnosis import held_back
from latdiag.measurement.bursts import Bursts
from latdiag.measurement.digest import digest
from latdiag.model.caveats import caveat

from .split_rows import Row, batch, row


def stream(first_ms: float, sizes: list[int], period_ms: float, **more: object) -> Row:
    """Events in bursts of these sizes."""
    arrivals = [first_ms + period_ms * i for i, size in enumerate(sizes) for _ in range(size)]
    return row(arrivals=[*arrivals, arrivals[-1]], osl=len(arrivals), **more)  # usage is last


def bursts_of(*rows: Row) -> Bursts | None:
    return digest([batch(rows)]).bursts


LONG = [stream(150.0 + i, [20, 31, 31, 32, 31, 31, 31, 31, 9], 200.0) for i in range(6)]


def test_a_stream_in_bursts_has_no_gaps_of_the_servers() -> None:
    found = bursts_of(*LONG)
    assert found is not None and found.held
    why = held_back.refusals(found)
    assert set(why) == {"itl", "icl"}  # of the tokens 8 % came first: TPOT is right by as much
    assert set(why.values()) == {"tokens arrive in bursts of about 31 every 200 ms"}


def test_of_short_replies_the_time_per_token_is_not_the_servers_either() -> None:
    found = bursts_of(*[stream(150.0 + i, [14, 14, 3], 200.0) for i in range(6)])
    assert set(held_back.refusals(found)) == {"itl", "icl", "tpot"}


def test_a_reply_that_comes_whole_is_called_so() -> None:
    found = bursts_of(*[stream(150.0 + i, [24], 0.0) for i in range(6)])
    assert found is not None
    assert held_back.words(found) == "all at once, 24 per reply"
    assert "tpot" in held_back.refusals(found)


def test_the_setting_is_of_the_gateway_that_showed_itself_else_of_all() -> None:
    found = bursts_of(*LONG)
    [said] = held_back.caveats(found, ["vllm", "nginx"], [])
    assert "proxy_buffering off" in said.remedy and "HAProxy" not in said.remedy
    [said] = held_back.caveats(found, ["vllm"], [])
    assert "HAProxy: option http-no-delay" in said.remedy and "nginx" in said.remedy


def test_the_servers_own_words_say_it_better() -> None:
    better = caveat("LD415", k=31, t=200_000_000, s=6_500_000)
    assert held_back.caveats(bursts_of(*LONG), [], [better]) == []


@pytest.mark.parametrize("stage", ["load", "warmup"])
def test_a_warm_up_shows_nothing(stage: str) -> None:
    steady = [stream(150.0 + i, [1] * 40, 7.0) for i in range(6)]
    cold = [stream(150.0, [20, 31, 31, 9], 200.0, stage=stage) for _ in range(30)]
    assert (bursts_of(*steady, *cold) is None) is (stage == "warmup")


def test_nothing_is_said_of_streams_that_come_token_by_token() -> None:
    assert held_back.refusals(None) == {} and held_back.caveats(None, [], []) == []
