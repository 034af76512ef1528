"""Flat maps and texts of the store: the same table as from dicts and lists."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from latdiag.store.batch import MapColumn
from latdiag.store.columns import arrow_batch
from tests.profiles import examples

TEXT = st.one_of(st.text(max_size=8), st.text("ab", max_size=3))


@examples(100)
@given(st.lists(st.dictionaries(TEXT, TEXT, max_size=4), max_size=6))
def test_a_flat_map_is_what_dicts_are(rows: list[dict[str, str]]) -> None:
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
    flat = MapColumn(
        offsets, [k for row in rows for k in row], [v for row in rows for v in row.values()]
    )
    kinds = ["span"] * len(rows)
    made = arrow_batch("evidence", {"kind": kinds, "labels": flat})
    assert made.equals(arrow_batch("evidence", {"kind": kinds, "labels": rows}))
    made.validate(full=True)


@examples(100)
@given(st.lists(st.one_of(st.none(), TEXT, st.just("\ud800 half")), max_size=8))
def test_texts_are_stored_as_they_are(texts: list[str | None]) -> None:
    made = arrow_batch("evidence", {"kind": texts})
    made.validate(full=True)
    expected = [None if t is None else t.replace("\ud800", "?") for t in texts]
    assert made["kind"].to_pylist() == expected


@pytest.mark.parametrize(
    ("offsets", "keys", "values"),
    [
        ([0, 2], ["a"], ["b"]),
        ([0, 1], ["a"], []),
        ([1, 1], ["a"], ["b"]),
        ([0, 1, 0, 1], ["a"], ["b"]),
        ([], [], []),
    ],
)
def test_offsets_must_fit(offsets: list[int], keys: list[str], values: list[str]) -> None:
    column = MapColumn(np.array(offsets, dtype=np.int64), keys, values)
    with pytest.raises(ValueError, match="labels"):
        arrow_batch("evidence", {"labels": column})


def test_texts_must_be_texts() -> None:
    for column in ([1], [b"bytes"], ["a", 2.0]):
        with pytest.raises(ValueError, match="kind"):
            arrow_batch("evidence", {"kind": column})
