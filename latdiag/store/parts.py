"""One parquet file of a run, read with suspicion, as Arrow record batches of the declared types.

Two kinds of failure: ``Damaged`` says that a file cannot be read (on), as after a crash or a
partial copy, and the rest of the run can. ``RunFault`` says that the file contradicts the
contract (types, list lengths, absurd sizes): numbers from such a run would be wrong.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latdiag.model.errors import RunFault
from latdiag.model.text import shown
from latdiag.store.arrays import (
    arrow_type,
    cuts,
    items_of,
    lengths_of,
    lists_of,
    offsets_of,
    unequal_row,
)
from latdiag.store.faults import local_fault
from latdiag.store.memory import BATCH_MEMORY, Budget, within
from latdiag.store.place import Place
from latdiag.store.schema import KEYS, MAX_LIST, MAX_MAP, MAX_TEXT, TABLES

MAX_FILE_BYTES = 8 * 1024**3
MAX_FILE_ROWS = 20_000_000
#: All columns of one row group, encoded. Ours end at 4 Mi items: 80 MiB.
MAX_GROUP_BYTES = 1024**3
#: Items of the longest list column in one batch; about 14 bytes each in those metrics need.
BATCH_ITEMS = 4 * 1024 * 1024
#: All that a batch holds, when small ones are joined.
BATCH_JOINED = 64 * 1024 * 1024
#: The same before a row group is read, when only its bytes are known: 24 an item if not packed.
BATCH_BYTES = 24 * BATCH_ITEMS

# What is bounded by the address space of a process must not lie in what an allocator reserved.
pa.set_memory_pool(pa.system_memory_pool())

_OPTIONS = {
    # Bytes that rotted are seen before their numbers are believed, at no cost that shows.
    "page_checksum_verification": True,
    "thrift_string_size_limit": 16 * 1024 * 1024,
    "thrift_container_size_limit": 1_000_000,
}


class Damaged(Exception):
    """A file that cannot be read; the text says what of it is lost."""


def read_part(
    place: Place, name: str, table: str, columns: Sequence[str], rows: int, budget: Budget
) -> Iterator[Any]:
    """Record batches of ``columns``, in that order, of at most ``rows`` rows each.

    Columns that the file lacks are null. Raises FileNotFoundError if the file is gone, Damaged
    where it cannot be read (on), RunFault where it is against the contract.
    """
    file = f"{place.name}/{shown(name)}"
    source, size = place.source(name)
    if size > MAX_FILE_BYTES:
        raise _against(file, f"has {size} bytes, and at most {MAX_FILE_BYTES} are read")
    budget.add(size)
    with _damage(file, "all of it is lost"):
        parquet = within(lambda: _opened(source))
        rows_claimed = parquet.metadata.num_rows
        if not (0 <= rows_claimed <= MAX_FILE_ROWS and budget.claim(rows_claimed)):
            raise _against(file, f"claims {rows_claimed} rows in {size} bytes")
        present = _checked(parquet, file, table, columns)
    done = 0
    with parquet:
        for group in range(parquet.metadata.num_row_groups):
            with _damage(file, f"its rows from {done} on are lost"):
                following = _group(parquet, group, present, rows, file, table, columns)
            while True:
                with _damage(file, f"its rows from {done} on are lost"):
                    batch = within(following)
                if batch is None:
                    break
                if not budget.spend(batch.nbytes):
                    raise _against(file, f"holds far more than its {size} bytes can")
                _check_texts(batch, file)
                _check_lists(batch, file, done)
                done += batch.num_rows
                yield batch


def gathered(batches: Iterable[Any], rows: int) -> Iterator[Any]:
    """Small record batches joined to batches of up to ``rows`` rows and BATCH_ITEMS items.

    A run of an hour has thousands of small parts; whoever computes on them pays per batch.
    """
    held: list[Any] = []
    n = items = size = 0
    for batch in (piece for whole in batches for piece in _pieces(whole, rows)):
        more = items_of(batch)
        # A batch that is large as it is passes by itself: joining would copy it.
        large = 2 * batch.num_rows > rows or 2 * more > BATCH_ITEMS
        large = large or 2 * batch.nbytes > BATCH_JOINED
        full = n + batch.num_rows > rows or items + more > BATCH_ITEMS
        if held and (large or full or size + batch.nbytes > BATCH_JOINED):
            yield _joined(held)
            held, n, items, size = [], 0, 0, 0
        if large:
            yield batch
            continue
        held.append(batch)
        n += batch.num_rows
        items += more
        size += batch.nbytes
    if held:
        yield _joined(held)


def _pieces(batch: Any, rows: int) -> list[Any]:
    """``batch``, or views of its parts if it is too large."""
    if batch.num_rows <= rows and items_of(batch) <= BATCH_ITEMS:
        return [batch]
    return [batch.slice(start, n) for start, n in cuts(batch, rows, BATCH_ITEMS)]


def _joined(batches: list[Any]) -> Any:
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


@contextlib.contextmanager
def _damage(file: str, lost: str) -> Iterator[None]:
    """Maps what pyarrow raises on broken bytes to Damaged; ``lost`` says what is gone."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        # Arrow reports broken bytes as OSError too, but without a number from the system.
        if error.errno:
            raise local_fault(error, f"read {file}", file) from error
        raise Damaged(f"{file} is damaged; {lost}") from error
    except MemoryError as error:
        most = BATCH_MEMORY >> 20
        raise _against(file, f"takes more than {most} MiB for some of its rows") from error
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise Damaged(f"{file} is damaged; {lost}") from error


def _opened(source: Any) -> Any:
    # Remote columns are fetched ahead; local ones lie in the page cache.
    remote = not isinstance(source, str)
    return pq.ParquetFile(source, pre_buffer=remote, **_OPTIONS)


def _checked(parquet: Any, file: str, table: str, columns: Sequence[str]) -> list[str]:
    """The wanted columns that the file has, at least one. RunFault for what they must not be."""
    schema = parquet.schema_arrow
    names: list[str] = schema.names
    for name in (*KEYS[table], *columns):
        if names.count(name) > 1:
            raise _against(file, f"has the column {name} twice")
    for name in KEYS[table]:
        if name not in names:
            raise _against(file, f"has no column {name}")
    present = [name for name in columns if name in names] or [KEYS[table][0]]
    for name in present:
        declared = arrow_type(TABLES[table][name])
        if not _same(schema.field(name).type, declared):
            kind = shown(schema.field(name).type, 60)
            raise _against(file, f"has {kind} in the column {name}, which is {declared}")
    return present


def _same(found: Any, declared: Any) -> bool:
    """True if two types differ at most in the names and nullability of what is inside."""
    if pa.types.is_list(declared):
        return bool(pa.types.is_list(found) and found.value_type == declared.value_type)
    if pa.types.is_map(declared):
        same = pa.types.is_map(found) and found.key_type == declared.key_type
        return bool(same and found.item_type == declared.item_type)
    return bool(found == declared)


def _group(
    parquet: Any, group: int, present: list[str], rows: int, file: str, table: str,
    columns: Sequence[str],
) -> Callable[[], Any]:  # fmt: skip
    """A call for each batch of one row group, fewer rows each where its lists are long; None at
    its end. After a MemoryError the next call is for the same batch."""
    # Not a word of the columns' own metadata: asking for it ends the process where it is damaged
    # (a C++ exception that pyarrow does not catch). That of the group as a whole is safe.
    meta = parquet.metadata.row_group(group)
    if not 0 <= meta.num_rows <= MAX_FILE_ROWS:
        raise _against(file, f"claims {meta.num_rows} rows")
    if not 0 <= meta.total_byte_size <= MAX_GROUP_BYTES:
        raise _against(file, f"has {meta.total_byte_size} bytes in one group of rows")
    mean = meta.total_byte_size / max(1, meta.num_rows)
    size = max(1, min(rows, int(BATCH_BYTES / max(1.0, mean))))
    raws: Iterator[Any] | None = None
    given = 0

    def following() -> Any:
        nonlocal raws, given
        try:
            if raws is None:
                all_ = parquet.iter_batches(
                    size, row_groups=[group], columns=present, use_threads=False
                )
                raws = itertools.islice(all_, given, None)
            raw = next(raws, None)
            batch = None if raw is None else _declared(raw, table, columns)
        except MemoryError:
            raws = None
            raise
        given += 1
        return batch

    return following


def _declared(batch: Any, table: str, columns: Sequence[str]) -> Any:
    """``batch`` with exactly ``columns`` in the declared types. ValueError for broken text."""
    batch.validate(full=True)
    arrays = []
    for name in columns:
        kind = arrow_type(TABLES[table][name])
        if name not in batch.schema.names:
            arrays.append(pa.nulls(batch.num_rows, kind))
            continue
        array = batch.column(name)
        if pa.types.is_list(kind) and array.values.null_count:
            raise ValueError("a null inside a list")
        arrays.append(array if pa.types.is_map(kind) else array.cast(kind))
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _check_texts(batch: Any, file: str) -> None:
    """RunFault for a text or a map beyond what is ever written."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        texts = [column] if pa.types.is_string(column.type) else []
        if pa.types.is_map(column.type):
            texts = [column.keys, column.items]
            if (most := _longest(column)) > MAX_MAP:
                raise _against(file, f"holds a map of {most} entries in the column {name}")
        for each in texts:
            if (most := _longest(each)) > MAX_TEXT:
                raise _against(file, f"holds a text of {most} bytes in the column {name}")


def _longest(array: Any) -> int:
    """Bytes of the longest text of an array, or entries of its longest map."""
    if not len(array):
        return 0
    return int(np.diff(offsets_of(array)).max())


def _check_lists(batch: Any, file: str, first: int) -> None:
    """RunFault if lists of a row differ in length or one is absurdly long.

    ``first`` is the number of the batch's first row in its file.
    """
    lists = lists_of(batch)
    row = unequal_row(lists)
    if row is not None:
        raise _against(file, f"holds lists of different lengths in row {first + row}")
    for lengths in map(lengths_of, lists):
        if (longest := int(lengths.max(initial=0))) > MAX_LIST:
            row = first + int(lengths.argmax())
            raise _against(file, f"holds a list of {longest} items in row {row}")


def _against(file: str, what: str) -> RunFault:
    return RunFault(f"{file} {what}", "it was not written by latdiag: remove it, or mend it")
