"""A verb in a process of its own, for a caller in Python whose own process must not fork.

The caller may have threads, an event loop and much memory. So the verb runs in a fresh interpreter
(``latdiag.cli.called``): asked by one message, answered by one, and ended with its caller, however
that ends.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, NamedTuple

from latdiag.model.errors import LatdiagError, LocalFault
from latdiag.model.text import shown
from latdiag.runtime.channel import Channel, message
from latdiag.runtime.children import Child, fresh, module_command

_MODULE = "latdiag.cli.called"
#: For an interrupted verb to end what is in flight and to finish its run.
_PATIENCE_S = 60.0
#: How soon it shows that the process has ended and others hold its channel.
_LOOK_S = 1.0
#: Of what a process left on stderr that ended without an answer.
_LAST_WORDS = 4096


@message
class VerbCall(NamedTuple):
    """``latdiag ARGUMENTS``; ``variables``: added to the environment, for what is secret."""

    arguments: tuple[str, ...]
    variables: dict[str, str]


@message
class VerbEnd(NamedTuple):
    """Its exit code, and what it printed on stdout."""

    exit_code: int
    printed: str


class Stopped(Exception):
    """A KeyboardInterrupt came; ``end``: how the verb ended then, None where it was killed."""

    def __init__(self, end: VerbEnd | None) -> None:
        super().__init__("interrupted")
        self.end = end


def call(arguments: Sequence[str], variables: Mapping[str, str]) -> VerbEnd:
    """Run ``latdiag ARGUMENTS`` in a fresh interpreter until it ends.

    Raises Stopped at a KeyboardInterrupt, when the verb has been interrupted too and has ended (a
    second one kills it), and LocalFault where its process cannot start or is lost.
    """
    if not sys.executable:
        raise LocalFault("this program does not know its Python interpreter", "set sys.executable")
    with tempfile.TemporaryFile() as words:
        try:
            process, channel = fresh(module_command(_MODULE), stderr=words.fileno())
        except OSError as error:
            text = f"the measuring process did not start: {error.strerror}"
            raise LocalFault(text, "free memory and processes, then try again") from error
        try:
            channel.send(VerbCall(tuple(arguments), dict(variables)))
            return _answer(process, channel, words)
        except KeyboardInterrupt:
            raise Stopped(_interrupted(process, channel)) from None
        finally:
            channel.close()
            _kill(process)


def _answer(process: Child, channel: Channel, words: IO[bytes]) -> VerbEnd:
    while True:
        alive = process.alive()
        end = channel.receive(_LOOK_S if alive else 0.0)
        if isinstance(end, VerbEnd):
            process.ends_within(_LOOK_S)
            return end
        if channel.ended or not alive:
            process.ends_within(_LOOK_S)
            raise _lost(process, words)


def _interrupted(process: Child, channel: Channel) -> VerbEnd | None:
    """Let it finish its run, unless the user is in more of a hurry."""
    with suppress(KeyboardInterrupt):
        if process.alive():
            os.kill(process.pid, signal.SIGINT)
        end = channel.receive(_PATIENCE_S)
        return end if isinstance(end, VerbEnd) else None
    return None


def _kill(process: Child) -> None:
    """The process and all that it has started, whose session it leads."""
    if process.alive():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _lost(process: Child, words: IO[bytes]) -> LatdiagError:
    size = words.seek(0, os.SEEK_END)
    words.seek(max(0, size - _LAST_WORDS))
    lines = words.read().decode(errors="replace").strip().splitlines()
    last = f": {shown(lines[-1], 300)}" if lines else ""
    text = f"the measuring process ended without an answer ({process.end_words}){last}"
    return LocalFault(text, "check whether this machine is short of memory, then try again")


# ---------------------------------------------------------------------- in the process
def end_with(channel: Channel) -> None:
    """Terminate this process, as SIGTERM does, when the other end of ``channel`` is closed."""

    def terminate(_number: int, _frame: object) -> None:
        if select.select([channel], [], [], 0)[0]:  # nothing more is sent: it is the end
            signal.signal(signal.SIGIO, signal.SIG_IGN)
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGIO, terminate)
    fd = channel.fileno()
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    terminate(signal.SIGIO, None)  # it may have gone before
