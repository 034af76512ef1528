"""The judged run: whether ``latdiag probe`` is right on servers that are not ours.

``pytest -m bench tests/bench/worlds -s``; the worlds follow from the last commit that touched
what is judged. Some ten minutes of two cores. What it requires is the issue's and is never
lowered: where it fails, the estimator is not there yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from .board import add_old, figures, judged_seed, play, row_line, table, tasks, unmet
from .kinds import KINDS
from .work import Record

pytestmark = pytest.mark.bench

#: Worlds of a kind: some 400 or more in all, and 150.
QUICK, STANDARD = 40, 11


@cache
def records(budget: str, at: Path) -> Sequence[Record]:
    worlds = {"quick": QUICK, "standard": STANDARD}[budget]
    return play(tasks(KINDS, worlds, judged_seed(), budget, at))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


@pytest.mark.parametrize("budget", ("quick", "standard"))
def test_what_probes_say_of_other_servers_is_true(
    budget: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = records(budget, runs)
    note = add_old(found, runs)
    with capsys.disabled():
        print(f"\n{budget}, seed {judged_seed()} {note}")
        for record in found:
            print(row_line(record))
        print(table(found))
    assert not unmet(found, budget)


def test_more_budget_is_not_less_right(runs: Path) -> None:
    """Standard over the same worlds as quick."""
    large = records("standard", runs)
    names = {record.task.name for record in large}
    small = [record for record in records("quick", runs) if record.task.name in names]
    assert len(small) == len(large)
    assert (figures(large).right or 0) >= (figures(small).right or 0)
