"""The recorded probe that tests of exports write out, diagnosed once."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from latdiag.diagnosis.several import diagnosed
from latdiag.export import attempts
from latdiag.store.run import Run
from tests.unit.golden import RUNS, unpack


@cache
def diagnosis(*paths: str) -> Any:
    return diagnosed(Run.open(*paths))


def recorded(factory: pytest.TempPathFactory) -> str:
    """Its path, in a folder of its own."""
    folder = factory.mktemp("runs")
    return str(folder / unpack(RUNS / "probe-kv-spans.run.tar.gz", folder))


def diagnose_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is exported."""
    monkeypatch.setattr(attempts, "diagnosed", lambda each: diagnosis(*each.paths))
