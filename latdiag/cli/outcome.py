"""How a command ends: one sentence for people, one object for programs, one exit code.

A verb prints its result and returns its exit code (None is 0), or raises before it has printed
anything to stdout. Nothing else of latdiag calls ``sys.exit``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass, replace

import click

from latdiag.model.errors import LatdiagError

BUG, USAGE, LOCAL, INTERRUPTED, CLOSED_PIPE, TERMINATED = 1, 2, 16, 130, 141, 143

#: An OSError that nobody foresaw is the machine's fault with these numbers, ours with others.
_LOCAL_ERRNO = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.ENOMEM: "close other programs, or raise the limits of memory (ulimit -v)",
    errno.EAGAIN: "close other programs, or raise the limit of processes (ulimit -u)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the machine has no file descriptors left",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "choose a path that can be written to",
}


class Terminated(SystemExit):
    """SIGTERM arrived.

    A SystemExit, because an event loop lets nothing else through from a callback, and because a
    forked process that inherits the handler ends by it quietly, with the right code.
    """

    def __init__(self) -> None:
        super().__init__(TERMINATED)


@dataclass(frozen=True, slots=True)
class Ending:
    """What an exception means outside. Without ``text`` nothing is printed to stderr."""

    exit_code: int
    code: str
    text: str = ""
    remedy: str = ""
    run: str | None = None


def ending(exc: BaseException) -> Ending:
    """The exit code and the words for ``exc``."""
    exc = _gravest(exc)
    if isinstance(exc, LatdiagError):
        return Ending(exc.exit_code, exc.code, exc.text, exc.remedy, exc.run)
    if isinstance(exc, KeyboardInterrupt | click.Abort):
        return Ending(INTERRUPTED, "interrupted", "interrupted")
    if isinstance(exc, Terminated):
        return Ending(TERMINATED, "terminated", "terminated")
    if isinstance(exc, click.ClickException):
        return _usage(exc)
    if isinstance(exc, BrokenPipeError) and _reader_is_gone():
        return Ending(CLOSED_PIPE, "bug")
    if isinstance(exc, OSError) and exc.errno in _LOCAL_ERRNO:
        where = f" ({exc.filename})" if exc.filename else ""
        what = os.strerror(exc.errno).lower()
        return Ending(LOCAL, "local", f"{what}{where}", _LOCAL_ERRNO[exc.errno])
    if isinstance(exc, MemoryError) or _is_out_of_room(exc):
        return _out_of_memory()
    name = type(exc).__name__
    text = f"a bug in latdiag: {name}: {exc}" if str(exc) else f"a bug in latdiag: {name}"
    return Ending(BUG, "bug", text, "run it again with `latdiag -vv ...` and report the traceback")


#: What the loader of shared libraries says where no address space is left for one of them.
_NO_ROOM = ("failed to map segment", "cannot allocate memory", "cannot apply additional memory")


def _is_out_of_room(exc: BaseException | None) -> bool:
    """Whether a library could not be loaded for lack of memory; numpy wraps what says so."""
    while isinstance(exc, ImportError):
        if any(words in str(exc).lower() for words in _NO_ROOM):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def _out_of_memory() -> Ending:
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return Ending(LOCAL, "local", "out of memory", "close other programs, or ask for less")
    text = f"out of memory: a process may take {most >> 20} MiB of address space here (ulimit -v)"
    return Ending(LOCAL, "local", text, "raise that limit")


def unwritten(exc: OSError) -> Ending:
    """What could not be written to stdout or stderr, at the end."""
    end = ending(exc)
    if end.exit_code != LOCAL:
        return end
    return replace(end, text=f"the output cannot be written: {end.text}")


def _gravest(exc: BaseException) -> BaseException:
    """Of a group (a TaskGroup raises one) the member that says most: ours, then a signal."""
    if not isinstance(exc, BaseExceptionGroup):
        return exc
    members = [_gravest(inner) for inner in exc.exceptions]
    for kind in (LatdiagError, KeyboardInterrupt, Terminated, OSError):
        for member in members:
            if isinstance(member, kind):
                return member
    return members[0]


def _usage(exc: click.ClickException) -> Ending:
    """Click's own errors. Their context knows which help would have told."""
    context = getattr(exc, "ctx", None)
    path = context.command_path if context is not None else "latdiag"
    taken = str(context.params.get("otlp") or "") if context is not None else ""
    if isinstance(exc, click.MissingParameter) and "://" in taken:
        # The option may stand alone, and took what follows it for an address of its own.
        return Ending(USAGE, "usage", exc.format_message(), f"{path} URL --otlp")
    return Ending(USAGE, "usage", exc.format_message(), f"{path} --help")


def _reader_is_gone() -> bool:
    """Whether stdout or stderr is what broke: a socket's EPIPE must not pass for it."""
    poller = select.poll()
    for fd in (1, 2):
        poller.register(fd, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises ``Terminated`` inside; what was in force before is restored after."""
    import signal
    import threading

    from latdiag.runtime.signals import handled

    def terminate(_number: int, _frame: object) -> None:
        raise Terminated

    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before != signal.SIG_DFL:
        yield  # another's business: a thread cannot, and whoever ignores SIGTERM means it
        return
    with handled(terminate, (signal.SIGTERM,)):
        yield
