"""gate.json: replayed to the last digit, refused when changed, read with suspicion."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from latdiag.gate import document
from latdiag.gate.document import dumped, loaded
from latdiag.gate.plan import Arms
from latdiag.model.errors import RunFault
from tests.bench.gate.world import Fault
from tests.profiles import examples

from .made import GATE_SCHEMA, measured, with_settings


@cache
def text() -> str:
    """A red one, of few pairs so that it is read quickly."""
    check = {"metric": "ttft", "stat": "p95", "where": {"prompt_class": "chat"}}
    settings = with_settings(flips=999, check=[check], may_differ=["gpu"], budget="90s")
    arms = Arms({"model": "m", "gpu": "a"}, {"model": "m", "gpu": "b"}, (), 30 * 10**9, "spans")
    return dumped(measured(Fault(prefill=1.6), pairs=20, block=10, settings=settings, arms=arms))


def test_it_is_valid_and_replays_to_the_last_digit() -> None:
    GATE_SCHEMA.check_schema(GATE_SCHEMA.schema)
    GATE_SCHEMA.validate(json.loads(text()))
    again, verdict = loaded(text().encode(), "gate.json")
    assert dumped(again) == text()
    assert verdict.verdict == "REGRESSED" and verdict.exit_code == 10


@pytest.mark.parametrize("fault", [Fault(), Fault(fails=1.0), Fault(prefill=0.5)])
@pytest.mark.parametrize("pairs", [0, 5, 14])
def test_every_kind_of_verdict_is_valid_and_comes_back(fault: Fault, pairs: int) -> None:
    run = measured(fault, pairs=14, block=6, settings=with_settings(flips=999))
    cut = document.Measured(run.plan, run.arms, run.blocks.first(pairs))
    made = dumped(cut)
    GATE_SCHEMA.validate(json.loads(made))
    assert loaded(made.encode(), "gate.json")[1] == cut.verdict()


def numbers(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the numbers of a document are."""
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return [place for key, inner in items for place in numbers(inner, (*path, key))]
    known = isinstance(node, int | float) and not isinstance(node, bool)
    return [path] if known else []


@given(st.data())
@examples(150)
def test_one_number_that_was_changed_is_refused(data: st.DataObject) -> None:
    made = json.loads(text())
    *way, last = data.draw(st.sampled_from(numbers(made)))
    node = made
    for key in way:
        node = node[key]
    node[last] += data.draw(st.sampled_from([1, -1, 0.001, 1e6]))
    with pytest.raises(RunFault) as refusal:
        loaded(json.dumps(made).encode(), "gate.json")
    assert refusal.value.exit_code == 2 and "gate.json" in refusal.value.text


def test_a_changed_result_with_a_digest_of_its_own_is_refused_with_its_place() -> None:
    """Who computes the digest anew has still not changed what the measurements give."""
    made = json.loads(text())
    made["result"]["verdict"] = "OK"
    made["result"]["exit_code"] = 0
    del made["digest"]
    made["digest"] = document._digest(made)
    with pytest.raises(RunFault, match=r"result\.\w+ is not what its measurements give"):
        loaded(json.dumps(made).encode(), "gate.json")


def test_another_version_that_computes_another_result_is_named() -> None:
    made = json.loads(text())
    made["latdiag"], made["result"]["exit_code"] = "9.9", 3
    del made["digest"]
    made["digest"] = document._digest(made)
    with pytest.raises(RunFault, match=r"written by latdiag 9\.9"):
        loaded(json.dumps(made).encode(), "gate.json")


def test_a_newer_schema_is_refused_as_such() -> None:
    made = json.loads(text()) | {"schema": 2}
    with pytest.raises(RunFault, match="reads up to 1"):
        loaded(json.dumps(made).encode(), "gate.json")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"{", b'{"kind":"gate","schema":1}', b"\xff", b"[" * 10_000, b"9" * 9_000],
)
def test_what_is_no_gate_json_is_refused(data: bytes) -> None:
    with pytest.raises(RunFault, match=r"x\.json is not a gate\.json"):
        loaded(data, "x.json")


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place below the top."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    return [
        place
        for key, inner in items
        for place in (
            (*path, key),
            *(places(inner, (*path, key)) if isinstance(inner, dict | list) else ()),
        )
    ]


WILD = [None, True, "x" * 2_000, -1, 2**70, 1e300, [], {}, [[]], {"a": [1]}, "\x1b[2J"]


@given(st.data())
@examples(300)
def test_whatever_stands_in_it_is_refused_and_nothing_breaks(data: st.DataObject) -> None:
    made = json.loads(text())
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(made)))
        node = made
        for key in way:
            node = node[key]
        if data.draw(st.booleans()):
            node[last] = data.draw(st.sampled_from(WILD))
        else:
            del node[last]
    assume(made != json.loads(text()))  # what is drawn may be what stood there
    with pytest.raises(RunFault) as refusal:
        loaded(json.dumps(made).encode(), "gate.json")
    assert "\x1b" not in refusal.value.text and len(refusal.value.text) < 400
