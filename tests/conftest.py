"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

from tests.profiles import FULL

# A shell without job control starts what runs in the background with SIGINT ignored, and every
# child inherits that: then no Ctrl-C of a test would arrive anywhere.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Images of containers often forbid bytecode on disk. Then each of the hundreds of processes that
# tests start would compile the whole project anew, and pytest every test on every run; git ignores
# what is kept instead.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Recordings that stay parsed for several tests would be walked at every collection of garbage: a
# quarter of the time of the tests of captures. (Processes that tests start have Python's own
# thresholds.)
gc.set_threshold(50_000, 20, 20)

# A fifth of the examples while one works (dev, the default); all of them before a change lands:
# pytest -m "hypothesis or repeated" --hypothesis-profile=ci. A busy machine is no fault of the
# code: neither profile has a deadline, nor minds data that come slowly.
_CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", _CALM, max_examples=FULL, print_blob=True)
settings.register_profile("dev", _CALM, max_examples=FULL // 5)
settings.load_profile("dev")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes a minute each runs only when ``-m long`` asks for it."""
    if "long" in config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="takes a minute: run it with pytest -m long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)
