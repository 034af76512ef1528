"""One verb, asked for by another process: see ``latdiag.runtime.calls``."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys

from latdiag.cli import run
from latdiag.runtime import children
from latdiag.runtime.calls import VerbCall, VerbEnd, end_with


def main() -> None:
    """Take the call, run the verb, answer with its end."""
    channel = children.parent
    assert channel is not None
    # Whoever starts this may ignore signals; those that it sends are meant for this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asked = channel.receive()
    if not isinstance(asked, VerbCall):
        return
    os.environ.update(asked.variables)
    sys.argv[1:] = asked.arguments  # as a run states the command that made it
    printed, noise = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(noise):
        end_with(channel)
        code = run(asked.arguments)
    channel.send(VerbEnd(code, printed.getvalue()))
