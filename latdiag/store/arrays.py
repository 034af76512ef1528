"""Arrow record batches as the numpy columns of a ``Batch``.

Works on buffers: Arrow's own conversion imports pandas, and lists and booleans are faster so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from latdiag.store.batch import Batch, Ints, Lists
from latdiag.store.schema import UNIQUE_TEXTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DTYPES = {"int64": "int64", "int32": "int32", "int8": "int8", "double": "float64"}


def to_batch(record_batch: Any) -> Batch:
    """A ``Batch`` of a record batch with columns of the declared types.

    Fixed-width values without nulls, and list items, are views of Arrow's memory (read-only).
    Floats and maps have no place in a Batch: whoever wants them reads a frame.
    """
    import pyarrow as pa

    batch = Batch(record_batch.num_rows, {}, {}, {}, {})
    for name, array in zip(record_batch.schema.names, record_batch.columns, strict=True):
        if pa.types.is_list(array.type):
            batch.lists[name] = _lists(array)
        elif pa.types.is_int64(array.type):
            batch.ints[name] = _ints(array)
        elif pa.types.is_boolean(array.type):
            batch.bools[name] = _bits(array) & _valid(array)
        elif pa.types.is_string(array.type):
            batch.texts[name] = _unique(array) if name in UNIQUE_TEXTS else _repeating(array)
        else:
            raise TypeError(f"a Batch has no place for {name} ({array.type})")
    return batch


def lists_of(table: Any) -> list[Any]:
    """The list columns of a record batch, or of a table that lies in one piece."""
    import pyarrow as pa

    columns = [column for column in table.columns if pa.types.is_list(column.type)]
    if isinstance(table, pa.Table):
        return [column.chunk(0) for column in columns if column.num_chunks]
    return columns


def list_offsets(array: Any) -> NDArray[np.int32]:
    """The offsets of a list array into its items, one more than rows; the first may be > 0."""
    import numpy as np

    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(len(array) + 1, dtype=np.int32)
    return np.frombuffer(buffer, np.int32, len(array) + 1, 4 * array.offset)


def list_valid(array: Any) -> NDArray[np.bool_] | None:
    """Where a list array is not null; None if it is nowhere."""
    return _valid(array) if array.null_count else None


def cuts(table: Any, rows: int, items: int) -> list[tuple[int, int]]:
    """Where to cut a table or record batch: (start, length) of pieces of at most ``rows`` rows.

    A piece also ends before its longest list column passes ``items`` items (a single row may),
    so that memory does not depend on how long the answers were.
    """
    import numpy as np

    total = table.num_rows
    ends = np.zeros(total + 1, dtype=np.int64)
    for column in lists_of(table):
        np.maximum(ends[1:], np.diff(list_offsets(column)), out=ends[1:])
    ends = np.cumsum(ends)
    pieces = []
    start = 0
    while start < total:
        by_items = int(np.searchsorted(ends, ends[start] + items, side="right")) - 1
        end = min(total, start + rows, max(by_items, start + 1))
        pieces.append((start, end - start))
        start = end
    return pieces


def items_of(table: Any) -> int:
    """How many items the longest list column of a table or record batch holds."""
    ends = [list_offsets(column)[[0, -1]].tolist() for column in lists_of(table)]
    return max((int(end) - int(start) for start, end in ends), default=0)


def unequal_row(
    lists: Sequence[tuple[NDArray[np.integer[Any]], NDArray[np.bool_] | None]],
) -> int | None:
    """The first row whose lists differ in length, null lists aside; None if there is none.

    ``lists``: for each list column its offsets (one more than rows) and where it is valid (None:
    everywhere).
    """
    import numpy as np

    wanted: Any = None
    for offsets, valid in lists:
        lengths = np.diff(offsets)
        if valid is not None:
            lengths = np.where(valid, lengths, -1)
        if wanted is None:
            wanted = lengths.copy()
            continue
        bad = (lengths != wanted) & (lengths >= 0) & (wanted >= 0)
        if bad.any():
            return int(np.argmax(bad))
        np.maximum(wanted, lengths, out=wanted)
    return None


def _unpacked(buffer: Any, start: int, n: int) -> NDArray[np.bool_]:
    """``n`` bits of a buffer from bit ``start`` on."""
    import numpy as np

    first = start // 8
    packed = np.frombuffer(buffer, np.uint8, (start + n + 7) // 8 - first, first)
    bits = np.unpackbits(packed, bitorder="little")[start - 8 * first :][:n]
    return bits.view(np.bool_)


def _valid(array: Any) -> NDArray[np.bool_]:
    import numpy as np

    bits = array.buffers()[0]
    if bits is None or not array.null_count:
        return np.ones(len(array), dtype=bool)
    return _unpacked(bits, array.offset, len(array))


def _bits(array: Any) -> NDArray[np.bool_]:
    import numpy as np

    if not len(array):
        return np.zeros(0, dtype=bool)
    return _unpacked(array.buffers()[1], array.offset, len(array))


def _fixed(array: Any) -> NDArray[Any]:
    """The values of a fixed-width array, without a copy; anything where it is null."""
    import numpy as np

    dtype = np.dtype(_DTYPES[str(array.type)])
    if not len(array):
        return np.zeros(0, dtype=dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), dtype.itemsize * array.offset)


def _ints(array: Any) -> Ints:
    import numpy as np

    valid = _valid(array)
    values = _fixed(array)
    return Ints(np.where(valid, values, 0) if array.null_count else values, valid)


def _lists(array: Any) -> Lists:
    import numpy as np
    import pyarrow as pa

    offsets = list_offsets(array).astype(np.int64)
    items = array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    values = _bits(items) if pa.types.is_boolean(items.type) else _fixed(items)
    return Lists(values, offsets - offsets[0], _valid(array))


def _repeating(array: Any) -> NDArray[np.object_]:
    """Text with few distinct values: each is decoded once, and all rows share it."""
    import numpy as np

    if not len(array):
        return np.empty(0, dtype=object)
    encoded = array.dictionary_encode()
    words = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    indices = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(array))
    return words[np.where(_valid(array), indices, -1)]


def _unique(array: Any) -> NDArray[np.object_]:
    """Text that differs from row to row."""
    import numpy as np

    offsets = list_offsets(array)
    buffer = array.buffers()[2]
    ends = (offsets - offsets[0]).tolist()
    raw = b"" if buffer is None else buffer.slice(int(offsets[0]), ends[-1]).to_pybytes()
    texts = np.empty(len(array), dtype=object)
    texts[:] = [raw[a:b].decode() for a, b in pairwise(ends)]
    if array.null_count:
        texts[~_valid(array)] = None
    return texts
