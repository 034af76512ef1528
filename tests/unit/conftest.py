"""What tests of several rooms share."""

from __future__ import annotations

import os
from copy import deepcopy
from typing import Any

import pytest

from latdiag.diagnosis.diagnose import result_of
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
