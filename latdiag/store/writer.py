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
from typing import TYPE_CHECKING, Any

from latdiag.model.errors import LocalFault
from latdiag.store import documents
from latdiag.store.faults import taken
from latdiag.store.place import displayed, place_of
from latdiag.store.schema import SCHEMA_VERSION, part_of

if TYPE_CHECKING:
    from latdiag.store.columns import Column

_WRITER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def default_run_path(verb: str, now: datetime, root: str = "./latdiag-runs") -> str:
    """``ROOT/UTC-VERB-HOST.run``, of which there is none yet. ``now`` is aware."""
    host = re.sub(r"[^A-Za-z0-9.-]", "", socket.gethostname()).strip(".-")[:40] or "host"
    stem = f"{root}/{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{verb}-{host}"
    path, number = f"{stem}.run", 1
    while Path(path).exists():
        number += 1
        path = f"{stem}-{number}.run"
    return path


def create_run(path: str, header: Mapping[str, object]) -> str:
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
        data = _encoded("requests", columns)
        if data is not None:
            self._place.put(name, data)
        else:
            self._place.remove(name)

    def write_state(self, state: Mapping[str, object]) -> None:
        """Replace writers/WRITER.json. ``state["state"]`` is ``open``, at the end ``closed``.

        Where a full disk has no room for a second file, the first is written over: the last word
        of a writer says what was lost.
        """
        name, data = f"writers/{self.writer_name}.json", documents.to_bytes(state)
        try:
            self._place.put(name, data)
        except LocalFault:
            if not self._place.overwrite(name, data):
                raise

    def _add(self, table: str, columns: Mapping[str, Column]) -> str | None:
        data = _encoded(table, columns)
        if data is None:
            return None
        if table not in self._next:
            self._next[table] = 1 + self._last(table)
        name = f"{table}/part-{self.writer_name}-{self._next[table]:06d}.parquet"
        self._place.put(name, data)
        self._next[table] += 1
        return name

    def _last(self, table: str) -> int:
        """The highest number among the parts that a process of this name left before."""
        mine = [part_of(file) for file in self._place.names(table)]
        return max((p[1] for p in mine if p and p[0] == self.writer_name), default=0)


def _encoded(table: str, columns: Mapping[str, Column]) -> Any:
    """The bytes of a parquet file of these rows; None without any."""
    if not columns:
        return None
    load_arrow()
    from latdiag.store.columns import encoded, row_count

    return encoded(table, columns) if row_count(columns) else None


def load_arrow() -> None:
    """Import pyarrow on the system's allocator, if nothing else here has imported it.

    Who serves others calls it before that: it holds all threads up for a third of a second.

    Its own allocator keeps what it once had: 25 MB more in a process that writes small parts.
    Arrow takes the choice from the environment, once, while it is imported.
    """
    if "pyarrow" not in sys.modules:
        name = "ARROW_DEFAULT_MEMORY_POOL"
        before = os.environ.get(name)
        os.environ.setdefault(name, "system")
        try:
            import pyarrow as pa

            pa.default_memory_pool()
        finally:
            if before is None:
                del os.environ[name]
    import latdiag.store.columns  # noqa: F401
