"""What tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import pytest

from latdiag.diagnosis import compare, run_facts
from latdiag.diagnosis.diagnose import result_of
from latdiag.diagnosis.run_facts import Measured
from latdiag.store.run import Run


@pytest.fixture(scope="module")
def _results() -> dict[Any, Any]:
    return {}


@pytest.fixture
def one_diagnosis(_results: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is diagnosed once in a module, whatever is shown of it; the verb does all the rest
    anew. For runs whose files stay as they are."""

    def once(run: Run, *args: Any) -> Any:
        places = [os.path.realpath(path) for path in run.paths]
        key = (*run.paths, *places, repr(args))
        if key not in _results:
            _results[key] = result_of(run, *args)
        return deepcopy(_results[key])

    monkeypatch.setattr("latdiag.diagnosis.diagnose.result_of", once)


@pytest.fixture
def one_comparison(_results: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``one_diagnosis`` for ``compare``: a run is measured once in a module, and the same two
    sides are compared once."""
    real = run_facts.measured, compare.compared

    def measured(run: Run) -> Measured:
        key = ("measured", *run.paths)
        if key not in _results:
            _results[key] = real[0](run)
        return cast(Measured, _results[key])

    def compared(a: Sequence[Measured], b: Sequence[Measured], *args: Any) -> Any:
        key = (*(tuple(run.path for run in side) for side in (a, b)), repr(args))
        if key not in _results:
            _results[key] = real[1](a, b, *args)
        return _results[key]

    monkeypatch.setattr(run_facts, "measured", measured)
    monkeypatch.setattr(compare, "compared", compared)
