"""How a process that reads settles down: deaf to signals, first in the queue, no collections."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import suppress
from pathlib import Path

from latdiag.load.work.plan import LoadPlan
from latdiag.runtime.wake import WakeSelector, new_loop, run_at_once


def settled(plan: LoadPlan, name: str) -> tuple[asyncio.SelectorEventLoop, WakeSelector]:
    """The loop that this process now runs, and the selector that knows when it woke."""
    # The parent decides about signals: a Ctrl-C in the terminal reaches the whole group.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/comm").write_text(f"latdiag-read-{name}"[:15])
    if plan.realtime:
        run_at_once()
    gc.collect()
    gc.freeze()
    gc.disable()
    loop, selector = new_loop()
    asyncio.set_event_loop(loop)
    signal.signal(signal.SIGCONT, selector.note_stop)
    return loop, selector
