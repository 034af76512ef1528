"""Whether what a late read brought came together: the kernel counts the segments."""

from __future__ import annotations

import threading
import time

import pytest

from latdiag.load.wire.exchange import Exchange

from .peers import Asked, Wire, serving
from .test_transport import Taken, needs_stamps, post, with_client


@needs_stamps
@pytest.mark.parametrize("together", [True, False])
def test_a_late_read_knows_whether_it_brought_one_segment(together: bool) -> None:
    """Three events that leave together bear their stamp rightly, however late they are read; of
    three that leave apart, and are read at once, the kernel keeps one stamp."""
    busy, left = threading.Event(), threading.Event()

    def stream(wire: Wire, asked: Asked) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\nevent1")
        assert busy.wait(10)
        for piece in [b"event2event3"] if together else [b"event2", b"event3"]:
            wire.send(piece)
            time.sleep(0.01)
        left.set()

    def hold_up() -> None:
        busy.set()
        assert left.wait(10)

    exchange, sink = Exchange(), Taken(hold_up)
    with serving(stream) as peer:
        with_client(lambda client: post(client, peer.url, sink, exchange))
    assert sink.body == b"event1event2event3" and len(sink.reads) == 2
    assert exchange.stamped_each is together
