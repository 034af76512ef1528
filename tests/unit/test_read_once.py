"""A run is read once: one pass over its requests and one over its evidence, whatever is in it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latdiag.attribution import reading
from latdiag.attribution.accounts import Rank
from latdiag.store.directory import RunDirectory
from latdiag.store.run import Run

from .golden import CAPTURES, RUNS, said, unpack


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often the tables of each run are read, by run and table."""
    counts: Counter[tuple[str, str]] = Counter()
    for table in ("requests", "evidence"):
        whole = getattr(RunDirectory, table)

        def counted(
            self: RunDirectory, *args: Any, _table: str = table, _whole: Any = whole
        ) -> Iterator[Any]:
            counts[Path(self.name).name, _table] += 1
            found: Iterator[Any] = _whole(self, *args)
            return found

        monkeypatch.setattr(RunDirectory, table, counted)
    return counts


@pytest.mark.parametrize(
    "name", ["probe-queue", "probe-kv-spans", "load-metrics", "load-replies-metrics"]
)
def test_a_run_of_the_demo_is_read_once(
    name: str, tmp_path: Path, passes: Counter[tuple[str, str]]
) -> None:
    path = tmp_path / unpack(RUNS / f"{name}.run.tar.gz", tmp_path)
    assert said("diagnose", str(path), "--json").endswith("exit 0\n")
    assert passes == {(path.name, "requests"): 1, (path.name, "evidence"): 1}
    read = reading.read(Run.open(str(path)))
    ranks = {account.rank for account in read.accounts()}
    assert (Rank.SPANS in ranks) == ("spans" in name)
    assert (Rank.METRICS in ranks) == (name == "load-metrics")
    assert bool(ranks & {Rank.REPLIES, Rank.MERGED_REPLIES}) == ("replies" in name)


def test_an_import_and_the_servers_alone_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Counter[tuple[str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CAPTURES / "vllm-0.24.0-h200" / "tp2", "tp2")
    said("import", "tp2", "--out", "a.run", "--json")
    assert max(passes.values(), default=0) <= 1
    passes.clear()
    assert '"evidence": {' in said("diagnose", "a.run", "--json")
    assert passes == {("a.run", "requests"): 1, ("a.run", "evidence"): 1}
    # As what ``collect`` leaves: what servers say, and no client.
    shutil.rmtree("a.run/requests")
    passes.clear()
    document = said("diagnose", "a.run", "--json")
    assert '"of": "traffic"' in document and '"interval": "server"' in document
    assert passes == {("a.run", "requests"): 1, ("a.run", "evidence"): 1}


def test_runs_that_are_compared_are_read_once_each(
    tmp_path: Path, passes: Counter[tuple[str, str]]
) -> None:
    names = ("load-metrics", "load-replies-metrics")
    a, b = (str(tmp_path / unpack(RUNS / f"{n}.run.tar.gz", tmp_path)) for n in names)
    said("compare", a, b, "--seed", "1", "--json")
    assert set(passes.values()) == {1} and len(passes) == 4


def test_probes_that_are_diagnosed_together_are_read_once_each(
    tmp_path: Path, passes: Counter[tuple[str, str]]
) -> None:
    names = ("probe-queue", "probe-kv-spans")
    a, b = (str(tmp_path / unpack(RUNS / f"{n}.run.tar.gz", tmp_path)) for n in names)
    said("diagnose", a, b)
    assert set(passes.values()) == {1} and len(passes) == 4
