"""The design of a probe, thought out in a process of its own.

A design computes with numpy on the rows so far, and whoever forks readers must stay light. So the
planner is forked first, reads the run between two stages, and names the next stage over a pipe.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from latdiag.model.errors import LatdiagError, LocalFault
from latdiag.model.records import Outcome
from latdiag.runtime.children import fork, reaped

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations
    from latdiag.measurement.stages import Limits, PathStage, Stage
    from latdiag.store.batch import Batch

#: A message is at most so long: a stage of some hundred thousand requests.
_LONGEST = 16 << 20
#: How often a wait looks whether it should go on, and how long a planner has for its end.
_LOOK_MS, _PATIENCE_S = 100, 2.0
_BUSY = (429, 503)
_TRACE = 16 << 10
_BUG = "run it again with `latdiag -vv ...` and report the traceback"


class Design(NamedTuple):
    """What a planner thinks with. ``columns``: those of the table requests that are observed."""

    probe: Callable[[Limits], Generator[Stage | PathStage, Observations, None]]
    observe: Callable[[Iterable[Batch]], Observations]
    columns: tuple[str, ...]


class Step(NamedTuple):
    """What comes next: a stage, or None at the design's end.

    ``refused``: requests so far that the server refused as too many (429, 503).
    """

    stage: Stage | PathStage | None
    refused: int


def the_design() -> Design:
    """latdiag's own design, and at once the packages that it will need."""
    import numpy  # noqa: F401 - while the target is still being asked what it is
    import pyarrow.parquet  # noqa: F401

    from latdiag.measurement import observations
    from latdiag.probe import design

    return Design(design.probe, observations.observe, observations.COLUMNS)


class Planner:
    """Context manager: the planning process lives as long. Fork it before anything is heavy.

    ``begin`` once there is a run; then ``step`` before each stage. Whatever is raised in there is
    raised by ``step``: LatdiagErrors as they are, all else as a bug of ours.
    """

    def __init__(self, design: Callable[[], Design] = the_design) -> None:
        self._design = design
        self._pid = 0
        self._status: int | None = None
        self._said = bytearray()
        self._begun = False

    def __enter__(self) -> Self:
        hear, ours = os.pipe()
        mine, say = os.pipe()

        def live() -> None:
            os.close(ours)
            os.close(mine)
            _live(self._design, hear, say)

        try:
            self._pid = fork(live)
        except OSError as fault:
            for fd in (hear, say, ours, mine):
                os.close(fd)
            raise LocalFault(
                f"the planning process cannot be started: {fault.strerror}",
                "raise the limit of processes (ulimit -u)",
            ) from fault
        os.close(hear)
        os.close(say)
        self._to, self._from = ours, mine
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._to)
        os.close(self._from)
        if self._alive():  # it only reads and thinks: there is nothing that it must finish
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)

    def _alive(self) -> bool:
        if self._status is None:
            self._status = reaped(self._pid)
        return self._status is None

    def begin(self, run_path: str, limits: Limits) -> None:
        """Name the run, which exists by now, and what the probe may spend."""
        self._tell({"run": run_path, "limits": asdict(limits)})

    def step(self, interrupted: Callable[[], bool] = lambda: False) -> Step | None:
        """What to do next, now that the stage before is written; None where ``interrupted``."""
        if self._begun:
            self._tell({})
        self._begun = True
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        while (said := self._message()) is None:
            if interrupted():
                return None
            if poll.poll(_LOOK_MS):
                data = os.read(self._from, 1 << 20)
                if not data:
                    raise self._lost()
                self._said += data
        if "fault" in said:
            raise _fault_of(said["fault"])
        return Step(_stage_of(said["stage"]), said["refused"])

    def _tell(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # why it is gone is said where its answer is missed
            _send(self._to, message)

    def _message(self) -> dict[str, Any] | None:
        """The next whole message that has come."""
        size = int.from_bytes(self._said[:4], "little")
        if size > _LONGEST:
            raise LatdiagError(f"a bug in latdiag: the design says {size} bytes at once", _BUG)
        if len(self._said) < 4 or len(self._said) < 4 + size:
            return None
        found: dict[str, Any] = json.loads(self._said[4 : 4 + size])
        del self._said[: 4 + size]
        return found

    def _lost(self) -> LatdiagError:
        until = time.monotonic() + _PATIENCE_S
        while self._alive() and time.monotonic() < until:
            time.sleep(0.01)
        status = self._status or 0
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        return LocalFault(
            f"the planning process ended before its time ({how})",
            "what reached the disk is kept; see whether the machine ran out of memory",
        )


# ---------------------------------------------------------------------- inside the process
def _live(design: Callable[[], Design], hear: int, say: int) -> None:
    """The planner's life: until its pipe ends, which is when the parent does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides
    with suppress(OSError):
        Path("/proc/self/comm").write_text("latdiag-plan")
    try:
        thinking = design()
        asked = _receive(hear)
        if asked is None:
            return
        for step in _steps(thinking, asked["run"], asked["limits"]):
            _send(say, step)
            if _receive(hear) is None:
                return
    except BrokenPipeError:
        return
    except Exception as fault:
        with suppress(OSError):
            _send(say, {"fault": _told(fault)})
        raise


def _steps(design: Design, run_path: str, limits: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every step as a message; goes on when the stage that it named is written."""
    stages = design.probe(_limits_of(limits))
    stage = next(stages, None)
    refused = 0
    while stage is not None:
        yield {"stage": _as_message(stage), "refused": refused}
        seen, refused = _observed(design, run_path)
        try:
            stage = stages.send(seen)
        except StopIteration:
            stage = None
    yield {"stage": None, "refused": refused}


def _observed(design: Design, run_path: str) -> tuple[Observations, int]:
    """All rows so far, and how many of them the server refused as too many."""
    from latdiag.store.run import Run

    columns = list(dict.fromkeys((*design.columns, "outcome", "status")))
    refused = 0

    def counted() -> Iterator[Batch]:
        nonlocal refused
        for batch in Run.open(run_path).batches(columns):
            busy = batch.texts["outcome"] == Outcome.RATE_LIMITED.value
            for status in _BUSY:
                busy = busy | (batch.ints["status"].values == status)
            refused += int(busy.sum())
            yield batch

    return design.observe(counted()), refused


def _told(fault: Exception) -> dict[str, str]:
    if isinstance(fault, LatdiagError):
        return {"code": fault.code, "text": fault.text, "remedy": fault.remedy}
    name = type(fault).__name__
    what = f"{name}: {fault}" if str(fault) else name
    text = f"a bug in latdiag: the design of the probe failed: {what}"
    trace = "".join(traceback.format_exception(fault))[-_TRACE:]
    return {"code": LatdiagError.code, "text": text, "remedy": _BUG, "trace": trace}


# ---------------------------------------------------------------------- over the pipe
def _send(fd: int, message: dict[str, Any]) -> None:
    data = json.dumps(message, separators=(",", ":")).encode()
    rest = memoryview(len(data).to_bytes(4, "little") + data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _receive(fd: int) -> dict[str, Any] | None:
    """The next message, waited for; None at the pipe's end."""
    size = _exactly(fd, 4)
    data = _exactly(fd, int.from_bytes(size, "little")) if size else b""
    found: dict[str, Any] | None = json.loads(data) if data else None
    return found


def _exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            return b""
        data += part
    return data


def _as_message(stage: Stage | PathStage) -> dict[str, Any]:
    from latdiag.measurement.stages import PathStage

    said = {"name": stage.name, "why": stage.why}
    if isinstance(stage, PathStage):
        refused = [int(isl) for isl in stage.refused]
        return {**said, "gets": int(stage.gets), "fresh": int(stage.fresh), "refused": refused}
    shots = [[int(number) for number in shot] for shot in stage.shots]
    return {**said, "shots": shots, "slots": int(stage.slots), "segment": int(stage.segment)}


def _stage_of(said: dict[str, Any] | None) -> Stage | PathStage | None:
    from latdiag.measurement.stages import PathStage, Shot, Stage

    if said is None:
        return None
    if "gets" in said:
        return PathStage(**{**said, "refused": tuple(said["refused"])})
    return Stage(**{**said, "shots": tuple(Shot(*shot) for shot in said["shots"])})


def _limits_of(said: dict[str, Any]) -> Limits:
    from latdiag.measurement.stages import Limits

    lists = {name: tuple(said[name]) for name in ("isl", "osl") if said[name] is not None}
    return Limits(**{**said, **lists})


def _fault_of(said: dict[str, str]) -> LatdiagError:
    kinds: dict[str, type[LatdiagError]] = {k.code: k for k in LatdiagError.__subclasses__()}
    fault = kinds.get(said["code"], LatdiagError)(said["text"], said["remedy"])
    if "trace" in said:
        fault.add_note(said["trace"])  # for -vv: the traceback here ends at the pipe
    return fault
