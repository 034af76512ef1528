"""A few mutated runs and captures; all of them in ``tests/bench/run_mutations.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.mutated_commands import MEMORY, SECONDS, ask, faults
from tests.profiles import repetitions

#: Of each so many; a fifth of them in the profile ``dev``.
SEEDS = {"diagnose": 24, "compare": 5, "import": 6}


@pytest.mark.repeated
def test_no_mutation_ends_in_a_bug(tmp_path: Path) -> None:
    seeds = {kind: range(min(most, repetitions(most))) for kind, most in SEEDS.items()}
    lines = ask(seeds, tmp_path, command_every=100)
    for kind, each in seeds.items():
        own = [line for line in lines if line["kind"] == kind]
        assert {line["seed"] for line in own} == set(each)
        assert any("by_command" in line for line in own)
    assert faults(lines) == []
    if len(seeds["diagnose"]) >= 20:
        codes = {line["code"] for line in lines if line["kind"] == "diagnose"}
        assert {0, 2} <= codes, "some are read, and some refused"


_FINE: dict[str, Any] = {"code": 2, "seconds": 1.0, "peak": 10**7, "out": "", "err": "no"}
_SHELL = {"code": 2, "out": "", "err": "no"}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, ""),
        ({"by_command": _SHELL}, ""),
        ({"code": 1}, "exit 1"),
        ({"code": None}, "exit 1"),
        ({"died": True}, "died"),
        ({"err": "Traceback (most recent call last)"}, "traceback"),
        ({"out": "\x1b[31m"}, "escape"),
        ({"seconds": SECONDS + 0.1}, "hang"),
        ({"peak": MEMORY + 1}, "memory"),
        ({"by_command": _SHELL | {"code": 0}}, "otherwise from a shell"),
        ({"by_command": _SHELL | {"out": "more"}}, "otherwise from a shell"),
    ],
)
def test_each_fault_is_told(changed: dict[str, Any], fault: str) -> None:
    lines = [_FINE | {"kind": "diagnose", "seed": 1} | changed]
    assert [line["fault"] for line in faults(lines)] == ([fault] if fault else [])
