"""A call that is to come later, unless it is put off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls ``ring`` once, as long after ``set`` as it says; setting it again puts it off."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        self.off()
        self._handle = asyncio.get_running_loop().call_later(seconds, self._ring)

    def off(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
