"""The progress line: what it says, and when it says nothing."""

from __future__ import annotations

import io
import re

import pytest

from latdiag.report.progress import Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _progress_text(total: int | None, total_ns: int | None, seconds: int) -> str:
    """The last line drawn when 1 request with 50 tokens is done each second."""
    now = 0
    stream = _Terminal()
    with Progress(total, total_ns, stream=stream, clock=lambda: now) as progress:
        for second in range(1, seconds + 1):
            now = second * 1_000_000_000
            progress.update(second + 2, second, 1, 50 * second)
            drawn = stream.getvalue()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    return plain.replace("\r", "\n").strip().splitlines()[-1]


def test_progress_tells_how_far_how_much_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    line = _progress_text(40, None, 10)
    assert line == f" 25 % [{'#####':<20}]  12 sent, 10 done, 1 failed  50 tok/s  30.0 s left"
    # Whichever bound comes first counts.
    assert "50 %" in _progress_text(40, 20_000_000_000, 10)
    assert "10.0 s left" in _progress_text(40, 20_000_000_000, 10)
    assert "left" not in _progress_text(None, None, 10)


def test_progress_is_silent_in_a_pipe_and_when_quiet() -> None:
    pipe, terminal = io.StringIO(), _Terminal()
    for stream, quiet in ((pipe, False), (terminal, True)):
        with Progress(10, None, quiet=quiet, stream=stream) as progress:
            progress.update(1, 1, 0, 10)
    assert pipe.getvalue() == terminal.getvalue() == ""


def test_progress_redraws_at_most_five_times_a_second() -> None:
    now = 0
    stream = _Terminal()
    with Progress(1000, None, stream=stream, clock=lambda: now) as progress:
        for millisecond in range(1000):
            now = millisecond * 1_000_000
            progress.update(millisecond, millisecond, 0, 0)
        assert stream.getvalue().count(" sent, ") == 5


def test_a_terminal_that_goes_away_does_not_end_the_measurement() -> None:
    class Gone(_Terminal):
        gone: Exception | None = None

        def write(self, text: str) -> int:
            if self.gone is not None:
                raise self.gone
            return super().write(text)

    for error in (BrokenPipeError(32, "closed"), OSError(5, "hung up")):
        now, stream = 0, Gone()
        with Progress(10, None, stream=stream, clock=lambda: now) as progress:  # noqa: B023
            for second in range(1, 4):
                now = second * 1_000_000_000
                progress.update(second, second, 0, 0)
                stream.gone = error
        assert stream.getvalue().count(" sent, ") == 1


def test_each_piece_of_work_has_its_label_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    now = 0
    stream = _Terminal()

    def last() -> str:
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
        return plain.replace("\r", "\n").strip().splitlines()[-1]

    with Progress(None, None, stream=stream, clock=lambda: now) as progress:
        progress.begin("S3: what a prompt costs", 8)
        for _ in range(4):
            now += 1_000_000_000
            progress.update(5, 4, 0, 100)
        bar = f"[{'##########':<20}]"
        said = f" 50 % {bar}  5 sent, 4 done, 0 failed  0 tok/s  4.0 s left"
        assert last() == f"S3: what a prompt costs  {said}"
        progress.begin("S6: 4 at once", 4)
        # No redraw is due yet, but the work is another: it is told at once, and counted alone.
        progress.update(1, 0, 0, 0)
        assert last() == f"S6: 4 at once    0 % [{'':<20}]  1 sent, 0 done, 0 failed"
        now += 2_000_000_000
        progress.update(4, 2, 1, 30)
        assert last().startswith("S6: 4 at once   50 %")
        assert last().endswith("4 sent, 2 done, 1 failed  15 tok/s  2.0 s left")
