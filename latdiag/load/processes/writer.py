"""The writer process: what a reader read becomes rows of the run, on disk every few seconds.

It parses JSON and writes parquet so that the reader need not. It outlives its reader and the
parent: when either is killed, it writes all that had reached it.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from latdiag.load.dialects import DIALECTS
from latdiag.load.path_row import PathRow
from latdiag.load.plan import LOADED_PATH, PATH, LoadPlan
from latdiag.load.processes.audit import Audit
from latdiag.load.processes.counters import Counters
from latdiag.load.processes.outbox import Bye, Reading, Write
from latdiag.load.row import UNDER_WAY, Row
from latdiag.load.scalars import Scalars
from latdiag.load.wire.exchange import Ended
from latdiag.model.document import document
from latdiag.model.errors import LatdiagError
from latdiag.model.records import OUTPUT_KINDS, Kind, StampSource
from latdiag.runtime.channel import Channel, Fault, Frames, Record, unpacked
from latdiag.store.clock import ClockSample, ClockSeries, clock_id
from latdiag.store.flush import Flushes
from latdiag.store.states import LoadEnd, LoadState, RowCounts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latdiag.store.batch import Lists
    from latdiag.store.writer import RunWriter

    #: A value of each row, or a list of values of each.
    _Column = Sequence[str | int | float | None] | Lists

_PART_ROWS = 10_000
_OUTPUT = frozenset(int(k) for k in OUTPUT_KINDS)
#: What ends E2E: content or usage, not a keep-alive after them.
_COUNTING = _OUTPUT | {int(Kind.USAGE)}


def run_writer(
    plan: LoadPlan,
    run_path: str,
    name: str,
    in_fd: int,
    reports: Channel,
    counters: Counters,
) -> None:
    """The life of a writer process: until its reader's pipe ends."""
    from latdiag.store.writer import RunWriter

    writer = Writer(plan, RunWriter(run_path, name), name, counters, reports)
    writer.live(in_fd)


class Writer:
    def __init__(
        self,
        plan: LoadPlan,
        run: RunWriter,
        name: str,
        counters: Counters,
        reports: Channel,
    ) -> None:
        self._plan = plan
        self._run = run
        self._name = name
        self._counters = counters
        self._reports = reports
        self._read = DIALECTS[plan.dialect].reader(plan.reply_fields)
        self._headers = tuple(name.encode() for name in plan.reply_fields.headers)
        self._secrets = plan.target.secrets + (plan.other.secrets if plan.other else ())
        self._series = ClockSeries()
        self._audit = Audit()
        self._open: dict[int, Row] = {}
        self._ended: list[Row] = []
        self._written = self._done = self._failed = self._tokens = self._shed = 0
        self._unreadable = self._marred = self._held = 0
        self._bye: Bye | None = None
        self._flushes = Flushes(time.monotonic())
        self._unwritten = False
        self._wanted = False
        self._common = {
            "scenario": plan.scenario,
            "clock_id": clock_id(),
            "node": socket.gethostname(),
            "worker": name,
        }

    def live(self, in_fd: int) -> None:
        frames = Frames()
        poll = select.poll()
        poll.register(in_fd, select.POLLIN)
        next_flush = self._flushes.first_s()
        self._flush(final=False)
        while True:
            now = time.monotonic()
            if now >= next_flush:
                self._flush(final=False)
                next_flush = self._flushes.next_s(now)
                continue
            if not poll.poll(max(1.0, (next_flush - now) * 1000)):
                continue
            data = os.read(in_fd, 1 << 20)
            if not data:
                break
            for records in frames.feed(data):
                self._take(records)
            if len(self._ended) >= _PART_ROWS or self._wanted:
                next_flush = 0.0
        self._flush(final=True)

    # ------------------------------------------------------------------ in
    def _take(self, records: list[tuple[Any, ...]]) -> None:
        offset_ns, rows = self._series.offset_ns, self._open
        for record in records:
            kind = record[0]
            if kind == Record.BODY:
                _, n, real_ns, user_ns, floor_ns, data = record
                rows[n].take(real_ns, user_ns, floor_ns, data, offset_ns)
            elif kind == Record.BEGUN:
                kind_of_row = PathRow if record[8] in (PATH, LOADED_PATH) else Row
                rows[record[1]] = kind_of_row(record, self._read, self._secrets, self._headers)
            elif kind == Record.HEAD:
                rows[record[1]].head(*record[2:])
            elif kind == Record.ENDED:
                row = rows.pop(record[1])
                row.end(Ended._make(record[2:]))
                self._ended.append(row)
                self._count(row)
            elif kind == Record.MESSAGE:
                self._hear(unpacked(record[1]))
                offset_ns = self._series.offset_ns

    def _hear(self, message: Reading | Bye | Fault | Write) -> None:
        if isinstance(message, Reading):
            self._series.add(ClockSample(*message.clock))
            self._audit.add(message)
        elif isinstance(message, Bye):
            self._bye = message
        elif isinstance(message, Write):
            self._wanted = True
        else:
            self._reports.send(message)

    def _report(self, fault: LatdiagError) -> None:
        self._reports.send(Fault.of(fault))

    def _count(self, row: Row) -> None:
        good = row.succeeded
        self._done += 1
        self._failed += not good
        self._unreadable += row.unreadable
        self._marred += good and row.unreadable > 0
        self._held += (row.ended or UNDER_WAY).held
        self._shed += row.shed
        self._tokens += sum(1 for kind in row.kinds if kind in _OUTPUT)
        self._counters.set_done(self._done, self._failed, self._tokens, self._shed)

    # ------------------------------------------------------------------ out
    def _flush(self, final: bool) -> None:
        """Finished rows to a part, the others to the open file, and the state beside them."""
        ready, held, self._wanted = self._ended, [], False
        if not final:
            # A stamp newer than the newest clock sample waits for the next one.
            newest = self._series.newest_ns
            ready = [row for row in self._ended if row.last_ns <= newest]
            held = [row for row in self._ended if row.last_ns > newest]
        unfinished = [*held, *self._open.values()]
        try:
            if ready:
                self._run.write_part(self._columns(ready, last=True))
                self._written += len(ready)
            self._ended = held
            if final and self._bye is None:
                # The reader was lost: what it had under way ends here, cut short.
                if unfinished:
                    self._run.write_part(self._columns(unfinished, last=True))
                    self._written += len(unfinished)
                self._open, unfinished = {}, []
            self._run.write_open(self._columns(unfinished, last=False))
            self._unwritten = False
            self._counters.set_written(self._written)
            self._run.write_state(document(self._state(final)))
        except LatdiagError as fault:
            self._unwritten = True
            self._report(fault)
            if final:
                # What was lost is said where there is room for it; else the state stays open.
                with suppress(LatdiagError):
                    self._run.write_state(document(self._state(final)))

    def _state(self, final: bool) -> LoadState:
        begun = self._counters.read().begun
        ended: LoadEnd | None = None
        if final:
            ended = "reader_lost" if self._bye is None else cast("LoadEnd", self._bye.why)
            ended = "disk" if self._unwritten else ended
        return LoadState(
            writer=self._name,
            pid=os.getpid(),
            state="closed" if ended in ("complete", "stopped") else "open",
            clock_id=self._common["clock_id"],
            clock=list(self._series.samples),
            clock_steps=list(self._series.steps),
            ended=ended,
            audit=self._audit.figures(),
            counts=RowCounts(
                begun=begun,
                rows=self._written,
                open=len(self._open) + len(self._ended),
                lost=self._lost(begun) if final else None,
                failed=self._failed,
                output_arrivals=self._tokens,
                unreadable=self._unreadable,
                marred=self._marred,
                held=self._held,
            ),
        )

    def _lost(self, begun: int) -> int:
        """Requests begun of which the run lacks the row, or the end that a lost reader saw."""
        return max(0, begun - min(self._done, self._written))

    def _columns(self, rows: list[Row], last: bool) -> dict[str, _Column]:
        """All columns of the schema that this client knows, for these rows.

        ``last``: they are written for good, and so count in the self-audit.
        """
        import numpy as np

        from latdiag.store.batch import Lists

        if not rows:
            return {}
        scalars = [row.scalars() for row in rows]
        sizes = [len(row.kinds) for row in rows]
        offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        real, user = _flat(rows, "real_ns", np.int64), _flat(rows, "user_ns", np.int64)
        kernel = real > 0
        stamps = np.where(kernel, self._series.monotonic(real, user), user)
        if last:
            self._audit.read_lag.add((user - stamps)[kernel])
        columns: dict[str, _Column] = {n: [value] * len(rows) for n, value in self._common.items()}
        columns["scenario"] = [row.scenario or self._plan.scenario for row in rows]
        columns.update(zip(Scalars._fields, zip(*scalars, strict=True), strict=True))
        columns["arrivals_ns"] = Lists.whole(stamps, offsets)
        columns["arrivals_user_ns"] = Lists.whole(user, offsets)
        columns["kinds"] = Lists.whole(_flat(rows, "kinds", np.int8), offsets)
        columns["censored"] = Lists.whole(_flat(rows, "censored", np.bool_), offsets)
        columns["tokens"] = _tokens(scalars)
        columns.update(self._instants(rows, scalars))
        columns["done_ns"] = _ends(rows, stamps, offsets)
        columns["stamp_source"] = [
            (StampSource.KERNEL if self._stamped(row) else StampSource.USER).value for row in rows
        ]
        columns["clock_step"] = [self._series.stepped(r.begun[9], r.last_ns) for r in rows]
        return columns

    def _instants(self, rows: list[Row], scalars: list[Scalars]) -> dict[str, list[int | None]]:
        """The instants that the kernel stamped and the clock series makes those of the run."""
        import numpy as np

        found: dict[str, list[int | None]] = {}
        ends = [row.ended or UNDER_WAY for row in rows]
        near = np.array([s.written_ns or s.sent_ns for s in scalars], dtype=np.int64)
        read = np.array([end.headers_ns for end in ends], dtype=np.int64)
        for name, stamps, at in (
            ("wire_ns", [end.wire_real_ns for end in ends], near),
            ("wire_last_ns", [end.wire_last_real_ns for end in ends], near),
            ("acked_ns", [end.acked_real_ns for end in ends], near),
            ("headers_ns", [end.headers_real_ns for end in ends], read),
        ):
            real = np.array(stamps, dtype=np.int64)
            mono = self._series.monotonic(real, at)
            found[name] = [int(m) if r else None for m, r in zip(mono, real, strict=True)]
        found["headers_ns"] = [
            end.headers_ns or None if stamped is None else stamped
            for end, stamped in zip(ends, found["headers_ns"], strict=True)
        ]
        return found

    def _stamped(self, row: Row) -> bool:
        """Whether the kernel stamped all arrivals; without any, whether it would have."""
        return all(row.real_ns) if row.real_ns else self._plan.kernel_stamps


def _flat(rows: list[Row], name: str, kind: Any) -> NDArray[Any]:
    """One attribute of all rows, end to end."""
    import numpy as np

    raw = b"".join(bytes(memoryview(getattr(row, name))) for row in rows)
    return np.frombuffer(raw, dtype=kind)


def _tokens(scalars: list[Scalars]) -> Lists:
    """What each arrival of each row brought; null for a row of which that is not known."""
    import numpy as np

    from latdiag.store.batch import Lists

    counts = [s.tokens for s in scalars]
    known = np.array([each is not None for each in counts], dtype=bool)
    flat = np.array([n for each in counts if each is not None for n in each], dtype=np.int32)
    sizes = [len(each) if each is not None else 0 for each in counts]
    return Lists(flat, np.concatenate(([0], np.cumsum(sizes))).astype(np.int64), known)


def _ends(
    rows: list[Row], stamps: NDArray[np.int64], offsets: NDArray[np.int64]
) -> list[int | None]:
    """When each reply ended: with its last content or usage, else where the transport says."""
    done: list[int | None] = []
    for i, row in enumerate(rows):
        counting = [k for k, kind in enumerate(row.kinds) if kind in _COUNTING]
        last = int(stamps[offsets[i] + counting[-1]]) if counting else None
        done.append(last if last is not None else (row.ended or UNDER_WAY).done_ns or None)
    return done
