"""Columns in, one Arrow table of the declared schema out.

Arrays are built from numpy buffers, not through ``pyarrow.array``: that imports pandas where it
is installed, which would cost a writing process 45 MB and half a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latdiag.store.arrays import unequal_row
from latdiag.store.batch import Ints, Lists
from latdiag.store.schema import TABLES, arrow_schema, arrow_type

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Offsets of text and lists are 32 bits wide in a part.
_MAX_ITEMS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ListColumn:
    """A list column for writing: row i holds ``values[offsets[i]:offsets[i + 1]]``.

    ``offsets`` has one entry more than there are rows and never decreases; ``valid`` is False
    where the whole list is null (such a row must be empty), None where no row is.
    """

    values: NDArray[Any]
    offsets: NDArray[np.integer[Any]]
    valid: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class MapColumn:
    """A map column for writing: row i holds ``keys[offsets[i]:offsets[i + 1]]`` and the values
    of the same places. No row is null, and no key may be twice in a row (not checked here)."""

    offsets: NDArray[np.integer[Any]]
    keys: Sequence[str]
    values: Sequence[str]


#: What a column may be given as: a sequence or array, ``Ints``, ``Lists``, ``ListColumn`` or
#: ``MapColumn``.
Column = Any


def row_count(columns: Mapping[str, Column]) -> int:
    """The number of rows that all columns have. ValueError if they differ."""
    counts = {name: _rows_of(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"columns of different lengths: {counts}")
    return next(iter(counts.values()), 0)


def arrow_table(table: str, columns: Mapping[str, Column]) -> Any:
    """``columns`` as a ``pyarrow.Table`` of the whole schema; absent columns are null.

    A column is a sequence or array of values with None for null, or an ``Ints``, ``Lists`` or
    ``ListColumn``; a list column may also be a sequence of sequences. Raises ValueError, naming
    the column, for a column that the schema lacks, values that its type cannot hold, and rows
    whose lists differ in length.
    """
    import pyarrow as pa

    words = TABLES[table]
    unknown = sorted(columns.keys() - words.keys())
    if unknown:
        raise ValueError(f"{table} has no column {', '.join(unknown)}")
    rows = row_count(columns)
    arrays: list[Any] = []
    lists: list[tuple[Any, Any]] = []
    for name, word in words.items():
        if name not in columns:
            arrays.append(pa.nulls(rows, arrow_type(word)))
        elif word.startswith("list"):
            array, offsets, valid = _list_array(name, word, columns[name])
            arrays.append(array)
            lists.append((offsets, valid))
        else:
            arrays.append(flat_array(name, word, columns[name]))
    row = unequal_row(lists)
    if row is not None:
        raise ValueError(f"{table}: the list columns of row {row} differ in length")
    return pa.Table.from_arrays(arrays, schema=arrow_schema(table))


def flat_array(name: str, word: str, column: Column) -> Any:
    """One column that is not a list as an Arrow array. ValueError as for ``arrow_table``."""
    return _BUILDERS[word](name, column)


def _rows_of(column: Column) -> int:
    if isinstance(column, Ints):
        return len(column.values)
    if isinstance(column, Lists | ListColumn | MapColumn):
        return len(column.offsets) - 1
    return len(column)


def _bitmap(valid: Any) -> Any:
    """The validity buffer of an array; None where every row is valid."""
    import numpy as np
    import pyarrow as pa

    if valid is None or bool(np.all(valid)):
        return None
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def _values_and_valid(name: str, column: Any, kinds: str, dtype: Any, zero: Any) -> Any:
    """A flat column as (array of ``dtype``, valid or None)."""
    import numpy as np

    if isinstance(column, Ints):
        return _as(name, column.values, kinds, dtype), np.asarray(column.valid, dtype=bool)
    if isinstance(column, np.ndarray) and column.dtype != object:
        return _as(name, column, kinds, dtype), None
    valid = np.array([value is not None for value in column], dtype=bool)
    filled = [zero if value is None else value for value in column]
    return _as(name, np.array(filled) if filled else np.empty(0, dtype), kinds, dtype), valid


def _as(name: str, values: Any, kinds: str, dtype: Any) -> Any:
    """``values`` as a contiguous array of ``dtype``. ValueError if one would change."""
    import numpy as np

    values = np.asarray(values)
    target = np.dtype(dtype)
    if values.size and (values.dtype.kind not in kinds or values.ndim != 1):
        raise ValueError(f"column {name}: {values.dtype} values where {target} are declared")
    if target.kind == "i" and values.size and not np.can_cast(values.dtype, target):
        bounds = np.iinfo(target)
        if int(values.min()) < bounds.min or int(values.max()) > bounds.max:
            raise ValueError(f"column {name}: a value does not fit {target}")
    return np.ascontiguousarray(values, dtype=target)


def _fixed(word: str, kinds: str, dtype: str, zero: Any) -> Callable[[str, Column], Any]:
    """The builder of a column of fixed-width values."""

    def build(name: str, column: Column) -> Any:
        import pyarrow as pa

        values, valid = _values_and_valid(name, column, kinds, dtype, zero)
        return pa.Array.from_buffers(
            arrow_type(word), len(values), [_bitmap(valid), _data(values)]
        )

    return build


def _data(values: Any) -> Any:
    """The data buffer of fixed-width values; Arrow packs booleans into bits."""
    import numpy as np
    import pyarrow as pa

    return pa.py_buffer(np.packbits(values, bitorder="little") if values.dtype == bool else values)


def _texts(name: str, column: Column) -> Any:
    import numpy as np
    import pyarrow as pa

    texts = ["" if value is None else value for value in column]
    valid = np.array([value is not None for value in column], dtype=bool)
    try:
        joined = "".join(texts)
        raw = joined.encode()
    except TypeError:
        raise ValueError(f"column {name}: values that are not text") from None
    except UnicodeEncodeError:
        raw = b""
    lengths: Any = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    if len(raw) != len(joined):  # not ASCII: lengths in bytes differ from those in characters
        encoded = [_utf8(text) for text in texts]
        raw, lengths = b"".join(encoded), [len(each) for each in encoded]
    buffers = [_bitmap(valid), pa.py_buffer(_running(lengths, name)), pa.py_buffer(raw)]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def _utf8(text: str) -> bytes:
    """``text`` in UTF-8; half a surrogate pair, as foreign JSON may hold, becomes ``?``."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _running(lengths: Any, name: str) -> Any:
    """Offsets (int32, one more than ``lengths``) of rows laid end to end."""
    import numpy as np

    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] > _MAX_ITEMS:
        raise ValueError(f"column {name}: more than {_MAX_ITEMS} items or bytes in one part")
    return offsets.astype(np.int32)


_ITEMS = {
    "list<int64>": ("iu", "int64"),
    "list<int32>": ("iu", "int32"),
    "list<int8>": ("iu", "int8"),
    "list<bool>": ("b", "bool"),
    "list<double>": ("fiu", "float64"),
}


def _list_array(name: str, word: str, column: Column) -> Any:
    """A list column as (Arrow array, int32 offsets, valid or None)."""
    import numpy as np
    import pyarrow as pa

    if not isinstance(column, Lists | ListColumn):
        column = _joined(name, word, column)
    offsets = np.asarray(column.offsets, dtype=np.int64)
    lengths = np.diff(offsets)
    valid = None if column.valid is None else np.asarray(column.valid, dtype=bool)
    if lengths.size and (lengths.min() < 0 or offsets[0] < 0 or offsets[-1] > len(column.values)):
        raise ValueError(f"column {name}: offsets that do not fit its values")
    if valid is not None and lengths[~valid].any():
        raise ValueError(f"column {name}: a null list that holds items")
    values = column.values[offsets[0] : offsets[-1]]
    offsets = _running(lengths, name)
    items = _as(name, values, *_ITEMS[word])
    kind = arrow_type(word)
    child = pa.Array.from_buffers(kind.value_type, len(items), [None, _data(items)])
    buffers = [_bitmap(valid), pa.py_buffer(offsets)]
    return (
        pa.Array.from_buffers(kind, len(lengths), buffers, children=[child]),
        offsets,
        valid,
    )


def _joined(name: str, word: str, rows: Sequence[Any]) -> ListColumn:
    """A sequence of sequences (None: a null list) laid end to end."""
    import numpy as np

    kinds, dtype = _ITEMS[word]
    parts = [_as(name, np.empty(0, dtype) if row is None else row, kinds, dtype) for row in rows]
    return ListColumn(
        np.concatenate(parts) if parts else np.empty(0, dtype),
        _running([len(part) for part in parts], name),
        np.array([row is not None for row in rows], dtype=bool),
    )


def _maps(name: str, column: Column) -> Any:
    import numpy as np
    import pyarrow as pa

    if isinstance(column, MapColumn):
        offsets, valid = _checked_map(name, column), None
        keys, values = column.keys, column.values
    else:
        rows = [[] if row is None else list(dict(row).items()) for row in column]
        valid = np.array([row is not None for row in column], dtype=bool)
        offsets = _running([len(row) for row in rows], name)
        keys = [key for row in rows for key, _ in row]
        values = [value for row in rows for _, value in row]
    kind = arrow_type("map")
    inner = pa.StructArray.from_arrays(
        [_texts(name, keys), _texts(name, values)], fields=[kind.key_field, kind.item_field]
    )
    buffers = [_bitmap(valid), pa.py_buffer(offsets)]
    return pa.Array.from_buffers(kind, len(offsets) - 1, buffers, children=[inner])


def _checked_map(name: str, column: MapColumn) -> Any:
    """The offsets (int32) of a flat map. ValueError where they do not fit its items."""
    import numpy as np

    offsets = np.asarray(column.offsets, dtype=np.int64)
    items = len(column.keys)
    fits = offsets.size and offsets[0] == 0 and offsets[-1] == items == len(column.values)
    if not fits or (np.diff(offsets) < 0).any() or items > _MAX_ITEMS:
        raise ValueError(f"column {name}: offsets that do not fit its items")
    return offsets.astype(np.int32)


_BUILDERS: dict[str, Callable[[str, Column], Any]] = {
    "int": _fixed("int", "iu", "int64", 0),
    "float": _fixed("float", "fiu", "float64", 0.0),
    "bool": _fixed("bool", "b", "bool", False),
    "text": _texts,
    "map": _maps,
}
