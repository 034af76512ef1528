"""One pass over a run's rows: warm-up apart, failures with their words, deviating lengths."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.client_only import partition
from latdiag.measurement.digest import Digest, Failure, digest
from latdiag.model.records import Outcome
from tests.profiles import examples

from .split_rows import MS, Row, any_rows, batch, row


def of(*rows: Row) -> Digest:
    return digest([batch(rows)])


def test_the_warm_up_is_counted_and_enters_nothing() -> None:
    warm = row(stage="warmup", arrivals=[500.0, 510.0], osl=9, osl_wanted=1, due_ns=-400.0)
    found = of(warm, row(due_ns=-1.0), row(due_ns=-2.0), warm)
    assert found.warmups == 2
    assert found.measurement.counts.requests == 2
    assert list(found.lags) == [1 * MS, 2 * MS]
    assert list(found.split["ttft"]) == [53 * MS] * 2
    assert found.frame.n == 4 and len(partition(found.frame).total) == 2 and found.osl.rows == 0
    only = of(warm, warm)
    assert only.warmups == 2 and only.measurement.counts.requests == 0


def test_nothing_at_all() -> None:
    found = digest([])
    assert found.measurement.counts.requests == 0 and not found.failures
    assert all(len(values) == 0 for values in found.split.values())
    assert len(found.lags) == 0 and found.connect_mean_ns == 0.0


def test_failures_are_counted_with_the_first_ones_words() -> None:
    refused = {"outcome": Outcome.HTTP_ERROR.value, "arrivals": []}
    found = of(
        row(),
        row(**refused, status=500, error="first"),
        row(**refused, status=502, error="second"),
        row(outcome=Outcome.RESET.value, error=None),
    )
    assert found.failures == {
        "http_error": Failure(2, 500, "first"),
        "reset": Failure(1, None, None),
    }


def test_the_lag_of_a_failed_request_counts_too() -> None:
    """The schedule was kept or not, whatever the server said."""
    found = of(row(due_ns=-3.0, outcome=Outcome.TIMEOUT.value, arrivals=[]), row(due_ns=None))
    assert list(found.lags) == [3 * MS]


def test_the_worst_deviation_of_a_length_is_kept_whatever_the_batches() -> None:
    rows = [
        row(isl=100, isl_wanted=100, osl=10, osl_wanted=10),
        row(isl=103, isl_wanted=100, osl=4, osl_wanted=10),
        row(isl=90, isl_wanted=100, osl=11, osl_wanted=10),
        row(isl=7, isl_wanted=100, outcome=Outcome.CUT.value),
        row(isl=None, isl_wanted=100, osl=5, osl_wanted=None),
    ]
    whole = digest([batch(rows)])
    assert (whole.isl.rows, whole.isl.worst) == (2, (90, 100))
    assert (whole.osl.rows, whole.osl.worst) == (2, (4, 10))
    each = digest([batch([one]) for one in rows])
    assert (each.isl, each.osl) == (whole.isl, whole.osl)


def test_fresh_connections_and_bounded_acks_are_counted() -> None:
    fresh = {"wire_ns": 11.0, "wire_last_ns": 11.0, "acked_ns": 13.1}
    found = of(
        row(tcp_ns=2.0, **fresh), row(tcp_ns=2.0, tls_ns=6.0, **fresh), row(acked_ns=30.0), row()
    )
    assert found.fresh == 2 and found.connect_mean_ns == 4 * MS
    assert found.bounded == 1


@examples(50)
@given(any_rows(most=20), st.integers(1, 19), st.randoms())
def test_batches_and_their_order_change_nothing_but_the_order_of_rows(
    rows: list[Row], cut: int, random_: random.Random
) -> None:
    shuffled = rows.copy()
    random_.shuffle(shuffled)
    one = digest([batch(rows)])
    two = digest([batch(shuffled[:cut]), batch([]), batch(shuffled[cut:])])
    assert sorted(one.lags) == sorted(two.lags)
    for name, values in one.split.items():
        assert sorted(values) == sorted(two.split[name])
    assert (one.bounded, one.fresh) == (two.bounded, two.fresh)
    assert one.connect_mean_ns == pytest.approx(two.connect_mean_ns)
    assert {n: f.count for n, f in one.failures.items()} == {
        n: f.count for n, f in two.failures.items()
    }
    assert sorted(partition(one.frame).total) == sorted(partition(two.frame).total)
