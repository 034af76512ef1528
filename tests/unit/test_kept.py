"""What is said of a run that could not be written to its end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from latdiag.cli import execute
from latdiag.cli.kept import saying_what_is_kept
from latdiag.cli.outcome import terminable
from latdiag.diagnosis import kept as kept_module
from latdiag.diagnosis.kept import kept
from latdiag.ingest.gathering import Heard
from latdiag.load.processes.run import LoadEnd
from latdiag.model.errors import LocalFault
from latdiag.runtime.channel import Fault
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


# ---------------------------------------------------------------------- an interrupt and a fault
@pytest.mark.parametrize(
    ("signals", "text"), [(1, r"no room; .* holds 2 requests"), (2, r"no room")]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_interrupts_the_end_is_told_the_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, signals: int, text: str
) -> None:
    """The first was meant for what has ended already; one more ends the looking."""

    def interrupted(path: str) -> str:
        for _ in range(signals):
            signal.raise_signal(number)
        return kept(path)

    monkeypatch.setattr(kept_module, "kept", interrupted)
    run = _written(tmp_path, 0, 0, 2)
    with terminable():
        before = signal.getsignal(number)
        with pytest.raises(LocalFault, match=f"^{text}$"), saying_what_is_kept():
            raise LocalFault("no room", "make some", run)
        assert signal.getsignal(number) is before


@pytest.mark.parametrize("where", ["load", "receiver", "nowhere"])
def test_who_interrupts_the_reading_of_a_run_is_told_its_fault(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupted(*_all: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "conclude", interrupted)
    end, heard = LoadEnd(), Heard()
    if where == "load":
        end.faults.append(Fault.of(LocalFault("the load's disk")))
    if where == "receiver":
        heard.fault = LocalFault("the receiver's disk")
    wanted = KeyboardInterrupt if where == "nowhere" else LocalFault
    with pytest.raises(wanted) as caught:
        execute.concluded("load", "a.run", end, None, heard, ())
    assert where == "nowhere" or str(caught.value) == f"the {where}'s disk"
