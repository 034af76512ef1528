"""What stops latdiag, and the exit code that scripts see.

::

    LatdiagError
    ├── UsageFault          2   the command line asks for something that cannot be
    ├── RunFault            2   not a run, a damaged run, a run of a newer schema
    ├── UnlikeRuns         13   two runs that must not be compared
    ├── TargetFault        15   DNS, connect, TLS, 401, 403, 404, or no usable reply at all
    ├── LocalFault         16   disk full, descriptors, permission: a resource of this machine
    └── Interrupted       130   a call from Python was interrupted; a KeyboardInterrupt too

What the measured system does wrong during a run is data (an ``Outcome``), never an exception.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LatdiagError(Exception):
    """One sentence: what happened, to what; and a remedy: what to try."""

    exit_code = 1
    code = "bug"

    def __init__(self, text: str, remedy: str = "", run: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.remedy = remedy
        self.run = run


class UsageFault(LatdiagError):
    exit_code = 2
    code = "usage"


class RunFault(LatdiagError):
    exit_code = 2
    code = "run"


class UnlikeRuns(LatdiagError):
    exit_code = 13
    code = "unlike"


class TargetFault(LatdiagError):
    exit_code = 15
    code = "target"


class LocalFault(LatdiagError):
    exit_code = 16
    code = "local"


class Interrupted(LatdiagError, KeyboardInterrupt):
    exit_code = 130
    code = "interrupted"


@contextmanager
def of_run(path: str) -> Iterator[None]:
    """What stops latdiag in here leaves a run behind, and says where."""
    try:
        yield
    except LatdiagError as fault:
        fault.run = path
        raise
