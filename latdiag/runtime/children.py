"""Forked children: begun, and reaped."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def fork(life: Callable[[], None]) -> int:
    """The pid of a child that lives ``life`` and never returns into the parent's code.

    Its exit status is 0, or 1 if ``life`` raised. Its stdin and stdout are the null device: a
    closed pipe there is the parent's business.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        life()
        status = 0
    except BaseException:
        if os.environ.get("LATDIAG_TRACEBACK"):
            traceback.print_exc()
    finally:
        os._exit(status)


def reaped(pid: int) -> int | None:
    """How a child ended (a status; negative: a signal), None while it lives."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None
