"""One line on stderr while something long is under way: how far, how much, how long still."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from latdiag.model.units import NS_PER_MS, NS_PER_S, show_duration
from latdiag.report.page import WIDTH

if TYPE_CHECKING:
    from rich.live import Live

#: Redrawn at most so often; rate over so long.
_REDRAW_NS, _RATE_NS = 200 * NS_PER_MS, 5 * NS_PER_S
_BAR = 20
_WIDEST = 500


class Progress:
    """Context manager. ``total_requests`` and ``total_ns``: the work ends with whichever comes
    first; None is no such bound, and without both there is neither bar nor time left.

    Silent when stderr is no terminal, or ``quiet``. Draws only inside ``update``: no thread of
    its own runs beside a measurement.
    """

    def __init__(
        self,
        total_requests: int | None,
        total_ns: int | None,
        *,
        quiet: bool = False,
        stream: IO[str] | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._total_requests = total_requests
        self._total_ns = total_ns
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._active = not quiet and self._stream is not None and self._stream.isatty()
        self._live: Live | None = None
        self._begun_ns = 0
        self._label = ""
        self._drawn_ns: int | None = None
        #: (instant, tokens) of the last seconds, for the rate
        self._tokens: deque[tuple[int, int]] = deque()

    def __enter__(self) -> Self:
        self._begun_ns = self._clock()
        if self._active:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
            # COLUMNS may say what is no width: nothing fits in 0.
            console.width = min(console.width, _WIDEST) or WIDTH
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._quietly(self._live.start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._quietly(self._live.stop)
            self._live = None

    def begin(self, label: str, total_requests: int | None) -> None:
        """Another piece of work: counts, time and bounds begin again. ``label`` goes before."""
        self._label, self._total_requests, self._total_ns = label, total_requests, None
        self._begun_ns = self._clock()
        self._drawn_ns = None
        self._tokens.clear()

    def update(self, sent: int, done: int, failed: int, tokens: int) -> None:
        """Counts since the beginning. Cheap to call often: it redraws five times a second."""
        if self._live is None:
            return
        now = self._clock()
        if self._drawn_ns is not None and now - self._drawn_ns < _REDRAW_NS:
            return
        self._drawn_ns = now
        from rich.text import Text

        line = self._line(now - self._begun_ns, sent, done, failed, self._rate(now, tokens))
        room = self._live.console.width
        text = Text(line[:room], no_wrap=True)
        live = self._live
        self._quietly(lambda: live.update(text, refresh=True))

    def _quietly(self, draw: Callable[[], None]) -> None:
        """A terminal that went away ends the drawing, never the measurement."""
        try:
            draw()
        except (OSError, SystemExit):  # rich exits where a pipe is closed
            self._live = None

    def _rate(self, now: int, tokens: int) -> float | None:
        """Tokens per second over the last seconds; None until there is an interval."""
        self._tokens.append((now, tokens))
        while len(self._tokens) > 2 and self._tokens[1][0] <= now - _RATE_NS:
            self._tokens.popleft()
        then, before = self._tokens[0]
        return (tokens - before) * NS_PER_S / (now - then) if now > then else None

    def _line(self, elapsed_ns: int, sent: int, done: int, failed: int, rate: float | None) -> str:
        label = [self._label] if self._label else []
        parts = [f"{sent} sent, {done} done, {failed} failed"]
        if rate is not None:
            parts.append(f"{rate:.0f} tok/s")
        part = self._fraction(elapsed_ns, done)
        if part is None:
            return "  ".join((*label, *parts, show_duration(elapsed_ns)))
        bar = "#" * round(part * _BAR)
        parts.insert(0, f"{100 * part:3.0f} % [{bar:<{_BAR}}]")
        if part > 0:
            parts.append(f"{show_duration(self._left(elapsed_ns, done))} left")
        return "  ".join(label + parts)

    def _fraction(self, elapsed_ns: int, done: int) -> float | None:
        """How far, by the bound that is nearest to being reached; at most 1."""
        parts = [
            got / total
            for got, total in ((done, self._total_requests), (elapsed_ns, self._total_ns))
            if total
        ]
        return min(1.0, max(parts)) if parts else None

    def _left(self, elapsed_ns: int, done: int) -> int:
        """Nanoseconds to the bound that will be reached first, at the pace so far."""
        left = []
        if self._total_ns is not None:
            left.append(self._total_ns - elapsed_ns)
        if self._total_requests is not None and done:
            left.append(elapsed_ns * (self._total_requests - done) // done)
        return max(0, min(left))
