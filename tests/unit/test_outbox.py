"""What waits for the writer is bounded: over a limit, reading is held back."""

from __future__ import annotations

import asyncio
import os

from latdiag.load.processes.outbox import Outbox
from latdiag.runtime.channel import Frames


def test_a_writer_that_lags_holds_reading_back_and_loses_nothing() -> None:
    async def life() -> tuple[list[bool], int]:
        said: list[bool] = []
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        loop = asyncio.get_running_loop()
        outbox = Outbox(loop, writing, lambda: None, said.append, limit=1 << 20)
        frames, seen = Frames(), 0
        for n in range(40):
            outbox.records.append((0, n, b"x" * 65536))
            outbox.hand_over()
        assert said == [True] and outbox.backlog > 1 << 20
        while outbox.backlog:
            await asyncio.sleep(0)
            try:
                data = os.read(reading, 1 << 16)
            except BlockingIOError:
                continue
            seen += sum(len(records) for records in frames.feed(data))
        assert said == [True, False]
        outbox.close()
        while data := os.read(reading, 1 << 16):
            seen += sum(len(records) for records in frames.feed(data))
        os.close(reading)
        return said, seen

    said, seen = asyncio.run(life())
    assert said == [True, False] and seen == 40
