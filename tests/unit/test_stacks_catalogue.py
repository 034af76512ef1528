"""Stacks find themselves, those of other packages too; a broken one is said and left out."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.stacks import catalogue
from latdiag.stacks.catalogue import gather, selector
from latdiag.stacks.signal import Mark, Signal, Stack, of

THEIRS = Stack(
    name="theirs",
    title="Their engine",
    layer="engine",
    provenance="documented",
    versions="1",
    signals=(Signal("theirs.queue", "histogram", "their_queue_seconds", "s", of("queue")),),
    marks=(Mark("metric", "their_.*"),),
)
CLASH = replace(THEIRS, name="clash")
TWICE = replace(THEIRS, name="twice", signals=(*THEIRS.signals, *THEIRS.signals))
NO_PATTERN = replace(THEIRS, name="odd", marks=(Mark("metric", "("),), signals=())
NO_FAMILY = replace(
    THEIRS, name="odd2", signals=(Signal("odd2.q", "counter", "their family", "s"),)
)
NO_HEADER = replace(THEIRS, name="odd3", signals=(Signal("odd3.h", "header", "Zeit\u00fc", "ms"),))
NO_HEADERS = replace(THEIRS, name="odd4", signals=(), headers=(b"x-their-time",))
NO_KNOB = replace(THEIRS, name="odd5", signals=(), knobs=("--their-seats",))
NO_OBJECT = replace(THEIRS, name="odd6", signals=(Signal("odd6.r", "reply", "wait_ms", "ms"),))
NOT_ONE = {"name": "theirs"}


def _point(name: str, attribute: str) -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{attribute}", catalogue.GROUP)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points load by module name: this module goes by its own."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


def test_another_packages_stack_joins_ours() -> None:
    found, left_out = gather(catalogue.built_in(), [_point("theirs", "THEIRS")])
    assert left_out == () and found[-1] == THEIRS
    assert len(found) == len(catalogue.built_in()) + 1


@pytest.mark.parametrize(
    ("attribute", "why"),
    [
        ("NOT_ONE", "not a Stack"),
        ("missing", "AttributeError"),
        ("CLASH", "theirs has a signal theirs.queue already"),
        ("TWICE", "means two things in one role"),
        ("NO_PATTERN", "missing )"),
        ("NO_FAMILY", "not a metric family"),
        ("NO_HEADER", "no name of a header"),
        ("NO_HEADERS", "bytes"),
        ("NO_KNOB", "one of its knobs is none"),
        ("NO_OBJECT", "no object of a reply holds it"),
    ],
)
def test_a_broken_one_is_left_out_and_said(attribute: str, why: str) -> None:
    points = [_point("a", "THEIRS"), _point("b", attribute)]
    found, left_out = gather((), points)
    assert found == (THEIRS,)
    assert [one.entry for one in left_out] == ["b"] and why in left_out[0].why


def test_a_module_that_raises_is_left_out() -> None:
    point = EntryPoint("gone", "no_such_module_of_anybody:STACK", catalogue.GROUP)
    found, left_out = gather((THEIRS,), [point])
    assert found == (THEIRS,) and "ModuleNotFoundError" in left_out[0].why


def test_two_of_ours_that_clash_are_a_fault_of_ours() -> None:
    with pytest.raises(ValueError, match="a stack theirs already"):
        gather((THEIRS, THEIRS), ())


def test_a_name_may_stand_for_several_roles() -> None:
    queue = THEIRS.signals[0]
    roles = (replace(queue, roles=("prefill",)), replace(queue, roles=("decode",)))
    assert gather((replace(THEIRS, signals=roles),), ())[1] == ()
    with pytest.raises(ValueError, match="two things"):
        gather((replace(THEIRS, signals=(roles[0], queue)),), ())
    with pytest.raises(ValueError, match="two things"):
        gather((replace(THEIRS, signals=(queue, roles[0])),), ())


def test_what_is_looked_up_is_there() -> None:
    names = [stack.name for stack in catalogue.stacks()]
    assert len(names) == len(set(names)) and names
    assert all(catalogue.stack(name).name == name for name in names)
    with pytest.raises(KeyError):
        catalogue.stack("nobody's")
    assert "process_start_time_seconds" in catalogue.families()
    assert not any("{" in family for family in catalogue.families())
    spans = catalogue.signals("span")
    assert {signal.kind for each in spans.values() for signal in each} == {"span"}
    histograms = catalogue.signals("histogram")
    assert set(histograms) <= catalogue.families()
    known = {signal for stack in catalogue.stacks() for signal in stack.signals}
    assert {s for each in histograms.values() for s in each} == {
        signal for signal in known if signal.kind == "histogram"
    }


NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", fullmatch=True)
LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z_]\w{0,9}", fullmatch=True).filter(str.isascii),
    st.text(st.characters(exclude_characters='"\\\n', codec="utf-8"), max_size=9),
    max_size=3,
)


@given(family=NAMES, labels=LABELS)
def test_a_selector_reads_back(family: str, labels: dict[str, str]) -> None:
    inside = ",".join(f'{name}="{value}"' for name, value in labels.items())
    assert selector(f"{family}{{{inside}}}" if labels else family) == (family, labels)


@pytest.mark.parametrize("text", ["", "a b", 'a{b="c"', "a{b}", 'a{b="c"}x', "1a"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a metric family"):
        selector(text)


@pytest.mark.parametrize(
    ("texts", "engine"),
    [
        # As they were recorded: vLLM and Dynamo alone, and Dynamo behind LiteLLM.
        (["HTTP 400: temperature must be non-negative, got -1.0. (parameter=temperature)"], True),
        (["HTTP 400: Validation: Temperature must be between 0 and 2, got -1"], True),
        (["OpenAIException - Validation: Temperature must be between 0 and 2, got -1 Lite"], True),
        (["HTTP 400: Validation: Temperature must[request]0 and 2, got -1"], True),
        (["HTTP 400"], False),
        (["HTTP 400: bad request", "HTTP 400: temperature must be non-negative, got -1.0"], False),
        (["HTTP 400: the temperature is not allowed by your key"], False),
        ([], False),
    ],
)
def test_an_engine_is_known_by_the_words_of_its_refusal(texts: list[str], engine: bool) -> None:
    assert catalogue.is_refused_by_an_engine(texts) is engine
