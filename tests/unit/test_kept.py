"""What is said of a run that could not be written to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from latdiag.cli.kept import saying_what_is_kept
from latdiag.diagnosis.kept import kept
from latdiag.model.errors import LocalFault
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state


def _written(path: Path, spans: int, samples: int, requests: int) -> str:
    run = create_run(str(path / "a.run"), header())
    writer = RunWriter(run, "w")
    kinds = ["span"] * spans + ["gauge"] * samples
    writer.write_evidence({"kind": kinds})
    writer.write_part({"request_id": [str(n) for n in range(requests)], "attempt": [1] * requests})
    return run


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((0, 0, 0), "nothing"),
        ((1200, 0, 0), "1,200 spans"),
        ((0, 3, 2), "2 requests and 3 samples of metrics"),
        ((5, 3, 2), "2 requests and 5 spans and 3 samples of metrics"),
    ],
)
def test_what_is_there_is_counted(tmp_path: Path, rows: tuple[int, int, int], words: str) -> None:
    assert kept(_written(tmp_path, *rows)) == words


def test_what_was_begun_is_said_beside_it(tmp_path: Path) -> None:
    run = _written(tmp_path, 0, 0, 2)
    said = state()
    RunWriter(run, "w").write_state({**said, "counts": {**said["counts"], "begun": 1300}})
    assert kept(run) == "2 of 1,300 requests"


def test_of_what_is_no_run_nothing_is_said(tmp_path: Path) -> None:
    assert kept(str(tmp_path)) == kept(str(tmp_path / "missing")) == ""
    with pytest.raises(LocalFault) as caught, saying_what_is_kept():
        raise LocalFault("no room", "make some", str(tmp_path))
    assert (caught.value.text, caught.value.remedy) == ("no room", "make some")


def test_a_fault_says_what_is_kept_and_what_reads_it(tmp_path: Path) -> None:
    run = _written(tmp_path, 0, 0, 2)
    with pytest.raises(LocalFault) as caught, saying_what_is_kept():
        raise LocalFault("no room", "make some", run)
    assert caught.value.text == f"no room; {run} holds 2 requests"
    assert caught.value.remedy == f"make some; `latdiag diagnose {run}` reads what is there"
    with pytest.raises(LocalFault, match=r"^no room$"), saying_what_is_kept():
        raise LocalFault("no room", "make some")
