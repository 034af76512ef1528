"""Columns in, a parquet file of the declared schema out; numbers change by nothing.

Arrays are built from numpy buffers: see ``arrays`` for why not by ``pyarrow.array``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from latdiag.store.arrays import arrow_schema, arrow_type, cuts, offsets_of, unequal_row
from latdiag.store.batch import Ints, Lists, MapColumn
from latdiag.store.memory import ROW_BYTES, TIMES_WRITTEN
from latdiag.store.schema import MAX_LIST, MAX_MAP, MAX_TEXT, TABLES, UNIQUE_TEXTS

#: A reader's batch, and a bound on its items, so that long answers do not cost it memory:
#: 4 Mi arrivals are 56 MiB in the four columns that metrics need.
GROUP_ROWS = 10_000
GROUP_ITEMS = 4 * 1024 * 1024
#: Of texts and maps in one group, and in one row of it, decoded.
GROUP_TEXT = 32 * 1024 * 1024
#: Offsets of text and lists are 32 bits wide in a part.
_MAX_ITEMS = 2**31 - 1
#: By type word: the kinds of numpy values that are taken, and the type that they are stored in.
_FIXED = {
    "int": ("iu", np.dtype(np.int64)),
    "float": ("fiu", np.dtype(np.float64)),
    "bool": ("b", np.dtype(np.bool_)),
    "list<int64>": ("iu", np.dtype(np.int64)),
    "list<int32>": ("iu", np.dtype(np.int32)),
    "list<int8>": ("iu", np.dtype(np.int8)),
    "list<bool>": ("b", np.dtype(np.bool_)),
    "list<double>": ("fiu", np.dtype(np.float64)),
}


#: What a column may be given as: a sequence or array of values with None for null, ``Ints``,
#: ``Lists`` (or a sequence of sequences), ``MapColumn`` (or a sequence of mappings).
Column = Any


def row_count(columns: Mapping[str, Column]) -> int:
    """The number of rows that all columns have. ValueError if they differ."""
    counts = {name: _rows_of(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"columns of different lengths: {counts}")
    return next(iter(counts.values()), 0)


def arrow_batch(table: str, columns: Mapping[str, Column]) -> Any:
    """``columns`` as a ``pyarrow.RecordBatch`` of the whole schema; absent columns are null.

    Raises ValueError, naming the column, for a column that the schema lacks, values that its type
    cannot hold, and rows whose lists differ in length.
    """
    words = TABLES[table]
    unknown = sorted(columns.keys() - words.keys())
    if unknown:
        raise ValueError(f"{table} has no column {', '.join(unknown)}")
    rows = row_count(columns)
    arrays = {
        name: column_array(name, word, columns[name])
        if name in columns
        else pa.nulls(rows, arrow_type(word))
        for name, word in words.items()
    }
    row = unequal_row([arrays[n] for n in columns if words[n].startswith("list")])
    if row is not None:
        raise ValueError(f"{table}: the list columns of row {row} differ in length")
    return pa.RecordBatch.from_arrays(list(arrays.values()), schema=arrow_schema(table))


def encoded(table: str, columns: Mapping[str, Column]) -> Any:
    """``columns`` as the bytes of a parquet file (a ``pyarrow.Buffer``).

    Instants are stored as packed differences and everything is LZ4: of the encodings that any
    parquet reader knows, the ones that one core reads fastest (about 9 ns an arrival in the four
    columns that metrics need, against 22 ns for plain values under zstd), at 4 bytes an arrival.

    Whoever reads a file bounds what it decodes to by the bytes that it has, whoever wrote it. Rows
    that are nearly equal compress to next to nothing: such a file is filled up.
    """
    rows = arrow_batch(table, columns)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, **_layout(table)) as writer:
        for start, length in cuts(rows, GROUP_ROWS, GROUP_ITEMS, GROUP_TEXT):
            writer.write_batch(rows.slice(start, length), row_group_size=length)
    least = max(rows.nbytes // TIMES_WRITTEN, rows.num_rows * ROW_BYTES[table])
    return _filled(sink.getvalue(), least)


def _filled(file: Any, least: int) -> Any:
    """A parquet file of at least ``least`` bytes: zeros between its rows and its footer, which
    says where everything is, counted from the beginning."""
    short = least - len(file)
    if short <= 0:
        return file
    footer = 8 + int.from_bytes(file[-8:-4].to_pybytes(), "little")
    pieces = (memoryview(file)[:-footer], bytes(short), memoryview(file)[-footer:])
    return pa.py_buffer(b"".join(pieces))


def _layout(table: str) -> dict[str, object]:
    """Options of ``pyarrow.parquet.ParquetWriter`` for a table's columns."""
    words = TABLES[table]
    packed = {name: "DELTA_BINARY_PACKED" for name, word in words.items() if word == "int"}
    packed |= {
        f"{name}.list.element": "DELTA_BINARY_PACKED"
        for name, word in words.items()
        if word == "list<int64>"
    }
    repeating = [n for n, w in words.items() if w == "text" and n not in UNIQUE_TEXTS]
    maps = [f"{n}.key_value.{p}" for n, w in words.items() if w == "map" for p in ("key", "value")]
    return {
        "compression": "lz4",
        "use_dictionary": repeating + maps,
        "column_encoding": packed,
        "write_statistics": False,
        "write_page_checksum": True,
        "store_schema": False,
    }


def column_array(name: str, word: str, column: Column) -> Any:
    """One column of the type ``word`` as an Arrow array. ValueError as for ``arrow_batch``."""
    if word == "text":
        return _texts(name, column)
    if word == "map":
        return _maps(name, column)
    if word.startswith("list"):
        return _lists(name, word, column)
    kinds, dtype = _FIXED[word]
    if isinstance(column, Ints):
        return _fixed(name, column.values, kinds, dtype, column.valid)
    if isinstance(column, np.ndarray) and column.dtype != object:
        return _fixed(name, column, kinds, dtype)
    valid = np.array([value is not None for value in column], dtype=bool)
    null = dtype.type().item()
    values = [null if value is None else value for value in column]
    return _fixed(name, np.array(values) if values else np.empty(0, dtype), kinds, dtype, valid)


def _rows_of(column: Column) -> int:
    if isinstance(column, Ints):
        return len(column.values)
    return len(column.offsets) - 1 if isinstance(column, Lists | MapColumn) else len(column)


def _bits(values: NDArray[np.bool_]) -> Any:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def _bitmap(valid: NDArray[np.bool_] | None) -> Any:
    """The validity buffer of an array; None where every row is valid."""
    return None if valid is None or bool(np.all(valid)) else _bits(valid)


def _as(name: str, values: Any, kinds: str, dtype: Any) -> NDArray[Any]:
    """``values`` as a contiguous array of ``dtype``. ValueError if one would change."""
    values = np.asarray(values)
    if values.size and (values.dtype.kind not in kinds or values.ndim != 1):
        raise ValueError(f"column {name}: {values.dtype} values where {dtype} are declared")
    if dtype.kind == "i" and values.size and not np.can_cast(values.dtype, dtype):
        bounds = np.iinfo(dtype)
        if int(values.min()) < bounds.min or int(values.max()) > bounds.max:
            raise ValueError(f"column {name}: a value does not fit {dtype}")
    return np.ascontiguousarray(values, dtype=dtype)


def _fixed(name: str, values: Any, kinds: str, dtype: Any, valid: Any = None) -> Any:
    """An array of fixed-width values."""
    values = _as(name, values, kinds, dtype)
    data = _bits(values) if dtype.kind == "b" else pa.py_buffer(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(dtype), len(values), [_bitmap(valid), data])


def _texts(name: str, column: Sequence[str | None]) -> Any:
    """Text in UTF-8; half a surrogate pair, as foreign JSON may hold, becomes ``?``."""
    valid: NDArray[np.bool_] | None = None
    texts: Sequence[Any] = column
    try:
        whole = "".join(texts)
    except TypeError:  # there are nulls among them
        valid = np.array([value is not None for value in column], dtype=bool)
        texts = ["" if value is None else value for value in column]
        whole = _joined(name, texts)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if whole.isascii() and lengths.max(initial=0) <= MAX_TEXT:
        data = whole.encode()  # at once: 30 texts of a span, one by one, were half of its cost
    else:
        encoded = [_cut(text.encode("utf-8", "replace")) for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        data = b"".join(encoded)
    buffers = [_bitmap(valid), pa.py_buffer(_running(lengths, name)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def _joined(name: str, texts: Sequence[Any]) -> str:
    try:
        return "".join(texts)
    except TypeError:
        raise ValueError(f"column {name}: values that are not text") from None


def _cut(text: bytes) -> bytes:
    """At most MAX_TEXT bytes of a text in UTF-8; one that is cut ends in three dots."""
    if len(text) <= MAX_TEXT:
        return text
    return text[: MAX_TEXT - 3].decode("utf-8", "ignore").encode() + b"..."


def _running(lengths: Any, name: str) -> NDArray[np.int32]:
    """Offsets (one more than ``lengths``) of rows laid end to end."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] > _MAX_ITEMS:
        raise ValueError(f"column {name}: more than {_MAX_ITEMS} items or bytes in one part")
    return offsets.astype(np.int32)


def _lists(name: str, word: str, column: Column) -> Any:
    kinds, dtype = _FIXED[word]
    if not isinstance(column, Lists):
        rows = [_as(name, [] if row is None else row, kinds, dtype) for row in column]
        column = Lists(
            np.concatenate(rows) if rows else np.empty(0, dtype),
            _running([len(row) for row in rows], name).astype(np.int64),
            np.array([row is not None for row in column], dtype=bool),
        )
    offsets, valid = np.asarray(column.offsets, dtype=np.int64), column.valid
    lengths = np.diff(offsets)
    if lengths.size and (lengths.min() < 0 or offsets[0] < 0 or offsets[-1] > len(column.values)):
        raise ValueError(f"column {name}: offsets that do not fit its values")
    if lengths.max(initial=0) > MAX_LIST:
        raise ValueError(f"column {name}: a list of more than {MAX_LIST} items")
    if lengths[~valid].any():
        raise ValueError(f"column {name}: a null list that holds items")
    items = _fixed(name, column.values[offsets[0] : offsets[-1]], kinds, dtype)
    buffers = [_bitmap(valid), pa.py_buffer(_running(lengths, name))]
    return pa.Array.from_buffers(arrow_type(word), len(lengths), buffers, children=[items])


def _maps(name: str, column: Column) -> Any:
    valid = None
    if not isinstance(column, MapColumn):
        rows = [{} if row is None else dict(row) for row in column]
        valid = np.array([row is not None for row in column], dtype=bool)
        column = MapColumn(
            _running([len(row) for row in rows], name),
            [key for row in rows for key in row],
            [value for row in rows for value in row.values()],
        )
    offsets, items = np.asarray(column.offsets, dtype=np.int64), len(column.keys)
    fits = offsets.size and offsets[0] == 0 and offsets[-1] == items == len(column.values)
    if not fits or (np.diff(offsets) < 0).any() or items > _MAX_ITEMS:
        raise ValueError(f"column {name}: offsets that do not fit its items")
    if np.diff(offsets).max(initial=0) > MAX_MAP:
        raise ValueError(f"column {name}: a map of more than {MAX_MAP} entries")
    kind = arrow_type("map")
    inner = pa.StructArray.from_arrays(
        [_texts(name, column.keys), _texts(name, column.values)],
        fields=[kind.key_field, kind.item_field],
    )
    ends = (
        offsets_of(inner.field(0))[offsets].astype(np.int64) + offsets_of(inner.field(1))[offsets]
    )
    if np.diff(ends).max(initial=0) > GROUP_TEXT:
        raise ValueError(f"column {name}: a map of more than {GROUP_TEXT} bytes")
    buffers = [_bitmap(valid), pa.py_buffer(offsets.astype(np.int32))]
    return pa.Array.from_buffers(kind, len(offsets) - 1, buffers, children=[inner])
