"""Processes of ours: how each begins, and the one way in which it ends.

A fork shares its parent's pages and starts in milliseconds, so the parent must have no threads
and nothing heavy imported. A fresh process is an interpreter of its own.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from latdiag.model.secrets import concealed_values
from latdiag.runtime.channel import Channel
from latdiag.runtime.signals import held, ignore

#: Longest name of a process that the kernel keeps.
_NAME = 15
_LOOK_S = 0.005
#: What gives way to a reader, which must not wait for a core.
LATER = 10


class Child:
    """A process that this one has started. ``status``: None while it lives; negative: a signal.

    It is reaped by its number and never by ``Popen.poll``: that holds a lock, and a signal whose
    handler raises between the lock and its ``try`` leaves it held, so that ``wait`` never returns.
    """

    __slots__ = ("_process", "pid", "status")

    def __init__(self, pid: int, process: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.status: int | None = None
        self._process = process

    def alive(self) -> bool:
        """Whether it still runs; reaps it if not."""
        if self.status is None:
            self.status = _reaped(self.pid)
            if self._process is not None:
                self._process.returncode = self.status
        return self.status is None

    def ends_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self.alive() and time.monotonic() < until:
            time.sleep(_LOOK_S)
        return self.status is not None

    def wait(self) -> int:
        """Until it ends, however long that takes; its status."""
        while self.alive():
            time.sleep(_LOOK_S)
        assert self.status is not None
        return self.status

    def kill(self) -> None:
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def end(self, patience_s: float = 0.0) -> None:
        """See to it that it has ended: after ``patience_s`` it is killed."""
        if not self.ends_within(patience_s):
            self.kill()
            self.wait()

    @property
    def end_words(self) -> str:
        """``killed by SIGKILL`` or ``status 1``."""
        status = self.status or 0
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _reaped(pid: int) -> int | None:
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


# ---------------------------------------------------------------------- forks
def fork(life: Callable[[], None], name: str, nice: int = 0) -> Child:
    """A child that lives ``life`` under this name and never returns into the parent's code.

    Its exit status is 0, or 1 if ``life`` raised. It leaves signals to its parent. Its stdin and
    stdout are the null device: a closed pipe there is the parent's business. Raises OSError.
    """
    with held():
        pid = os.fork()
        if pid:
            return Child(pid)
        status = 1
        try:
            _settle(name, nice)
            life()
            status = 0
        except BaseException:
            if os.environ.get("LATDIAG_TRACEBACK"):
                traceback.print_exc()
        finally:
            os._exit(status)


def _settle(name: str, nice: int) -> None:
    ignore()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name[:_NAME])
    with suppress(OSError):
        os.nice(nice)


def fork_talking(
    life: Callable[[Channel], None], name: str, nice: int = 0
) -> tuple[Child, Channel]:
    """A forked child that lives ``life`` with its end of a channel, and this end of it."""
    ours, theirs = Channel.pair()

    def live() -> None:
        ours.close()
        life(theirs)

    try:
        return fork(live, name, nice), ours
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()


# ---------------------------------------------------------------------- fresh processes
#: The channel to the process that started this one, where that was by ``fresh``.
parent: Channel | None = None
#: The variable that names the descriptor of that channel.
_CHANNEL = "LATDIAG_CHANNEL"


def fresh(
    command: Sequence[str], stdin: int | None = None, stderr: int | None = None
) -> tuple[Child, Channel]:
    """A process in a session of its own (no Ctrl-C reaches it), and this end of the channel.

    Its stdin (or ``stdin``) is at its end when this process is, however that ends. Its code calls
    ``adopt``. Raises OSError.
    """
    ours, theirs = Channel.pair()
    end = theirs.fileno()
    try:
        process = subprocess.Popen(
            command,
            stdin=end if stdin is None else stdin,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=(end,),
            env={**_open_variables(), _CHANNEL: str(end)},
            start_new_session=True,
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Child(process.pid, process), ours


def _open_variables() -> dict[str, str]:
    """The environment without what is concealed: a server of ours needs no key of others."""
    hidden = concealed_values()
    return {name: value for name, value in os.environ.items() if value.strip() not in hidden}


#: Loads this very package, wherever it lies, and nothing else from there: no module of the
#: working directory (-P) or beside the package can take the place of one that is needed.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import latdiag; del sys.path[0]; "
    "from latdiag.runtime.children import adopt; adopt(); "
    "from {module} import main; main()"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``main()`` of a module of latdiag, for ``fresh``."""
    root = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-P", "-c", _START.format(module=module), root, *arguments]


def adopt() -> None:
    """Take the channel to whoever started this fresh process for its ``parent``."""
    global parent
    parent = Channel(socket.socket(fileno=int(os.environ.pop(_CHANNEL))))


def settle_memory() -> None:
    """What has been loaded stays: the collector need not look at it, and runs only when called."""
    gc.collect()
    gc.freeze()
    gc.disable()
