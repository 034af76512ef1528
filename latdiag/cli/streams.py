"""What is printed at a command's end, and streams that fail while it is."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from latdiag.cli.outcome import BUG, CLOSED_PIPE, Ending, unwritten
from latdiag.model.secrets import concealed
from latdiag.model.text import shown


def announce(end: Ending, exc: BaseException, as_json: bool, verbosity: int) -> None:
    """Print ``end``: ``error:`` and ``try:`` on stderr, and the object on stdout if asked for."""
    if end.exit_code == CLOSED_PIPE:
        return
    text, remedy = (shown(concealed(part), 1000) for part in (end.text, end.remedy))
    if as_json:
        from latdiag.diagnosis.result import Failure
        from latdiag.report.json import dump

        _say(dump(Failure(end.code, text, remedy, end.run)), err=False)
    if end.code in ("interrupted", "terminated") and not remedy:
        _say(text)
        return
    _say(f"error: {text}")
    if remedy:
        _say(f"try: {remedy}")
    if end.exit_code == BUG and verbosity >= 2:
        _say(_traceback(exc))


def fill_closed_streams() -> None:
    """Point what the caller closed of stdin, stdout and stderr at the null device: else the next
    socket gets its number, and a process that is started takes it for its stream."""
    for standard in (0, 1, 2):
        try:
            os.fstat(standard)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one


def settle_streams() -> Ending | None:
    """Flush stdout and stderr; say how that failed, if it did.

    A stream that cannot be flushed is pointed at the null device, so that the interpreter's own
    flush at shutdown finds nothing to complain about.
    """
    failed: Ending | None = None
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError as exc:
            failed = failed or unwritten(exc)
            _discard(stream.fileno())
        except ValueError:  # somebody closed it: there is nothing left to flush
            pass
    return failed


def _say(text: str, err: bool = True) -> None:
    """Print one line, or nothing where the stream itself is what failed."""
    with contextlib.suppress(OSError):
        click.echo(text, err=err)


def _discard(fd: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)


def _traceback(exc: BaseException) -> str:
    """The traceback, each line made safe, its indentation kept."""
    import traceback

    lines = concealed("".join(traceback.format_exception(exc))).splitlines()
    indents = (line[: len(line) - len(line.lstrip(" "))] for line in lines)
    return "\n".join(
        indent + shown(line, 500) for indent, line in zip(indents, lines, strict=True)
    )
