"""Servers as processes of their own: begun, ended, and ended with their parent however it ends."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from latdiag.model.errors import LatdiagError, LocalFault
from latdiag.model.text import shown
from latdiag.runtime import children
from latdiag.runtime.channel import Fault, message
from latdiag.sim.loop import LateFigures

#: For a server to listen: Python itself may start slowly on a busy machine.
_START_S = 60.0
#: A child may have spans to deliver before it ends.
_PATIENCE_S = 8.0


@message
class Listening(NamedTuple):
    """A server takes requests at this URL, which has no path."""

    url: str


@message
class Report(NamedTuple):
    """What there was; the last message of a server. ``lateness``: of the bytes that it sent;
    ``spans``: see ``spans.Exporter.close``, None where it exports none."""

    lateness: LateFigures
    spans: dict[str, int] | None = None


@dataclass(slots=True)
class Child:
    """A server process. ``url``: of its root, without a path. ``report``: what it said when it
    ended; None while it runs, and where it ended otherwise than asked to. ``fault``: why it ended
    by itself, where it said so.
    """

    url: str
    pid: int
    ends_within: Callable[[float], bool]
    report: Report | None = None
    fault: LatdiagError | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``main()`` of ``latdiag.sim.MODULE``."""
    return children.module_command(f"latdiag.sim.{module}", *arguments)


@contextlib.contextmanager
def running(module: str, *arguments: str, failure: str) -> Iterator[Child]:
    """A server of ``latdiag.sim.MODULE`` for the time of the block.

    It says where it listens, and what there was when its stdin closes: at the block's end, or
    when this process ends. A Ctrl-C in the terminal does not reach it, so that a client can still
    finish what is in flight. Raises OSError with ``failure`` where it does not start; it has said
    why on stderr.
    """
    process, channel = children.fresh(command(module, *arguments))
    child = Child("", process.pid, process.ends_within)
    try:
        listening = channel.receive(_START_S)
        if not isinstance(listening, Listening):
            raise OSError(failure)
        child.url = listening.url
        yield child
    finally:
        channel.finish()
        report = None
        try:
            report = channel.receive(_PATIENCE_S)
        finally:
            process.end(_PATIENCE_S if channel.ended or report else 0.0)
            channel.close()
        if isinstance(report, Report):
            child.report = report
        elif isinstance(report, Fault):
            child.fault = report.error()


class Books:
    """A file of lines, each whole on the disk or not there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = Path(path).open("wb", buffering=0)  # noqa: SIM115 - closed by the block
        self._size = 0

    def __enter__(self) -> Books:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, line: str) -> None:
        """Add a line. LocalFault where there is no room for it: those before it are kept."""
        rest = line.encode()
        size = self._size + len(rest)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as exc:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise LocalFault(
                f"cannot write {shown(self._path)}: {exc.strerror}; the lines before are kept,"
                " and the server has stopped",
                "free some space, or write elsewhere with --truth",
            ) from exc
        self._size = size


class Serving(Protocol):
    """Whatever answers on a listener until it is told to end."""

    def run(self) -> Report: ...


def serve(
    port: int, truth: str | None, build: Callable[[socket.socket, Books | None], Serving]
) -> None:
    """The life of a server process: it listens on 127.0.0.1 (``port`` 0: a free one), says where
    that is, runs, and says what there was. ``truth``: the file that it writes to, if any."""
    report: Report | Fault
    try:
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(listening(port))
            books = stack.enter_context(Books(truth)) if truth is not None else None
            serving = build(listener, books)
            run_at_once()
            announce(listener.getsockname()[1])
            report = serving.run()
    except LatdiagError as fault:
        report = Fault.of(fault)
    except OSError as exc:
        sys.exit(f"demo: {exc}")
    say_report(report)


def listening(port: int) -> socket.socket:
    """A listener on 127.0.0.1; port 0: a free one. Raises OSError."""
    return socket.create_server(("127.0.0.1", port), backlog=1024)


def announce(port: int) -> None:
    """Tell where this server listens: the parent, or whoever started it by hand."""
    url = f"http://127.0.0.1:{port}"
    if children.parent is None:
        print(url, flush=True)
    else:
        children.parent.send(Listening(url))


def say_report(report: tuple[object, ...]) -> None:
    """Tell the parent what there was, a message, if it still listens."""
    if children.parent is not None:
        children.parent.send(report)


def run_at_once() -> bool:
    """No collections, and real-time priority, the lowest there is, for this process alone;
    whether it was granted. Without it the schedule is kept as well as an ordinary process can.
    """
    children.settle_memory()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except (OSError, AttributeError):
        return False
    return True
