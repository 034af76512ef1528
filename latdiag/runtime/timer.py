"""An alarm of the kernel's, exact to some microseconds, as a descriptor that a loop can watch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def timerfd() -> tuple[int, Callable[[int], None]] | None:
    """A timer on the monotonic clock, and what sets it: an instant in ns, one in the past rings
    at once. None where the system has none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return _opened()
    except (OSError, AttributeError):
        return None


def rang(fd: int) -> bool:
    """Whether the timer rang, which it does once; it may have been set again meanwhile."""
    try:
        os.read(fd, 8)
    except (BlockingIOError, InterruptedError):
        return False
    return True


def _opened() -> tuple[int, Callable[[int], None]]:
    if sys.version_info >= (3, 13):
        own = os.timerfd_create(1, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

        def arm_own(mono_ns: int) -> None:
            os.timerfd_settime_ns(own, flags=os.TFD_TIMER_ABSTIME, initial=max(mono_ns, 1))

        return own, arm_own
    import ctypes  # Python before 3.13 has no name for it

    class Setting(ctypes.Structure):
        _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]

    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    setting = Setting(0, 0, 0, 0)
    place = ctypes.byref(setting)

    def arm(mono_ns: int) -> None:
        setting.at_s, setting.at_ns = divmod(max(mono_ns, 1), 1_000_000_000)
        libc.timerfd_settime(fd, 1, place, None)

    return fd, arm
