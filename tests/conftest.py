"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

from tests.profiles import FULL

# A shell without job control starts what runs in the background with SIGINT ignored, and every
# child inherits that: then no Ctrl-C of a test would arrive anywhere.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A fifth of the examples while one works (dev, the default); all of them before a change lands:
# pytest -m "hypothesis or repeated" --hypothesis-profile=ci. A busy machine is no fault of the
# code: neither profile has a deadline, nor minds data that come slowly.
_CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", _CALM, max_examples=FULL, print_blob=True)
settings.register_profile("dev", _CALM, max_examples=FULL // 5)
settings.load_profile("dev")
