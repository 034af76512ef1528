"""The link that KV caches cross between a prefill and a decode engine."""

from __future__ import annotations

from collections import deque

from latdiag.sim.inflight import HANDOVER, TRANSFER, Request
from latdiag.sim.params import Params


class Link:
    """One transfer at a time, first come first served. Setting up takes its time before the
    link is asked for, and does not occupy it. Instants in ns."""

    def __init__(self, params: Params) -> None:
        self.setup_ns = round(params.kv_setup_ms * 1e6)
        self._token_ns = params.kv_us * 1e3
        self._queue: deque[Request] = deque()
        self._busy: Request | None = None
        self.transfers = 0

    def offer(self, request: Request, now_ns: int) -> int | None:
        """Set up is done. Returns when the transfer that begins now ends, if one begins."""
        request.spent[TRANSFER] += self.setup_ns
        request.mark_ns = now_ns
        self._queue.append(request)
        return self._start(now_ns)

    def arrived(self, now_ns: int) -> tuple[Request, int | None]:
        """The transfer on the link ends now: whose it was, and when the next one ends."""
        request, self._busy = self._busy, None
        assert request is not None
        request.spent[TRANSFER] += now_ns - request.mark_ns
        request.mark_ns = now_ns
        self.transfers += 1
        return request, self._start(now_ns)

    def _start(self, now_ns: int) -> int | None:
        while self._busy is None and self._queue:
            request = self._queue.popleft()
            if request.gone:
                continue
            request.spent[HANDOVER] += now_ns - request.mark_ns
            request.mark_ns = now_ns
            self._busy = request
            return now_ns + round(self._token_ns * request.isl)
        return None
