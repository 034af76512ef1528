"""One result, shown twice: as JSON that its schema accepts, and as text of 79 columns.

Golden texts lie in ``tests/fixtures``; REWRITE_GOLDEN=1 writes them anew.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from latdiag.diagnosis.result import Result, Target
from latdiag.model.components import COMPONENTS
from latdiag.model.records import Outcome
from latdiag.report import json as report_json
from latdiag.report.console import compose, render, stdout_console
from latdiag.report.page import Span
from tests.profiles import repetitions
from tests.schema import SCHEMA, VALIDATOR, ChangedPart, validate

from . import read_result

FIXTURES = Path(__file__).parent.parent / "fixtures"
NAMES = ("load", "probe", "invalid", "diagnose")
RESULT = VALIDATOR.evolve(schema={"$ref": "#/$defs/result", "$defs": SCHEMA["$defs"]})
HOSTILE = (
    "x" * 3000,
    "模型" * 500 + "e\u0301" * 400,
    "\x1b]0;owned\x07\x1b[2J[bold red]m[/bold red][/] :x: a\u202eb\u2066\u200b\u2028\r\nSaved\n",
    "",
)


def _result(name: str) -> dict[str, Any]:
    found = json.loads((FIXTURES / f"result_{name}.json").read_text())
    assert isinstance(found, dict)
    return found


def _text(result: dict[str, Any], ascii_only: bool = True, view: str = "full") -> str:
    return _page(read_result.result(result), ascii_only, view)


def _page(result: Result, ascii_only: bool = True, view: str = "full") -> str:
    return "".join(_line(line) + "\n" for line in compose(result, ascii_only, view).lines)


def _line(line: tuple[Span, ...]) -> str:
    return "".join(span.text for span in line)


def _printed(result: dict[str, Any], view: str = "full", **options: Any) -> str:
    out = io.StringIO()
    render(read_result.result(result), Console(file=out, highlight=False, **options), view)
    return out.getvalue()


def _valid(result: dict[str, Any]) -> bool:
    return bool(RESULT.is_valid(result))


def _result_of(document: dict[str, Any]) -> Result | None:
    """None where the types of a result do not allow it: they are stricter than the schema."""
    try:
        return read_result.result(document)
    except (ValueError, KeyError):
        return None


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, the root left out."""
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in inner:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _paths(value, (*path, key))


def _parent(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


@contextlib.contextmanager
def _changed(part: Any) -> Iterator[Any]:
    """``part`` (a dict or a list) to be changed at will; afterwards it is what it was."""
    before = part.copy()
    try:
        yield part
    finally:
        if isinstance(part, dict):
            part.clear()
            part.update(before)
        else:
            part[:] = before


def _assert_printable(text: str, ascii_only: bool) -> None:
    for line in text.splitlines():
        assert cell_len(line) <= 79, line
    marks = {unicodedata.category(c) for c in set(text) - {"\n"}}
    assert not marks & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not ascii_only or text.isascii()


# --- the schema


def test_the_schema_is_a_schema_and_takes_the_examples() -> None:
    """The one place where the schema itself is checked: ``tests.schema`` takes it as valid."""
    assert jsonschema.validators.validator_for(SCHEMA) is type(VALIDATOR)
    type(VALIDATOR).check_schema(SCHEMA)
    for name in NAMES:
        validate(_result(name))
        assert _valid(_result(name))


def test_the_schemas_words_are_those_of_the_model() -> None:
    about = {"interval", "total_ns", "n", "segments", "insufficient"}
    shares = set(SCHEMA["$defs"]["breakdown"]["properties"]) - about
    assert shares == set(COMPONENTS) == set(SCHEMA["$defs"]["component"]["enum"])
    assert set(SCHEMA["$defs"]["outcome"]["enum"]) == set(Outcome)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("valid",), "yes"),
        (("metrics", "ttft", "p50", "value"), None),
        (("metrics", "ttft", "p99", "refused"), ""),
        (("load", "failed"), {"exploded": 1}),
        (("self_audit", "stamp_source"), "sundial"),
        (("caveats",), [{"code": "LD901", "text": "a", "remedy": "b"}]),
        (("verdict",), {"dominant": "gpu"}),
        (("breakdown",), {"mean": {"interval": "client_e2e", "queue": {}}}),
        (("learned",), {"step_ms": 4.0}),
        (("claims",), {"gpu": []}),
        (("claims",), {"queue": [{"share": 0.4}]}),
        (("leaves",), {"mean": {"decode.base": {"share": 0.4}}}),
        (("verb",), "guess"),
    ],
)
def test_the_schema_refuses_what_the_contract_does_not_allow(
    path: tuple[str, ...], value: Any
) -> None:
    result = _result("load")
    _parent(result, path)[path[-1]] = value
    assert not _valid(result)


@pytest.mark.parametrize("key", SCHEMA["$defs"]["result"]["required"])
def test_every_key_of_the_contract_is_required(key: str) -> None:
    result = _result("probe")
    del result[key]
    assert not _valid(result)


@pytest.mark.parametrize("name", ["load", "probe", "diagnose"])
def test_the_examples_breakdowns_add_up(name: str) -> None:
    """An example that breaks the contract would teach it wrong."""
    result = _result(name)
    for found in [*result["breakdown"].values(), *result["by"].get("client_ttft", {}).values()]:
        parts = [found[c] for c in COMPONENTS if c in found]
        assert sum(part["sum_ns"] for part in parts) == found["total_ns"]


def test_a_blank_result_is_valid_and_renders() -> None:
    for verb in ("load", "probe", "diagnose"):
        blank = Result(verb=verb)
        assert _valid(blank.to_json())
        for view in ("screen", "full"):
            assert "unknown target" in "\n".join(map(_line, compose(blank, True, view).lines))


# --- the JSON


@pytest.mark.parametrize("name", NAMES)
def test_a_document_survives_its_dump_whatever_the_order_of_its_keys(name: str) -> None:
    result = _result(name)
    text = report_json.dump(read_result.result(result))
    assert json.loads(text) == result
    shuffled = dict(sorted(result.items(), reverse=True))
    shuffled["breakdown"] = {
        population: dict(reversed(found.items()))
        for population, found in result["breakdown"].items()
    }
    shuffled["claims"] = dict(reversed(result["claims"].items()))
    documents = [
        json.loads(report_json.dump(read_result.result(each))) for each in (result, shuffled)
    ]
    assert list(documents[0]) == list(documents[1])
    assert list(documents[0]["claims"]) == list(documents[1]["claims"])
    for found in documents[1]["breakdown"].values():
        keys = [key for key in found if key in COMPONENTS]
        assert keys == [c for c in COMPONENTS if c in keys]


def test_the_dump_holds_no_nan_and_says_what_became_of_it() -> None:
    result = _result("load")
    result["metrics"]["ttft"]["p50"].update(value=float("nan"), hi=float("inf"))
    result["load"]["sent_rate"] = np.float64("nan")
    text = report_json.dump(result)
    back = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the document"))
    assert back["metrics"]["ttft"]["p50"]["refused"] == "not a finite number"
    assert back["metrics"]["ttft"]["p50"]["hi"] is None and back["load"]["sent_rate"] is None
    assert _valid(back)


def test_the_dump_takes_what_numpy_and_the_model_have() -> None:
    text = report_json.dump(
        {
            "n": np.int64(3),
            "x": np.float32(0.5),
            "row": np.arange(2),
            "o": Outcome.CUT,
            "p": Path("a"),
        }
    )
    assert json.loads(text) == {"n": 3, "x": 0.5, "row": [0, 1], "o": "cut", "p": "a"}
    with pytest.raises(TypeError, match="object"):
        report_json.dump({"x": object()})


@given(st.text(max_size=60))
def test_no_text_in_the_dump_acts_on_a_terminal(text: str) -> None:
    target = Target(None, text + "\x1b[31m\u202e", None, None)
    dumped = report_json.dump(Result(verb="load", target=target))
    assert dumped.isascii() and dumped.replace("\n", "").isprintable()
    assert json.loads(dumped)["target"]["model"] == text + "\x1b[31m\u202e"


# --- the text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("look", ["ascii", "utf8"])
@pytest.mark.parametrize("view", ["full", "screen"])
def test_the_text_is_the_golden_one(name: str, look: str, view: str) -> None:
    golden = FIXTURES / f"result_{name}.{'' if view == 'full' else 'screen.'}{look}.txt"
    text = _text(_result(name), look == "ascii", view)
    if os.environ.get("REWRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    _assert_printable(text, look == "ascii")


@pytest.mark.repeated
@pytest.mark.parametrize("name", NAMES)
def test_hostile_text_anywhere_stays_text(name: str) -> None:
    """Every string and every key from outside, one after another; in turn, where not all."""
    result = _result(name)
    keyed = (("metrics",), ("load", "failed"), ("breakdown",))
    ways = list(itertools.product(HOSTILE, (True, False)))
    several = min(repetitions(len(ways)), len(ways))
    turn = 0
    for path in list(_paths(result)):
        is_text = isinstance(_parent(result, path)[path[-1]], str)
        if not is_text and path[:-1] not in keyed:
            continue
        turn += 1
        chosen = sorted(ways[(turn + n) % len(ways)] for n in range(several))
        for hostile, looks in itertools.groupby(chosen, key=lambda way: way[0]):
            with _changed(_parent(result, path)) as parent:
                if is_text:
                    parent[path[-1]] = hostile
                else:
                    parent[hostile] = parent.pop(path[-1])
                changed = read_result.result(result)
                for _, ascii_only in looks:
                    _assert_printable(_page(changed, ascii_only), ascii_only)
                    on_screen = _page(changed, ascii_only, "screen")
                    _assert_printable(on_screen, ascii_only)
                    assert len(on_screen.splitlines()) <= 24, path


def test_markup_is_printed_not_obeyed() -> None:
    result = _result("load")
    result["target"]["model"] = "[bold red]m[/bold red][/] :smile:"
    for options in ({}, {"force_terminal": True, "color_system": "truecolor"}):
        assert "[bold red]m[/bold red][/] :smile:" in _printed(result, **options)


@pytest.mark.repeated
@pytest.mark.parametrize("name", NAMES)
def test_what_may_be_missing_may_be_missing(name: str) -> None:
    """Wherever the schema lets a value be null or absent, the report does without it; in turn,
    where not both are tried."""
    result = _result(name)
    tried, parts = 0, ChangedPart()
    several = min(repetitions(2), 2)
    for place, path in enumerate(list(_paths(result))):
        for absent in ((True, False), (False, True))[place % 2][:several]:
            with _changed(_parent(result, path)) as parent:
                if absent and isinstance(parent, dict):
                    del parent[path[-1]]
                else:
                    parent[path[-1]] = None
                if len(path) < 2 or not parts.valid(result, path):
                    continue
                if (allowed := _result_of(result)) is not None:
                    tried += 1
                    for view in ("full", "screen"):
                        text = _page(allowed, view=view)
                        assert not re.search(r"\bNone\b|\bnan\b", text), path
                        assert view == "full" or len(text.splitlines()) <= 24, path
    assert tried > 100


def test_what_is_not_known_says_why() -> None:
    text = _text(_result("invalid"))
    assert text.startswith("INVALID: 2.3 % of the arrivals are censored; the limit is 1 %\n")
    assert "network  unknown (no kernel stamps)" in text
    assert "not stated: ITL: tokens per arrival are not known" in text
    assert "BROKEN censored" in text and "No run was saved." in text


def test_a_refused_percentile_says_why_and_what_it_needs() -> None:
    result = _result("load")
    few = "TTFT, TTFT answer, TPOT, E2E: p99 needs 662 samples, there are 237"
    assert few in " ".join(_text(result).split())
    invalid = " ".join(_text(_result("invalid")).split())
    assert "E2E: p90 needs 64, p95 needs 130, p99 needs 662 samples, there are 23" in invalid
    # Enough of them, yet not worth enough: that is another reason, told in its own words.
    result["metrics"]["ttft"]["p99"].update(n=700, refused="p99 is worth 90 of them")
    result["metrics"]["tpot"]["p99"].update(n=700, refused="they depend on each other")
    text = _text(result)
    assert "not stated: TTFT: p99 is worth 90 of them" in text
    assert "not stated: TPOT: p99: they depend on each other" in text


def test_a_metric_that_equals_another_is_not_printed_twice() -> None:
    result = _result("load")
    assert "\nTTFT answer" not in _text(result)
    result["metrics"]["ttft_answer"]["p50"]["lo"] -= 1.0
    assert "\nTTFT answer" in _text(result)


def test_the_verdict_names_every_member_of_a_merged_class() -> None:
    result = _result("probe")
    result["verdict"].update(dominant="gateway", confidence="bounded")
    assert "\nGATEWAY+FRONTEND+QUEUE+PREFILL: " in _text(result)
    result["verdict"].update(kind="at_limit", dominant="decode")
    assert "\nAT LIMIT: " in _text(result)


def test_colour_is_on_the_verdict_and_on_invalid_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    look = {"force_terminal": True, "color_system": "standard"}
    styled = re.compile(r"\x1b\[[0-9;]+m([^\x1b]*)\x1b\[0m")
    probe = _result("probe")
    probe["verdict"].update(kind="bottleneck", dominant="decode")
    assert styled.findall(_printed(probe, **look)) == ["DECODE:"]
    assert styled.findall(_printed(_result("invalid"), **look)) == ["INVALID:"]
    assert styled.findall(_printed(_result("load"), **look)) == []


def test_no_color_and_a_pipe_get_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    invalid = _result("invalid")
    assert _printed(invalid) == _text(invalid)
    monkeypatch.setenv("NO_COLOR", "1")
    # rich keeps bold under NO_COLOR: it is no colour.
    printed = _printed(invalid, force_terminal=True, color_system="standard")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", printed)


def test_a_closed_pipe_reaches_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "closed")

    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(BrokenPipeError):
        render(read_result.result(_result("load")), stdout_console())
