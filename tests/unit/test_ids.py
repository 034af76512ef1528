"""Ids of requests: UUIDs, each once, the number in the last digits."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.processes.ids import request_id

TAGS = st.integers(0, 2**32 - 1).map("{:08x}".format)


@given(TAGS, st.integers(0, 2**40))
def test_an_id_is_a_uuid_and_ends_with_the_number(tag: str, number: int) -> None:
    one = uuid.UUID(request_id(tag, number))
    assert (one.version, one.variant) == (4, uuid.RFC_4122)
    assert str(one) == request_id(tag, number)
    assert int(str(one).rpartition("-")[2], 16) == number


@given(TAGS, TAGS)
def test_ids_of_runs_differ(tag: str, other: str) -> None:
    ids = {request_id(tag, n) for n in range(50)} | {request_id(other, n) for n in range(50)}
    assert len(ids) == (50 if tag == other else 100)


def test_what_samples_by_the_first_digits_takes_its_share() -> None:
    """Envoy: those whose first 8 digits are below the share, modulo 10,000."""
    taken = [int(request_id("0badcafe", n)[:8], 16) % 10_000 < 2_500 for n in range(4_000)]
    assert abs(sum(taken) / len(taken) - 0.25) < 0.03
