"""run.json and the states of writers have one declared shape: what is not of it ends with 2 and
the name of the field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from latdiag.ingest.plan import Account
from latdiag.model.errors import RunFault
from latdiag.store import documents, states
from latdiag.store.run import Run
from latdiag.store.shape import MAX_ITEMS, MAX_TEXT, Unlike, accepted
from latdiag.store.writer import RunWriter, create_run
from tests import run_documents

HEADERS = {
    "load": run_documents.header(stacks=[{"name": "vllm", "version": None, "grounds": "x"}]),
    "import": run_documents.imported(),
}
STATES = {
    "load": run_documents.state(clock=[[1, 2, 3]], clock_steps=[[1, 2]]),
    "otlp": run_documents.received(
        clock=[[1, 2, 3]],
        counts={
            "refused": {"why": 3},
            "scrape_problems": [{"replica": "", "text": "", "count": 1}],
        }
        | {"senders": [{"sender": "a", "service": "b", "known": True, "spans": 1, "first_ns": 1}]},
    ),
}
STATES["otlp"]["counts"]["senders"][0] |= {"last_ns": None, "span_names": ["a"]}


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a document."""
    inside = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in inside:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


def dotted(place: tuple[Any, ...]) -> str:
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in place).removeprefix(".")


def changed(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at a place; without the place where it is ``...``."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    assert isinstance(copy, dict)
    return copy


def read(path: Path, header: dict[str, Any], state: dict[str, Any]) -> Run:
    (path / "run.json").write_text(json.dumps(header | {"schema": 1}))
    (path / "writers" / "w.json").write_text(json.dumps(state))
    run = Run.open(str(path))
    run.cut_short  # noqa: B018 -- reads the writers
    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(create_run(str(tmp_path / "a.run"), run_documents.header()))


VALUES: tuple[Any, ...] = ({"x": 1}, [[1]], [], "\x1b[1m", -1, 2**70, 1.5, True, None)


@pytest.mark.parametrize("verb", HEADERS)
def test_every_field_of_a_header_is_of_its_type(path: Path, verb: str) -> None:
    header, state = HEADERS[verb], run_documents.state()
    if verb == "import":
        state = run_documents.imported_state()
    for place in places(header):
        faults = [fault_of(path, changed(header, place, v), state, "run.json") for v in VALUES]
        judge(place, faults, fault_of(path, changed(header, place, ...), state, "run.json"))


@pytest.mark.parametrize("kind", STATES)
def test_every_field_of_a_state_is_of_its_type(path: Path, kind: str) -> None:
    header, file = run_documents.header(), "writers/w.json"
    for place in places(STATES[kind]):
        if place in (("kind",), ("counts", "refused", "why")):
            continue
        states = [changed(STATES[kind], place, v) for v in VALUES]
        gone = fault_of(path, header, changed(STATES[kind], place, ...), file)
        judge(place, [fault_of(path, header, state, file) for state in states], gone)


def fault_of(path: Path, header: dict[str, Any], state: dict[str, Any], file: str) -> str:
    """The words of the fault about ``file``; none where it is read."""
    try:
        read(path, header, state)
    except RunFault as fault:
        assert fault.exit_code == 2 and fault.text.startswith(f"{path}/{file} "), fault.text
        assert "\x1b" not in fault.text
        return fault.text
    return ""


def judge(place: tuple[Any, ...], faults: list[str], gone: str) -> None:
    """Nothing is of more than three of the types, and a fault names the field."""
    name = dotted(place)
    assert sum(not fault for fault in faults) <= 3, (name, faults)
    assert all(name in fault for fault in faults if fault)
    if isinstance(place[-1], str):
        assert f"{name} is missing" in gone


def test_the_same_documents_untouched_are_read(path: Path) -> None:
    for state in (STATES["load"], STATES["otlp"]):
        assert read(path, HEADERS["load"], state).caveats == []
    assert read(path, HEADERS["import"], run_documents.imported_state()).caveats == []


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (
            run_documents.header("watch"),
            "tool.verb is 'watch', and none of collect, gate, import, load, probe",
        ),
        (run_documents.header(plan={"rate": "8"}), "plan.rate is the text '8', and not a number"),
        (run_documents.header(plan={"rate": -2.0}), "plan.rate is -2, and not from 0 to"),
        (run_documents.header(plan={"connections": "new"}), "'new', and not reuse or fresh"),
        (run_documents.header(command="x" * (MAX_TEXT + 1)), f"text of {MAX_TEXT + 1} characters"),
        (run_documents.header(stacks=[{}] * (MAX_ITEMS + 1)), f"at most {MAX_ITEMS} are read"),
        (run_documents.header(stacks=[[]]), "stacks[0] is a list, and not an object"),
    ],
)
def test_what_belongs_there_is_said(path: Path, document: dict[str, Any], says: str) -> None:
    with pytest.raises(RunFault, match=re.escape(says)):
        read(path, document, run_documents.state())


def test_keys_that_a_newer_latdiag_adds_are_left_out(path: Path) -> None:
    header = run_documents.header(plan={"more": 1}) | {"most": []}
    run = read(path, header, run_documents.state() | {"extra": {}})
    assert run.header == run_documents.header() | {"schema": 1}
    assert "extra" not in run.writers[0]


def test_all_states_together_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        RunWriter(str(path), name).write_state(run_documents.state())
    size = (path / "writers" / "one.json").stat().st_size
    monkeypatch.setattr(documents, "MAX_ALL_BYTES", 2 * size)
    assert len(Run.open(str(path)).writers) == 2
    monkeypatch.setattr(documents, "MAX_ALL_BYTES", 2 * size - 1)
    with pytest.raises(RunFault, match=r"two\.json has .* bytes, and at most"):
        Run.open(str(path)).writers  # noqa: B018 -- reads them


def test_the_account_of_the_receiver_is_declared_once_more_in_the_store() -> None:
    declared = {of.name for of in fields(states._Received)}
    assert declared >= {of.name for of in fields(Account)}


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [], {}])
def test_a_whole_number_is_nothing_else(value: object) -> None:
    with pytest.raises(Unlike, match=r"n is .*, and not a whole number"):
        accepted(int, value, "n")
