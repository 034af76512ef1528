"""Servers that the gate starts and stops itself: a command, a port, a log."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from latdiag.model.errors import LocalFault, TargetFault, UsageFault
from latdiag.model.secrets import concealed
from latdiag.model.text import shown
from latdiag.model.units import NS_PER_MS, show_duration

#: What stands in a command for the port that is chosen.
PLACE = "{port}"
#: What is asked until it answers: a list of models is there when requests are taken.
_HEALTH = "/v1/models"
_LOOK_NS, _REST_S, _PATIENCE_S = 200 * NS_PER_MS, 0.05, 5.0
#: How long a server may take to end by itself.
_ENDING_S = 15.0
_TAIL_LINES, _TAIL_BYTES = 12, 8_192


class Served:
    """A server that ``command`` starts: ``{port}`` in it, and PORT among its variables, are the
    port that it is to listen on. ``url``: without a path. ``say`` takes the end of its log where
    it fails. UsageFault for what is no command."""

    def __init__(self, command: str, arm: str, start_ns: int, say: Callable[[str], None]) -> None:
        try:
            words = shlex.split(command)
        except ValueError as fault:
            raise UsageFault(
                f"the command of the {arm} cannot be read: {fault}", "quote it for the shell"
            ) from fault
        if not words:
            raise UsageFault(f"the command of the {arm} is empty", "give what starts the server")
        self._port = _free_port()
        self._words = [word.replace(PLACE, str(self._port)) for word in words]
        self._arm, self._start_ns, self._say = arm, start_ns, say
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, without waiting for it. UsageFault where there is no such program."""
        self._log = log = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PORT": str(self._port)},
                # A group of its own: it may start others, and Ctrl-C is the gate's to handle.
                start_new_session=True,
            )
        except FileNotFoundError as fault:
            raise UsageFault(
                f"the command of the {self._arm} names no program: {shown(self._words[0], 80)}",
                "give its whole path",
            ) from fault
        except OSError as fault:
            raise LocalFault(
                f"the {self._arm} cannot be started: {fault.strerror}", "check its permissions"
            ) from fault

    def healthy(self) -> bool:
        """Whether it takes requests. TargetFault, with its log's tail, where it has ended."""
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            raise self._fault(f"ended with status {status} before it took requests")
        return _answers(self.url + _HEALTH)

    def until_healthy(self) -> Iterator[None]:
        """Goes round until it is; whoever iterates waits meanwhile. TargetFault where it never
        gets there in its time."""
        until, look = time.monotonic_ns() + self._start_ns, 0
        while time.monotonic_ns() < look or not self.healthy():
            if time.monotonic_ns() >= look:
                look = time.monotonic_ns() + _LOOK_NS
            if time.monotonic_ns() > until:
                raise self._fault(
                    f"did not answer GET {_HEALTH} within {show_duration(self._start_ns)}"
                )
            yield

    def stop(self) -> None:
        """End it and all that it started."""
        if self._log is not None:
            self._log.close()
        process = self._process
        if process is None:
            return
        for number, patience in ((signal.SIGTERM, _ENDING_S), (signal.SIGKILL, _PATIENCE_S)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left behind
        self._process = None

    def _fault(self, what: str) -> TargetFault:
        tail = self._tail()
        for line in tail:
            self._say(f"  {line}")
        end = "the end of its log stands above" if tail else "it wrote nothing"
        return TargetFault(
            f"the {self._arm} {what}; {end}",
            f"run its command by hand: {shown(shlex.join(self._words), 200)}",
        )

    def _tail(self) -> list[str]:
        log = self._log
        if log is None:
            return []
        # Not seek: the server writes where this file stands.
        size = os.fstat(log.fileno()).st_size
        read = os.pread(log.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        lines = read.decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return [shown(concealed(line), 160) for line in lines]


@contextlib.contextmanager
def serving(*servers: Served) -> Iterator[None]:
    """All of them at once, from when they take requests on."""
    try:
        for each in servers:
            each.start()
        for each in servers:
            for _ in each.until_healthy():
                time.sleep(_REST_S)
        yield
    finally:
        for each in servers:
            each.stop()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    """Any reply but one that says that it is not ready: a key may be wanted."""
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(Request(url), timeout=_PATIENCE_S):
            return True
    except HTTPError as fault:
        return fault.code in (401, 403)
    except (OSError, ValueError):
        return False
