"""Arrow arrays as numpy arrays, and what the declared columns are in Arrow.

Only functions of pyarrow that leave pandas alone: ``pa.array``, ``pa.scalar`` and ``to_numpy``
import it where it is installed, which costs a process 45 MB and half a second. What a writer
needs leaves ``pyarrow.compute`` alone too, which is 8 MB.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latdiag.store.batch import Batch, Ints, Lists
from latdiag.store.schema import TABLES, UNIQUE_TEXTS

_FLAT = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "map": pa.map_(pa.string(), pa.string()),
}
_ITEMS = {
    "list<int64>": pa.int64(),
    "list<int32>": pa.int32(),
    "list<int8>": pa.int8(),
    "list<bool>": pa.bool_(),
    "list<double>": pa.float64(),
}


def arrow_type(word: str) -> Any:
    """The pyarrow type behind a type word of ``schema``."""
    if word in _FLAT:
        return _FLAT[word]
    # Items that cannot be null: a fifth of the time to read, and one less thing to check.
    return pa.list_(pa.field("element", _ITEMS[word], nullable=False))


def arrow_schema(table: str) -> Any:
    """The declared ``pyarrow.Schema`` of ``requests`` or ``evidence``."""
    return pa.schema([pa.field(name, arrow_type(word)) for name, word in TABLES[table].items()])


def to_batch(record_batch: Any) -> Batch:
    """A ``Batch`` of a record batch with columns of the declared types.

    Fixed-width values without nulls, and list items, are views of Arrow's memory (read-only).
    Maps have no place in a Batch: whoever wants them reads a frame.
    """
    batch = Batch(record_batch.num_rows, {}, {}, {}, {})
    for name, array in zip(record_batch.schema.names, record_batch.columns, strict=True):
        if pa.types.is_list(array.type):
            batch.lists[name] = _lists(array)
        elif pa.types.is_int64(array.type):
            valid = valid_of(array)
            values = values_of(array)
            batch.ints[name] = Ints(
                np.where(valid, values, 0) if array.null_count else values, valid
            )
        elif pa.types.is_float64(array.type):
            batch.floats[name] = np.where(valid_of(array), values_of(array), np.nan)
        elif pa.types.is_boolean(array.type):
            batch.bools[name] = values_of(array) & valid_of(array)
        elif pa.types.is_string(array.type):
            texts = array.to_pylist() if name in UNIQUE_TEXTS else None
            batch.texts[name] = (
                _repeating(array) if texts is None else np.array(texts, dtype=object)
            )
        else:
            raise TypeError(f"a Batch has no place for {name} ({array.type})")
    return batch


def values_of(array: Any) -> NDArray[Any]:
    """The values of a fixed-width array, anything where it is null: a view but for booleans."""
    if not len(array):
        return np.zeros(0, dtype=array.type.to_pandas_dtype())
    if pa.types.is_boolean(array.type):
        return _bits(array, 1)
    dtype = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def valid_of(array: Any) -> NDArray[np.bool_]:
    """Where an array is not null."""
    return _bits(array, 0) if array.null_count else np.ones(len(array), dtype=bool)


def _bits(array: Any, buffer: int) -> NDArray[np.bool_]:
    """A bit for each row from one of an array's buffers."""
    packed = np.frombuffer(array.buffers()[buffer], np.uint8, offset=array.offset // 8)
    first = array.offset % 8
    bits = np.unpackbits(packed, count=first + len(array), bitorder="little")
    return bits[first:].view(np.bool_)


def texts_where(array: Any, wanted: Callable[[str], bool]) -> NDArray[np.bool_]:
    """The rows whose text is wanted, which is asked once for each text; no row without one."""
    encoded = array.dictionary_encode(null_encoding="encode")
    texts = encoded.dictionary.to_pylist()
    answers = np.array([text is not None and wanted(text) for text in texts], dtype=bool)
    rows: NDArray[np.bool_] = answers[values_of(encoded.indices)]
    return rows


def lists_of(record_batch: Any) -> list[Any]:
    """The list columns of a record batch."""
    return [column for column in record_batch.columns if pa.types.is_list(column.type)]


def cuts(
    record_batch: Any, rows: int, items: int, texts: int | None = None
) -> list[tuple[int, int]]:
    """Where to cut a record batch: (start, length) of pieces of at most ``rows`` rows.

    A piece also ends before its longest list column passes ``items`` items, and all its texts and
    maps ``texts`` bytes (a single row may), so that memory does not depend on how long the answers
    were.
    """
    total = record_batch.num_rows
    longest = np.zeros(total, dtype=np.int64)
    for column in lists_of(record_batch):
        np.maximum(longest, np.diff(values_of(column.offsets)), out=longest)
    bounds = [(np.concatenate(([0], np.cumsum(longest))), items)]
    if texts is not None:
        bounds.append((_text_ends(record_batch), texts))
    pieces = []
    start = 0
    while start < total:
        end = start + rows
        for ends, most in bounds:
            end = min(end, int(np.searchsorted(ends, ends[start] + most, side="right")) - 1)
        end = min(total, max(end, start + 1))
        pieces.append((start, end - start))
        start = end
    return pieces


def _text_ends(record_batch: Any) -> NDArray[np.int64]:
    """Bytes of texts and maps before each row of a record batch, and before its end."""
    ends = np.zeros(record_batch.num_rows + 1, dtype=np.int64)
    for column in record_batch.columns:
        if pa.types.is_string(column.type):
            ends += offsets_of(column)
        elif pa.types.is_map(column.type):
            entries = values_of(column.offsets)
            ends += offsets_of(column.keys)[entries] + offsets_of(column.items)[entries]
    ends -= ends[0]
    return ends


def offsets_of(array: Any) -> NDArray[np.int32]:
    """Where the text or map of each row begins, and where the last one ends."""
    if not len(array):
        return np.zeros(1, dtype=np.int32)
    return np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, 4 * array.offset)


def items_of(record_batch: Any) -> int:
    """How many items the longest list column of a record batch holds."""
    ends = [values_of(column.offsets)[[0, -1]].tolist() for column in lists_of(record_batch)]
    return max((end - start for start, end in ends), default=0)


def lengths_of(array: Any) -> NDArray[np.int32]:
    """How many items each row of a list array holds, -1 where it is null."""
    lengths = np.diff(values_of(array.offsets))
    return np.where(valid_of(array), lengths, -1) if array.null_count else lengths


def unequal_row(lists: Sequence[Any]) -> int | None:
    """The first row whose lists differ in length, null lists aside; None if there is none."""
    lengths = [lengths_of(column) for column in lists]
    if not lengths:
        return None
    longest = functools.reduce(np.maximum, lengths)
    differs = functools.reduce(np.logical_or, ((n >= 0) & (n != longest) for n in lengths))
    return int(np.argmax(differs)) if differs.any() else None


def _ints(array: Any) -> Ints:
    values, valid = values_of(array), valid_of(array)
    return Ints(np.where(valid, values, 0) if array.null_count else values, valid)


def _lists(array: Any) -> Lists:
    offsets = values_of(array.offsets).astype(np.int64)
    items = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    return Lists(values_of(items), offsets - offsets[0], valid_of(array))


def _unique(array: Any) -> NDArray[np.object_]:
    """Text that differs from row to row."""
    return np.array(array.to_pylist(), dtype=object)


def _repeating(array: Any) -> NDArray[np.object_]:
    """Text with few distinct values: each is decoded once, and all rows share it."""
    encoded = array.dictionary_encode(null_encoding="encode")
    words = np.array(encoded.dictionary.to_pylist(), dtype=object)
    texts: NDArray[np.object_] = words[values_of(encoded.indices)]
    return texts
