"""What is said of a server that is asked for more than it finishes."""

from __future__ import annotations

from latdiag.diagnosis.overloaded import advice, overloaded, rate, sentence
from latdiag.diagnosis.result import Verdict
from latdiag.diagnosis.verdict import within_limits
from latdiag.measurement.backlog import Backlog

FOUND = Backlog(6.4, 2.4, 2.39, 2.404, 2.1, 3, "ttft", 500.0, 9000.0, 200, 30.0)


def test_rates_have_three_digits_each() -> None:
    assert [rate(v) for v in (2.4, 15.0, 100.0, 0.91, 1234.5)] == [
        *("2.40", "15.0", "100", "0.910", "1 234"),
    ]
    assert "finishes 2.40/s [2.39, 2.40] of the 6.40/s" in sentence(FOUND)


def test_more_servers_are_no_remedy_for_a_limit_on_tokens() -> None:
    assert advice(FOUND) == "Send at most 2.1/s, or add 3 replicas like this one."
    assert advice(FOUND, one_rate=True) == (
        "Send at most 2.1/s. If a limit on tokens per second holds it back, raise that; if not,"
        " add 3 replicas like this one."
    )


def test_replicas_are_counted_once() -> None:
    more = "Let the engine run more requests at once (vLLM: --max-num-seqs), or add a replica."
    said = overloaded(FOUND, "mean", "queue", "It waits.", more).next
    assert said.count("replica") == 1 and "--max-num-seqs" in said


def test_more_load_is_no_advice_where_a_limit_refuses_it() -> None:
    healthy = Verdict(None, "mean", "inferred", "healthy", "No bottleneck.", "Raise --rate.")
    assert within_limits(healthy, refuses=False) is healthy
    assert "refuses what is beyond its limit" in within_limits(healthy, refuses=True).next
    other = Verdict("queue", "mean", "measured", "bottleneck", "It waits.", "Raise the limit.")
    assert within_limits(other, refuses=True) is other
