"""From first to last token as the servers made them, where the client saw a shorter stream."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from latdiag.attribution.leaves import MASK
from latdiag.attribution.spans.owners import client_stream, made_stream
from latdiag.measurement.frame import Frame, joined

MS = 1_000_000


def told(prefill: tuple[int, int], decode: tuple[int, int], engine: bool = True) -> Any:
    """A prefill server's span and a decode server's, ms on the axis of one request."""
    spans = np.array([prefill, decode], dtype=np.int64) * MS
    before, after = MASK["prefill"], MASK["interconnect"] | MASK["decode"]
    claims = SimpleNamespace(
        row=np.zeros(2, dtype=np.int64), start=spans[:, 0], end=spans[:, 1],
        covers=np.array([before, after], dtype=np.int64),
    )  # fmt: skip
    return SimpleNamespace(
        claims=claims, engine=np.array([engine, engine]),
        lo=spans[:, 0].min(keepdims=True), hi=spans[:, 1].max(keepdims=True),
    )  # fmt: skip


def frame(first: int, last: int) -> Frame:
    row = {"begin": 0, "sent": 0, "first": first * MS, "last": last * MS, "client": 0}
    return joined([{name: np.array([value], dtype=np.int64) for name, value in row.items()}])


@pytest.mark.parametrize("first", [250, 200, 180])
def test_a_stream_held_back_until_its_end_is_as_long_as_its_servers_made_it(first: int) -> None:
    spans = told((0, 90), (2, 250))
    seen = made_stream(spans, frame(first, 250))
    assert [int(each[0]) // MS for each in seen] == [90, 250]


@pytest.mark.parametrize("first", [95, 110, 160])
def test_a_stream_that_came_as_it_was_made_is_the_clients(first: int) -> None:
    spans, rows = told((0, 90), (2, 250)), frame(first, 250)
    assert [each.tolist() for each in made_stream(spans, rows)] == [
        each.tolist() for each in client_stream(spans, rows)
    ]


def test_no_engine_no_work() -> None:
    spans, rows = told((0, 90), (2, 250), engine=False), frame(250, 250)
    assert [each.tolist() for each in made_stream(spans, rows)] == [
        each.tolist() for each in client_stream(spans, rows)
    ]
