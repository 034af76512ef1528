"""Who is told by ``latdiag watch``: a terminal that is drawn anew, lines, or JSON."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from latdiag.model.errors import LocalFault
from latdiag.model.units import NS_PER_S, show_duration
from latdiag.report.page import HEIGHT, WIDTH
from latdiag.report.watch_document import line_of
from latdiag.report.watch_screen import account, clock_of, screen, verdict_lines, words_of

if TYPE_CHECKING:
    from rich.live import Live as Drawing

    from latdiag.watch.live import Face, Live
    from latdiag.watch.state import Report

Say = Callable[[str], None]


def begin_lines(live: Live, out: str | None) -> list[str]:
    """Where it listens, and what is kept of what it sees."""
    lines = []
    doors = [f"{kind} {address}" for address, kind in
             ((live.grpc, "gRPC"), (live.http, "HTTP")) if address]  # fmt: skip
    if doors:
        lines.append(f"Spans are taken at {', '.join(doors)}.")
    if live.metrics:
        lines.append(f"Metrics are at http://{live.metrics}/metrics.")
    if live.plan.forward is not None:
        lines.append(f"All exports are forwarded to {live.plan.forward.url('traces')}.")
    if out is None:
        lines.append("Nothing is written: what is seen is gone when this ends (--out keeps it).")
    else:
        lines.append(f"Each half minute is appended to {out}.")
    if live.plan.sampled is not None:
        share = f"{live.plan.sampled:.3g}"
        lines.append(f"All figures are of the sampled requests, a share of {share}.")
    return lines


def summary(live: Live) -> list[str]:
    """All that came, in a few lines."""
    report = live.watch.report
    lines = [f"Watched for {show_duration(live.now_ns() - live.begun_ns)}."]
    if report is not None and report.windows["60m"].n:
        lines += verdict_lines(report.windows["60m"])
    lines += [words_of(change) for change in (report.active if report else [])]
    return [*lines, account(live)]


class Lines:
    """For pipes and logs: the start, each change, the end; with ``--json`` a line of JSON for
    each half minute on stdout."""

    def __init__(self, say: Say, out: str | None, emit: Say | None) -> None:
        self._say, self._out, self._emit = say, out, emit

    def begin(self, live: Live) -> None:
        for line in begin_lines(live, self._out):
            self._say(line)

    def show(self, live: Live) -> None:
        pass

    def report(self, live: Live, report: Report) -> None:
        if self._emit is not None:
            self._emit(line_of(live, report))
        for change in report.changes:
            self._say(f"{clock_of(live.now_ns())} {words_of(change)}")

    def end(self, live: Live) -> None:
        if self._emit is not None and live.watch.report is not None:
            self._emit(line_of(live, live.watch.report, last=True))
        for line in summary(live):
            self._say(line)


class Kept:
    """Another face, and a file to which each half minute is appended as it ends.

    LocalFault where the file cannot be written at the start; later the watch goes on without.
    """

    def __init__(self, face: Face, path: str, say: Say) -> None:
        self._face, self._path, self._say = face, path, say
        self._failed = False
        try:
            self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - as long as the watch
        except OSError as fault:
            raise LocalFault(
                f"cannot write to it: {fault.strerror}", "give another --out", path
            ) from fault

    def begin(self, live: Live) -> None:
        self._face.begin(live)

    def show(self, live: Live) -> None:
        self._face.show(live)

    def report(self, live: Live, report: Report) -> None:
        self._write(line_of(live, report))
        self._face.report(live, report)

    def end(self, live: Live) -> None:
        if live.watch.report is not None:
            self._write(line_of(live, live.watch.report, last=True))
        self._file.close()
        self._face.end(live)

    def _write(self, line: str) -> None:
        data = line.encode() + b"\n"
        try:
            written = self._file.write(data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as fault:
            if not self._failed and fault.errno not in (errno.EINVAL, errno.EROFS):
                self._failed = True
                self._say(f"{self._path}: {fault.strerror}; watching goes on without writing.")


class Terminal:
    """One screen, drawn anew about once a second."""

    def __init__(self, say: Say, out: str | None, stream: IO[str] | None = None) -> None:
        self._say, self._out = say, out
        self._stream = sys.stdout if stream is None else stream
        self._drawing: Drawing | None = None
        self._drawn_ns = 0

    def begin(self, live: Live) -> None:
        from rich.console import Console
        from rich.live import Live as Drawing

        for line in begin_lines(live, self._out):
            self._say(line)
        console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        console.width = min(console.width, 500) or WIDTH
        self._drawing = Drawing(console=console, auto_refresh=False, transient=True)
        self._quietly(self._drawing.start)

    def show(self, live: Live) -> None:
        if self._drawing is None or live.now_ns() - self._drawn_ns < NS_PER_S:
            return
        self._drawn_ns = live.now_ns()
        from rich.text import Text

        room = min(HEIGHT, self._drawing.console.height)
        lines = [line[: self._drawing.console.width] for line in screen(live, live.watch.report)]
        text = Text("\n".join(lines[: room - 1] if room < len(lines) else lines), no_wrap=True)
        drawing = self._drawing
        self._quietly(lambda: drawing.update(text, refresh=True))

    def report(self, live: Live, report: Report) -> None:
        pass

    def end(self, live: Live) -> None:
        if self._drawing is not None:
            self._quietly(self._drawing.stop)
        for line in summary(live):
            self._say(line)

    def _quietly(self, draw: Callable[[], None]) -> None:
        """A terminal that went away ends the drawing, never the watch."""
        try:
            draw()
        except (OSError, SystemExit):  # rich exits where a pipe is closed
            self._drawing = None
