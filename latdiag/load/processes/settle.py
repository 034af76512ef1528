"""How a process that reads settles down: first in the queue, no collections, awake on time."""

from __future__ import annotations

import asyncio
import signal

from latdiag.load.plan import LoadPlan
from latdiag.runtime.children import settle_memory
from latdiag.runtime.wake import WakeSelector, new_loop, run_at_once


def settled(plan: LoadPlan) -> tuple[asyncio.SelectorEventLoop, WakeSelector]:
    """The loop that this process now runs, and the selector that knows when it woke."""
    if plan.realtime:
        run_at_once()
    settle_memory()
    loop, selector = new_loop()
    asyncio.set_event_loop(loop)
    signal.signal(signal.SIGCONT, selector.note_stop)
    return loop, selector
