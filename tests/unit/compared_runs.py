"""Saved runs to compare, and ``latdiag compare`` called on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latdiag.cli import run
from latdiag.diagnosis.compare import METRICS, Comparison, compared
from latdiag.diagnosis.run_facts import measured
from latdiag.store.run import Run
from latdiag.store.writer import RunWriter, create_run
from tests import run_documents
from tests.schema import validate

from .probe_rows import Reply, reply
from .saved_probe import save


def load(n: int = 700, *, queue: float = 20.0, step: float = 10.0, seed: int = 1) -> list[Reply]:
    """A load of ``n`` requests, 120 ms apart, of 24 tokens; ms."""
    random = np.random.default_rng(seed)
    return [
        reply(
            "load", 256, 120.0 * place, queue + random.exponential(8.0),
            (step * random.lognormal(0, 0.05, 23)).tolist(),
        )
        for place in range(n)
    ]  # fmt: skip


def said(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> str:
    capsys.readouterr()
    assert run(["compare", *map(str, args)]) == code
    return capsys.readouterr().out


def result(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> dict[str, Any]:
    document = json.loads(said(capsys, *args, "--json", code=code))
    validate(document)
    assert isinstance(document, dict)
    return document


def comparison(a: object, b: object) -> Comparison:
    """Of one run a side."""
    one, other = ([measured(Run.open(str(path)))] for path in (a, b))
    return compared(one, other, METRICS, 0)


def differences(node: Any, place: str = "") -> dict[str, dict[str, Any]]:
    """Every difference of a comparison by its place."""
    if not isinstance(node, dict):
        return {}
    here = {place: node} if "contains_zero" in node else {}
    for key, below in node.items():
        here |= differences(below, f"{place}.{key}")
    return here


def two_runs(folder: Path) -> Path:
    """a and b: the same load, b with 6 ms more queue, from another target."""
    save(folder / "a.run", load(), designed=False)
    other = load(queue=26.0, seed=2)
    save(folder / "b.run", other, designed=False, url="http://127.0.0.2:8000/v1")
    return folder


def header(verb: str = "load", **changes: Any) -> dict[str, Any]:
    """run.json of a load, or of an import; ``plan__rate`` changes one key."""
    if verb == "import":
        return run_documents.imported()
    plan = {"arrivals": "poisson", "rate": 8.0, "isl": 256, "osl": 24, "warmup": 0}
    stacks = [{"name": "vllm", "version": "0.24.0", "grounds": "a metric"}]
    found = run_documents.header(plan=plan | {"designed": False}, stacks=stacks)
    for path, value in changes.items():
        inner, _, key = path.partition("__")
        if key:
            found[inner] = {**found[inner], key: value}
        else:
            found[inner] = value
    return found


def with_header(folder: Path, name: str, rows: Sequence[Reply], **changes: Any) -> str:
    """A saved run whose header says what the test wants."""
    path = save(folder / name, rows, designed=False, since=10**15 + len(name))
    bare = folder / f".{name}"
    create_run(str(bare), header(**changes))
    (bare / "run.json").replace(Path(path) / "run.json")
    if changes.get("verb") == "import":
        RunWriter(path, "w").write_state(run_documents.imported_state())
    return path
