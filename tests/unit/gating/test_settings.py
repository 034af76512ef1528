"""What a user may set, and what errors say about what he may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.gate.checks import METRICS, PRIMARY, STATISTICS, planned_checks
from latdiag.gate.settings import (
    Saved,
    Settings,
    read_saved,
    read_settings,
    settings_of,
    table_form,
)
from latdiag.gate.table import Table
from latdiag.model.errors import LocalFault, UsageFault
from tests.profiles import examples

from .made import with_settings


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings() == with_settings()
    voting = {(c.metric, c.statistic) for c in Settings().checks if c.level == "error"}
    assert voting == set(PRIMARY)


def test_own_file_wins_over_the_project_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.latdiag.gate]\nseed = 5\nmin_effect = '2%'\n")
    assert read_settings(tmp_path).seed == 5 and read_settings(tmp_path).min_effect == 0.02
    (tmp_path / "latdiag.toml").write_text("[gate]\nseed = 6\n")
    assert read_settings(tmp_path).seed == 6 and read_settings(tmp_path).min_effect == 0.03
    (tmp_path / "latdiag.toml").write_text("[other]\nx = 1\n")
    assert read_settings(tmp_path).seed == 5


def test_a_check_changes_what_it_names_and_no_more() -> None:
    rag = {"metric": "ttft", "stat": ["p95", "p99"], "level": "warn", "floor": "5ms"}
    found = with_settings(check=[{**rag, "where": {"prompt_class": "rag"}}, {"metric": "itl"}])
    names = {check.name: check for check in found.checks}
    assert names["ttft.p95"].level == "error"
    made = names["ttft.p95[prompt_class=rag]"]
    assert (made.level, made.floor_ns, made.tolerance) == ("warn", 5_000_000, 0.10)
    assert names["itl.shift"].level == names["itl.p95"].level == "error"
    assert names["itl.p50"].level == "off"


WRONG = [
    ({"tolerence": 0.1}, "'tolerence'", "did you mean 'tolerance'?"),
    ({"check": [{"metric": "tfft"}]}, "metric in check 1", "did you mean 'ttft'?"),
    ({"check": [{"metric": "ttft", "stat": "shft"}]}, "'shft'", "did you mean 'shift'?"),
    ({"check": [{"metric": "ttft", "stats": "p95"}]}, "'stats'", "did you mean 'stat'?"),
    ({"check": [{"stat": "p95"}]}, "names no metric", "ttft"),
    ({"check": {"metric": "ttft"}}, "not a list", "[[gate.check]]"),
    ({"check": ["ttft"]}, "not a table", "[table]"),
    ({"check": [{"metric": "ttft", "floor": 5}]}, "floor", "unit"),
    ({"check": [{"metric": "ttft", "floor": "5"}]}, "floor", "unit"),
    ({"check": [{"metric": "ttft", "where": {"a": 1}}]}, "where", "prompt_class"),
    ({"on_inconclusive": "failed"}, "'failed'", "did you mean 'fail'?"),
    ({"may_differ": ["flag"]}, "'flag'", "did you mean 'flags'?"),
    ({"min_effect": "three"}, "'three'", '"3%"'),
    ({"min_effect": True}, "True", '"3%"'),
    ({"alpha": 0.5}, "0.5", "between"),
    ({"alpha": float("nan")}, "nan", "between"),
    ({"min_effect": "10%"}, "nothing could be decided", "larger"),
    ({"flips": 10}, "10", "999"),
    (
        {
            "check": [
                {"metric": "ttft", "stat": list(STATISTICS), "where": {"c": str(n)}}
                for n in range(21)
            ]
        },
        "125 checks",
        "120",
    ),
    (
        {"flips": 99_999, "check": [{"metric": "e2e", "where": {"c": str(n)}} for n in range(11)]},
        "42 checks by 99999 flips",
        "4,000,000",
    ),
    ({"seed": 1.5}, "1.5", "whole number"),
    ({"fixed": "yes"}, "'yes'", "true or false"),
    ({"budget": "soon"}, "'soon'", "30s"),
    (
        {"check": [{"metric": m, "stat": list(STATISTICS), "level": "off"} for m in METRICS]},
        "no check",
        "vote",
    ),
]


@pytest.mark.parametrize(("keys", "text", "remedy"), WRONG, ids=lambda each: str(each)[:40])
def test_what_cannot_be_meant_is_refused_with_the_nearest_right_word(
    keys: dict[str, object], text: str, remedy: str
) -> None:
    with pytest.raises(UsageFault) as refusal:
        with_settings(**keys)
    assert text in refusal.value.text and remedy in refusal.value.remedy
    assert "latdiag.toml" in refusal.value.text


@pytest.mark.parametrize(
    ("text", "says"),
    [("[gate", "not TOML"), ("gate = 3", "not a table"), ("#" * 1_048_577, "larger than 1 MiB")],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "latdiag.toml").write_text(text)
    with pytest.raises(UsageFault, match=says):
        read_settings(tmp_path)


def test_a_folder_in_the_place_of_the_file_is_a_fault_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "latdiag.toml").mkdir()
    with pytest.raises(LocalFault):
        read_settings(tmp_path)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "alpha": st.floats(1e-4, 0.1),
            "min_effect": st.floats(0, 0.09),
            "tolerance": st.floats(0.1, 2.0),
            "budget": st.integers(1, 900).map(lambda s: f"{s}s"),
            "may_differ": st.lists(st.sampled_from(["gpu", "flags"]), unique=True),
            "check": st.lists(
                st.fixed_dictionaries(
                    {"metric": st.sampled_from(METRICS), "stat": st.sampled_from(STATISTICS)},
                    optional={"where": st.dictionaries(st.text(max_size=5), st.text(max_size=5))},
                ),
                max_size=4,
            ),
        },
    )
)
@examples(100)
def test_settings_come_back_from_their_own_form(keys: dict[str, object]) -> None:
    try:
        found = with_settings(**keys)
    except UsageFault:
        return
    assert settings_of(Table(table_form(found), "again")) == found


def test_a_p99_votes_only_where_the_plan_has_requests_for_it() -> None:
    checks = with_settings(check=[{"metric": "ttft", "stat": "p99"}]).checks
    level = {n: {c.name: c.level for c in planned_checks(checks, n)} for n in (3_999, 4_000)}
    assert (level[3_999]["ttft.p99"], level[4_000]["ttft.p99"]) == ("off", "error")


def test_the_settings_that_the_document_shows_are_read(tmp_path: Path) -> None:
    """And those that it calls the usual ones are."""
    text = (Path(__file__).parents[3] / "docs" / "gate.md").read_text(encoding="utf-8")
    block = text.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "latdiag.toml").write_text(block)
    shown = read_settings(tmp_path)
    usual = Settings()
    for name in ("budget_ns", "min_effect", "tolerance", "on_inconclusive"):
        assert getattr(shown, name) == getattr(usual, name)
    assert [c.level for c in shown.checks if c.name == "ttft.p95"] == ["warn"]


def test_what_verbs_of_saved_runs_read_stands_in_the_same_table(tmp_path: Path) -> None:
    """It is no setting of a verdict on two arms, which depends on nothing else."""
    assert read_saved(tmp_path) == Saved()
    (tmp_path / "latdiag.toml").write_text(
        '[gate]\nslo = ["ttft.p95<1s", "errors<1%"]\n'
        '[gate.baseline]\nstore = "git:b"\nkeep = 20\nfacts = { gpu = "H200" }\n'
    )
    saved = Saved(("ttft.p95<1s", "errors<1%"), "git:b", 20, (("gpu", "H200"),))
    assert read_saved(tmp_path) == saved
    assert read_settings(tmp_path) == Settings()


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        ("slo = 3", "slo in [gate] of latdiag.toml", "slo ="),
        ("slo = [3]", "slo in [gate]", "texts"),
        ("[gate.baseline]\nstor = 'x'", "[gate.baseline] of latdiag.toml", "store"),
        ("[gate.baseline]\nkeep = 3", "keep in [gate.baseline]", "between 10 and 1000"),
        ("[gate.baseline]\nfacts = { gpu = 1 }", "facts in [gate.baseline]", "gpu ="),
        ("[gate.baseline]\nstore = 1", "store in [gate.baseline]", "store ="),
        ("baseline = 1", "[gate.baseline] of latdiag.toml is not a table", "keys"),
    ],
)
def test_what_they_cannot_read_is_refused(
    tmp_path: Path, text: str, place: str, remedy: str
) -> None:
    (tmp_path / "latdiag.toml").write_text(f"[gate]\n{text}\n")
    with pytest.raises(UsageFault) as fault:
        read_saved(tmp_path)
    assert place in fault.value.text and remedy in fault.value.remedy
