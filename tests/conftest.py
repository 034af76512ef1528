"""What holds for all tests."""

from __future__ import annotations

import signal

# A shell without job control starts what runs in the background with SIGINT ignored, and every
# child inherits that: then no Ctrl-C of a test would arrive anywhere.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
