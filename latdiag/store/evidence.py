"""Rows of the table ``evidence`` as numpy columns: what servers stated, in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latdiag.store.arrays import texts_where, to_batch, valid_of, values_of
from latdiag.store.batch import Batch
from latdiag.store.columns import column_array


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of rows, flat: row i has ``names[codes[k]] = values[k]`` for k from
    ``offsets[i]`` up to ``offsets[i + 1]``."""

    offsets: NDArray[np.int64]
    codes: NDArray[np.int32]
    names: tuple[str, ...]
    values: NDArray[np.object_]

    def of(self, name: str) -> NDArray[np.object_]:
        """The label ``name`` of every row, None where a row lacks it."""
        found = np.full(len(self.offsets) - 1, None, dtype=object)
        if name in self.names:
            places = np.flatnonzero(self.codes == self.names.index(name))
            rows = np.searchsorted(self.offsets, places, side="right") - 1
            found[rows] = self.values[places]
        return found

    def number(self, name: str) -> NDArray[np.float64]:
        """The label as a number, NaN where it is none."""
        found = np.full(len(self.offsets) - 1, np.nan)
        texts = self.of(name)
        for row in np.flatnonzero(texts != None).tolist():  # noqa: E711 - elementwise
            try:
                found[row] = float(texts[row])
            except ValueError:
                pass
        return found


@dataclass(frozen=True, slots=True)
class Said:
    """Some rows. ``columns``: all but floats and labels; ``floats``: NaN where null."""

    n: int
    columns: Batch
    floats: dict[str, NDArray[np.float64]]
    labels: Labels


def to_said(record_batch: Any, kinds: tuple[str, ...], wanted: Callable[[str], bool]) -> Said:
    """The rows of some kinds with a wanted ``foreign_name``; both columns must be there."""
    chosen = texts_where(record_batch.column("kind"), kinds.__contains__)
    chosen &= texts_where(record_batch.column("foreign_name"), wanted)
    rows = record_batch.filter(column_array("chosen", "bool", chosen))
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    floats = {n: _floats(c) for n, c in columns.items() if pa.types.is_floating(c.type)}
    plain = [n for n, c in columns.items() if n not in floats and not pa.types.is_map(c.type)]
    return Said(
        n=rows.num_rows,
        columns=to_batch(rows.select(plain)),
        floats=floats,
        labels=_labels(columns["labels"]) if "labels" in columns else _none(rows.num_rows),
    )


def _floats(array: Any) -> NDArray[np.float64]:
    return np.where(valid_of(array), values_of(array), np.nan)


def _labels(array: Any) -> Labels:
    offsets = values_of(array.offsets).astype(np.int64)
    inside = slice(offsets[0], offsets[-1])
    encoded = array.keys[inside].dictionary_encode()
    return Labels(
        offsets=offsets - offsets[0],
        codes=values_of(encoded.indices),
        names=tuple(encoded.dictionary.to_pylist()),
        values=np.array(array.items[inside].to_pylist(), dtype=object),
    )


def _none(rows: int) -> Labels:
    empty = np.zeros(0, dtype=object)
    return Labels(np.zeros(rows + 1, dtype=np.int64), np.zeros(0, np.int32), (), empty)
