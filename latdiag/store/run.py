"""Reading runs: one, several or a glob, as batches of numpy columns or as a pandas frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from latdiag.model.errors import RunFault, UsageFault
from latdiag.store.arrays import arrow_schema, to_batch
from latdiag.store.batch import Batch
from latdiag.store.contradictions import Contradictions
from latdiag.store.directory import RunDirectory
from latdiag.store.evidence import Said, to_said
from latdiag.store.place import displayed, is_pattern, matching
from latdiag.store.schema import REQUESTS, TABLES

if TYPE_CHECKING:
    import pandas as pd

BATCH_ROWS = 10_000
#: By what rows of evidence are handed to their readers.
_SORTED_BY = ("kind", "foreign_name")


class Reader(Protocol):
    """Takes the attempts of a run as they go by; ``columns``: those that it needs of them."""

    @property
    def columns(self) -> Sequence[str]: ...

    def add(self, batch: Batch) -> None: ...


class EvidenceReader(Protocol):
    """Takes rows of the table ``evidence`` as they go by: of some kinds, and of the foreign names
    that it wants; ``columns``: those that it needs besides."""

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def kinds(self) -> Sequence[str]: ...

    def wanted(self, name: str) -> bool: ...

    def add(self, said: Said) -> None: ...


class Run:
    """One or several runs, read as one. Nothing is held but the headers.

    ``paths``: printable names. ``headers``: what each run.json holds, in that order.
    """

    def __init__(self, directories: Sequence[RunDirectory], notes: dict[str, None]) -> None:
        self._directories = list(directories)
        self._notes = notes
        self.paths = [d.name for d in directories]
        self.headers = [d.header for d in directories]
        #: Rows that the last reading of a table left out because they contradict themselves, by
        #: table and by what does.
        self.contradictions: dict[str, Counter[str]] = {}

    @classmethod
    def open(cls, *paths: str) -> Run:
        """The runs at ``paths``: local paths, URIs of any pyarrow filesystem, or globs of them.

        Raises RunFault where one is no run, is damaged beyond use or of a newer schema, and
        LocalFault where it cannot be reached.
        """
        found: list[str] = []
        for path in paths:
            here = matching(path) if is_pattern(path) else [path]
            if not here:
                raise RunFault(f"nothing matches {displayed(path)}", "check the pattern")
            found += here
        if not found:
            raise RunFault("no run was named", "name the directory of a run")
        notes: dict[str, None] = {}
        return cls([RunDirectory(path, notes.setdefault) for path in found], notes)

    def __repr__(self) -> str:
        return f"Run({', '.join(map(repr, self.paths))})"

    def apart(self) -> list[Run]:
        """Each of the runs alone."""
        return [Run([directory], self._notes) for directory in self._directories]

    @property
    def header(self) -> Mapping[str, object]:
        """run.json of the first run."""
        return self.headers[0]

    @cached_property
    def writers(self) -> list[Mapping[str, object]]:
        """writers/WRITER.json of every writer, with ``writer`` and ``run`` added."""
        return [writer for d in self._directories for writer in d.writers]

    @cached_property
    def cut_short(self) -> list[str]:
        """Why the runs do not hold all that was planned, a phrase each; empty if they do."""
        return self._reasons(lambda directory: directory.cut_short)

    @cached_property
    def unheard(self) -> list[str]:
        """Why the servers of a load were not heard to the end, a phrase each."""
        return self._reasons(lambda directory: directory.unheard)

    def _reasons(self, of: Callable[[RunDirectory], list[str]]) -> list[str]:
        several = len(self._directories) > 1
        return [
            f"{d.name}: {reason}" if several else reason
            for d in self._directories
            for reason in of(d)
        ]

    @property
    def caveats(self) -> list[str]:
        """What could not be read, a sentence each: of requests and writers, then of evidence.
        Grows while rows are read."""
        return sorted(self._notes, key=lambda text: "/evidence/" in text)

    @property
    def open_rows(self) -> int:
        """Attempts that were in flight when their writer was lost; known after reading rows."""
        return sum(d.open_rows for d in self._directories)

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[Batch]:
        """All attempts in batches of at most ``rows`` rows, fewer where answers are long.

        ``columns``: None for all. Rows of
        finished attempts come first, run by run; attempts that only open files know follow as
        ``cut_by_client``. Rows that contradict themselves are left out, and counted in
        ``contradictions``. Raises RunFault (file and row named) for rows against the contract.
        """
        if columns is None:
            columns = list(REQUESTS)
        columns = _known("requests", columns)
        judge = self._judge("requests")
        for place, directory in enumerate(self._directories):
            for record_batch in directory.requests(columns, rows):
                batch = to_batch(judge.without(record_batch))
                yield replace(batch, run=place) if place else batch

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All attempts as a pandas frame: integers stay exact (``Int64``), lists are arrays.

        Those that contradict themselves are in it too.
        Everything is in memory at once: name ``columns``, or expect 40 bytes an arrival.
        """
        names = _known("requests", columns)
        return _frame(
            "requests", names, [d.requests(names, BATCH_ROWS) for d in self._directories]
        )

    def read(self, *readers: Reader) -> None:
        """Hand all attempts to ``readers``, batch by batch in one reading."""
        columns = list(dict.fromkeys(name for reader in readers for name in reader.columns))
        for batch in self.batches(columns):
            for reader in readers:
                reader.add(batch)

    def read_evidence(self, *readers: EvidenceReader) -> None:
        """Hand to each of ``readers`` the rows of ``evidence`` that are of its kinds and have a
        name that it wants, batch by batch in one reading; those that contradict themselves are
        left out as in ``batches``."""
        columns = {
            reader: list(dict.fromkeys((*_SORTED_BY, *_known("evidence", reader.columns))))
            for reader in readers
        }
        every = list(dict.fromkeys(name for names in columns.values() for name in names))
        judge = self._judge("evidence")
        for directory in self._directories:
            for record_batch in directory.evidence(every, BATCH_ROWS):
                sound = judge.without(record_batch)
                for reader, names in columns.items():
                    mine = sound.select(names)
                    said = to_said(mine, tuple(reader.kinds), reader.wanted)
                    if said.n:
                        reader.add(said)

    def _judge(self, table: str) -> Contradictions:
        judge = Contradictions(table)
        self.contradictions[table] = judge.reasons
        return judge

    def evidence(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows of the table ``evidence`` as a pandas frame; labels are dicts."""
        names = _known("evidence", columns)
        return _frame(
            "evidence", names, [d.evidence(names, BATCH_ROWS) for d in self._directories]
        )


class News(Run):
    """A run that is being written: what finished since another reading. ``seen``: the files that
    were read before, and the set for the next one. It has no evidence, which may still come."""

    def __init__(self, directories: Sequence[RunDirectory], notes: dict[str, None]) -> None:
        super().__init__(directories, notes)
        self.seen: set[str] = set()

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[Batch]:
        """See ``Run.batches``: of the first directory alone, once."""
        names = _known("requests", list(REQUESTS) if columns is None else columns)
        judge = self._judge("requests")
        for record_batch in self._directories[0].news(names, rows, self.seen):
            yield to_batch(judge.without(record_batch))

    def read_evidence(self, *readers: EvidenceReader) -> None:
        """None of it."""


def _known(table: str, columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        return list(TABLES[table])
    for name in columns:
        if name not in TABLES[table]:
            raise UsageFault(
                f"{table} has no column {name}", f"there are {', '.join(TABLES[table])}"
            )
    return list(columns)


def _frame(table: str, columns: list[str], runs: list[Iterator[Any]]) -> pd.DataFrame:
    import pandas as pd

    declared = arrow_schema(table)
    schema = pa.schema([declared.field(name) for name in columns])
    # Without this an integer column with nulls would become float: instants would lose 100 ns.
    exact = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    batches = [batch for run in runs for batch in run]
    frame = pa.Table.from_batches(batches, schema=schema).to_pandas(types_mapper=exact.get)
    if "labels" in columns:
        frame["labels"] = [None if row is None else dict(row) for row in frame["labels"]]
    return frame
