"""A verb that stops in the middle of a run says what is kept of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from latdiag.cli.outcome import Terminated
from latdiag.model.errors import LocalFault
from latdiag.runtime.signals import spared


@contextlib.contextmanager
def saying_what_is_kept() -> Iterator[None]:
    """What this machine lacks while a run is written (a full disk, say) leaves a part of the run:
    the fault says how much that is, and what reads it.

    Who interrupts that looking ends it, and is told the fault all the same: the first signal may
    have been meant for what has ended already, and changes nothing.
    """
    try:
        yield
    except LocalFault as fault:
        if fault.run is None:
            raise
        told = fault
        with contextlib.suppress(KeyboardInterrupt, Terminated), spared():
            told = with_what_is_kept(fault, fault.run)
        raise told from fault


def with_what_is_kept(fault: LocalFault, path: str) -> LocalFault:
    """``fault``, and what of the run at ``path`` is kept; as it is where there is none."""
    # Of what is imported on a full disk Python leaves half the bytecode, and then trips over it.
    sys.dont_write_bytecode = True
    from latdiag.diagnosis.kept import kept

    there = kept(path)
    if not there:
        return fault
    text = f"{fault.text}; {path} holds {there}"
    remedy = fault.remedy
    if there != "nothing":
        remedy = f"{remedy}; `latdiag diagnose {path}` reads what is there"
    return LocalFault(text, remedy, path)
