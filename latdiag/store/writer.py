"""Making runs: ``create_run`` once, then one ``RunWriter`` in each process that writes.

Importing this module is cheap; pyarrow comes with the first rows.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from latdiag.store import documents
from latdiag.store.arrays import cuts
from latdiag.store.columns import Column, ListColumn, arrow_table, row_count
from latdiag.store.faults import taken
from latdiag.store.place import displayed, place_of
from latdiag.store.schema import SCHEMA_VERSION, TABLES, UNIQUE_TEXTS

__all__ = ["ListColumn", "RunWriter", "create_run", "default_run_path"]

#: A reader's batch, and a bound on its items, so that long answers do not cost it memory:
#: 4 Mi arrivals are 56 MiB in the four columns that metrics need.
GROUP_ROWS = 10_000
GROUP_ITEMS = 4 * 1024 * 1024

_WRITER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PART = re.compile(r"part-(?P<writer>.+)-(?P<number>[0-9]{6,9})\.parquet")


def part_of(file: str) -> tuple[str, int] | None:
    """(writer, number) from the name of a part file; None for any other name."""
    found = _PART.fullmatch(file)
    return (found["writer"], int(found["number"])) if found else None


def default_run_path(verb: str, now: datetime, root: str = "./latdiag-runs") -> str:
    """``ROOT/UTC-VERB-HOST.run``, of which there is none yet. ``now`` is aware."""
    host = re.sub(r"[^A-Za-z0-9.-]", "", socket.gethostname()).strip(".-")[:40] or "host"
    stem = f"{root}/{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{verb}-{host}"
    path, number = f"{stem}.run", 1
    while Path(path).exists():
        number += 1
        path = f"{stem}-{number}.run"
    return path


def create_run(path: str, header: Mapping[str, Any]) -> str:
    """Make the directory of a run and write its run.json; returns ``path`` as writers take it.

    ``path`` is local or a URI of any pyarrow filesystem. ``header`` must hold no credentials;
    the schema version is added. An empty directory may be there already, a run or anything else
    never (RunFault). LocalFault where the disk says no; ValueError for NaN in the header.
    """
    place = place_of(path)
    document = documents.to_bytes({**header, "schema": SCHEMA_VERSION})
    place.make()
    try:
        place.put("run.json", document, exclusive=True)
    except FileExistsError as error:
        raise taken(place.name) from error
    return path.rstrip("/")


class RunWriter:
    """Writes the files of one writing process; nobody else writes them.

    Every method raises LocalFault (disk full, permission, descriptors) with the run as it was
    before the call, and ValueError for columns that the schema does not have or cannot hold.
    """

    def __init__(self, path: str, writer_name: str) -> None:
        if not _WRITER_NAME.fullmatch(writer_name):
            raise ValueError(f"{writer_name!r} cannot be part of a file name")
        self.run = displayed(path)
        self.writer_name = writer_name
        self._place = place_of(path)
        self._next: dict[str, int] = {}

    def write_part(self, columns: Mapping[str, Column]) -> str | None:
        """Add finished attempts as the next part; its name in the run, None without rows."""
        return self._add("requests", columns)

    def write_evidence(self, columns: Mapping[str, Column]) -> str | None:
        """Add rows of evidence as the next part; its name in the run, None without rows."""
        return self._add("evidence", columns)

    def write_open(self, columns: Mapping[str, Column]) -> None:
        """Replace what is known of the attempts in flight; without rows the file goes.

        Write the part with the attempts that finished first: a reader that finds an attempt in
        both takes the part, one that finds it in neither has lost it.
        """
        name = f"requests/open-{self.writer_name}.parquet"
        if row_count(columns):
            self._place.put(name, encoded("requests", columns))
        else:
            self._place.remove(name)

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace writers/WRITER.json. ``state["state"]`` is ``open``, at the end ``closed``."""
        self._place.put(f"writers/{self.writer_name}.json", documents.to_bytes(dict(state)))

    def _add(self, table: str, columns: Mapping[str, Column]) -> str | None:
        if not row_count(columns):
            return None
        if table not in self._next:
            self._next[table] = 1 + self._last(table)
        name = f"{table}/part-{self.writer_name}-{self._next[table]:06d}.parquet"
        self._place.put(name, encoded(table, columns))
        self._next[table] += 1
        return name

    def _last(self, table: str) -> int:
        """The highest number among the parts that a process of this name left before."""
        mine = [part_of(file) for file in self._place.names(table)]
        return max((p[1] for p in mine if p and p[0] == self.writer_name), default=0)


def encoded(table: str, columns: Mapping[str, Column]) -> Any:
    """``columns`` as the bytes of a parquet file (a ``pyarrow.Buffer``).

    Instants are stored as packed differences and everything is LZ4: of the encodings that any
    parquet reader knows, the ones that one core reads fastest (about 9 ns an arrival in the four
    columns that metrics need, against 22 ns for plain values under zstd), at 4 bytes an arrival.
    """
    _load_arrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = arrow_table(table, columns)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, **_layout(table)) as writer:
        for start, length in cuts(rows, GROUP_ROWS, GROUP_ITEMS):
            writer.write_table(rows.slice(start, length), row_group_size=length)
    return sink.getvalue()


def _load_arrow() -> None:
    """Import pyarrow on the system's allocator, if nothing else here has imported it.

    Its own allocator keeps what it once had: 25 MB more in a process that writes small parts.
    Arrow takes the choice from the environment, once, while it is imported.
    """
    if "pyarrow" in sys.modules:
        return
    name = "ARROW_DEFAULT_MEMORY_POOL"
    before = os.environ.get(name)
    os.environ.setdefault(name, "system")
    try:
        import pyarrow as pa

        pa.default_memory_pool()
    finally:
        if before is None:
            del os.environ[name]


def _layout(table: str) -> dict[str, Any]:
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
