"""One run's directory: its header, its writers, and its rows as Arrow record batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from latdiag.model.errors import RunFault
from latdiag.model.records import Outcome
from latdiag.model.text import shown
from latdiag.store import documents
from latdiag.store.columns import column_array
from latdiag.store.header import accepted_header
from latdiag.store.memory import Budget
from latdiag.store.parts import Damaged, gathered, read_part
from latdiag.store.place import Place, displayed, place_of
from latdiag.store.schema import HISTORY, KEYS, SCHEMA_VERSION, open_of, part_of
from latdiag.store.shape import Unlike
from latdiag.store.states import accepted_state

_KEY = KEYS["requests"]

#: Takes one sentence on something that could not be read.
Note = Callable[[str], None]


class RunDirectory:
    """Opens one run. RunFault if ``path`` is none, or of a newer schema."""

    def __init__(self, path: str, note: Note) -> None:
        self._place: Place = place_of(path)
        self._note = note
        self.name = displayed(path.rstrip("/") or path)
        self.header = _header(self._place)
        #: Rows that the last complete reading found in open files only.
        self.open_rows = 0

    @cached_property
    def writers(self) -> list[Mapping[str, object]]:
        """What each writer last said of itself, with ``run`` added. RunFault where one has
        another shape than a writer gives it; a broken file is noted, and holds only its name."""
        found: list[Mapping[str, object]] = []
        left = documents.MAX_ALL_BYTES
        for file in self._place.names("writers"):
            name = file.removesuffix(".json")
            if name == file:
                continue
            try:
                data = self._place.read(f"writers/{file}", min(left, documents.MAX_BYTES))
                left -= len(data)
                said = documents.from_bytes(data)
            except FileNotFoundError:
                continue
            except ValueError as error:
                self._note(f"{self.name}/writers/{shown(file)} cannot be read: {shown(error)}")
                found.append({"writer": name, "run": self.name})
                continue
            found.append({**self._state(file, said), "writer": name, "run": self.name})
        return found

    def _state(self, file: str, said: Mapping[str, object]) -> Mapping[str, object]:
        tool = self.header["tool"]
        verb = tool.get("verb") if isinstance(tool, Mapping) else None
        try:
            return accepted_state(said, verb)
        except Unlike as error:
            raise _unlike(self.name, f"writers/{shown(file)}", error) from None

    @cached_property
    def cut_short(self) -> list[str]:
        """Why this run does not hold all that was planned; empty if every writer closed and lost
        nothing. What a receiver beside a load lost is in ``unheard``."""
        states = {w["writer"]: w.get("state") for w in self.writers}
        reasons = [why for w in self.writers if not self._beside(w) and (why := _cut(w))]
        reasons += [
            f"writer {shown(name, 80)} left rows but no summary"
            for name in sorted(self._row_writers() - states.keys())
        ]
        if not reasons and not states:
            reasons.append("no writer process started: there is only run.json")
        return reasons

    @cached_property
    def unheard(self) -> list[str]:
        """Why a load's servers were not heard to the end; empty if they were, or none was."""
        return [why for w in self.writers if self._beside(w) and (why := _cut(w))]

    def _beside(self, writer: Mapping[str, object]) -> bool:
        """Whether a writer is the receiver of a run whose plan is a load."""
        tool = self.header["tool"]
        alone = isinstance(tool, Mapping) and tool.get("verb") == "collect"
        return writer.get("kind") == "otlp" and not alone

    def requests(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """Record batches of ``columns``: finished attempts, then those found in open files only.

        The open files are read first and the parts are listed after: an attempt that finishes
        meanwhile is in both, never in neither.
        """
        wanted = [*columns, *(c for c in _KEY if c not in columns)]
        columns = list(columns)
        budget = Budget("requests")
        files = self._open_files()
        waiting = [b for file in files for b in self._read(file, wanted, rows, budget)]
        open_keys = {key for batch in waiting for key in _keys(batch)}
        finished: set[tuple[Any, Any]] = set()
        small = self._parts("requests", wanted if open_keys else columns or _KEY, rows, budget)
        for batch in gathered(small, rows):
            if open_keys:
                finished |= _keys_among(batch, open_keys)
            yield batch.select(columns)
        self.open_rows = 0
        for batch in gathered(_unfinished(waiting, finished), rows):
            self.open_rows += batch.num_rows
            yield batch.select(columns)

    def news(self, columns: Sequence[str], rows: int, seen: set[str]) -> Iterator[Any]:
        """Record batches of finished attempts in files not yet ``seen``; now they are."""
        budget = Budget("requests")
        for file in self._place.names("requests"):
            if part_of(file) and file not in seen:
                seen.add(file)
                for batch in self._read(f"requests/{file}", columns, rows, budget):
                    yield batch.select(list(columns))

    def evidence(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """Record batches of ``columns`` of the table evidence."""
        yield from gathered(self._parts("evidence", columns, rows, Budget("evidence")), rows)

    def _parts(
        self, table: str, columns: Sequence[str], rows: int, budget: Budget
    ) -> Iterator[Any]:
        for file in self._place.names(table):
            if part_of(file):
                yield from self._read(f"{table}/{file}", columns, rows, budget)

    def _read(self, name: str, columns: Sequence[str], rows: int, budget: Budget) -> Iterator[Any]:
        """Batches of one file; what cannot be read of it is noted and left out."""
        try:
            table = name.split("/")[0]
            yield from read_part(self._place, name, table, columns, rows, budget)
        except Damaged as damage:
            self._note(str(damage))
        except FileNotFoundError:
            # Writers delete their open file when nothing is in flight; parts never go.
            if not name.startswith("requests/open-"):
                self._note(f"{self.name}/{shown(name)} vanished while the run was read")

    def _open_files(self) -> list[str]:
        return [f"requests/{f}" for f in self._place.names("requests") if open_of(f)]

    def _row_writers(self) -> set[str]:
        """Names of the writers that left rows."""
        names = set()
        for file in (*self._place.names("requests"), *self._place.names("evidence")):
            if part := part_of(file):
                names.add(part[0])
            elif writer := open_of(file):
                names.add(writer)
        return names


def _header(place: Place) -> Mapping[str, object]:
    """run.json, if this version of latdiag can read such a run."""
    try:
        header = documents.from_bytes(place.read("run.json", documents.MAX_BYTES))
    except FileNotFoundError:
        raise RunFault(
            f"{place.name} is not a run: it {place.what()}",
            "a run is a directory with run.json, as latdiag load or probe makes it",
            run=place.name,
        ) from None
    except ValueError as error:
        raise RunFault(
            f"{place.name}/run.json cannot be read: {shown(error)}",
            "the run was damaged after it was made; use another copy",
            run=place.name,
        ) from error
    version = header.get("schema")
    if not isinstance(version, int) or isinstance(version, bool) or version < HISTORY[0].number:
        raise RunFault(
            f"{place.name}/run.json names no schema version",
            "it was not written by latdiag",
            run=place.name,
        )
    if version > SCHEMA_VERSION:
        raise RunFault(
            f"{place.name} is of schema {version}, but this latdiag reads up to {SCHEMA_VERSION}",
            "read it with the latdiag that made it, or a newer one",
            run=place.name,
        )
    try:
        return accepted_header(header)
    except Unlike as error:
        raise _unlike(place.name, "run.json", error) from None


def _cut(writer: Mapping[str, object]) -> str:
    """Why a writer left less than it took, or was to take; empty where it did not."""
    name, counts = shown(writer["writer"], 80), writer.get("counts")
    lost = counts.get("lost") if isinstance(counts, Mapping) else None
    if writer.get("ended") == "disk":
        how = f", and lost {lost} of its rows" if lost else ""
        return f"writer {name} could no longer write{how}"
    if lost:
        return f"writer {name} lost {lost} of its rows"
    return "" if writer.get("state") == "closed" else f"writer {name} never closed"


def _unlike(run: str, file: str, error: Unlike) -> RunFault:
    return RunFault(
        f"{run}/{file} is not as latdiag writes it: {error}",
        "use another copy of the run, or repair the file",
        run=run,
    )


def _keys(batch: Any) -> list[tuple[Any, Any]]:
    return list(zip(*(batch.column(name).to_pylist() for name in _KEY), strict=True))


def _keys_among(batch: Any, keys: set[tuple[Any, Any]]) -> set[tuple[Any, Any]]:
    """Those of ``keys`` that ``batch`` holds; a look at each row only where an id matches."""
    ids = column_array("request_id", "text", [request_id for request_id, _ in keys])
    rows = batch.select(list(_KEY)).filter(pc.is_in(batch.column("request_id"), value_set=ids))
    return keys & set(_keys(rows))


def _unfinished(waiting: list[Any], finished: set[tuple[Any, Any]]) -> Iterator[Any]:
    """The rows of open files that no part holds, as attempts that were cut off."""
    for batch in waiting:
        mask = [key not in finished for key in _keys(batch)]
        left = batch.filter(column_array("unfinished", "bool", mask))
        if not left.num_rows:
            continue
        index = left.schema.get_field_index("outcome")
        if index >= 0:
            cut = column_array("outcome", "text", [Outcome.CUT_BY_CLIENT.value] * left.num_rows)
            arrays = [cut if i == index else column for i, column in enumerate(left.columns)]
            left = pa.RecordBatch.from_arrays(arrays, schema=left.schema)
        yield left
