"""From first to last token as the servers made them, where the client saw a shorter stream."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from latdiag.attribution.leaves import MASK
from latdiag.attribution.spans.batching import gathered
from latdiag.attribution.spans.owners import client_stream, made_stream
from latdiag.measurement.chunks import Chunks
from latdiag.measurement.frame import Frame, joined

MS = 1_000_000
HELD = np.ones(1, dtype=bool)


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
    seen = made_stream(spans, frame(first, 250), HELD)
    assert [int(each[0]) // MS for each in seen] == [90, 250]


@pytest.mark.parametrize(("first", "held"), [(95, False), (200, False), (85, True)])
def test_a_stream_that_came_as_it_was_made_is_the_clients(first: int, held: bool) -> None:
    """So is one that took longer on its way than to make."""
    spans, rows = told((0, 90), (2, 250)), frame(first, 250)
    assert [each.tolist() for each in made_stream(spans, rows, HELD & held)] == [
        each.tolist() for each in client_stream(spans, rows)
    ]


def test_no_engine_no_work() -> None:
    spans, rows = told((0, 90), (2, 250), engine=False), frame(250, 250)
    assert [each.tolist() for each in made_stream(spans, rows, HELD)] == [
        each.tolist() for each in client_stream(spans, rows)
    ]


def test_streams_of_many_events_at_a_time_are_held_back() -> None:
    def chunks(number: int, together: int) -> Chunks:
        column = {"chunks": number, "tokens": number, "known": number - 1, "together": together}
        rows = {name: np.array([value]) for name, value in (column | {"apart": 0}).items()}
        return Chunks(**rows, judged=np.ones(1, dtype=bool))

    # (events, of the gaps between them next to nothing)
    of = {(24, 21): True, (24, 23): True, (3, 2): True, (24, 4): False, (24, 12): False}
    of |= {(1, 0): False, (3, 1): False}
    assert {sizes: bool(gathered(chunks(*sizes))[0]) for sizes in of} == of
