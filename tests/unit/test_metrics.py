"""The table of metrics: complete, unambiguous, and what the code computes."""

import re

import pytest

from latdiag.measurement.measure import measure
from latdiag.measurement.slo import parse_slos
from latdiag.model.errors import UsageFault
from latdiag.model.metrics import METRICS, SLO_PRESETS, metric


def test_names_are_unique_and_looked_up() -> None:
    names = [m.name for m in METRICS]
    assert len(set(names)) == len(names)
    assert all(metric(name).name == name for name in names)


def test_an_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageFault) as fault:
        metric("tfft")
    assert "ttft" in fault.value.remedy


@pytest.mark.parametrize("one", METRICS, ids=lambda m: m.name)
def test_every_entry_says_what_it_is(one: object) -> None:
    m = metric(one.name)  # type: ignore[attr-defined]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", m.name)
    assert m.unit in ("ms", "tok/s", "req/s", "share")
    assert m.better in ("lower", "higher")
    assert m.title and m.formula
    assert 1 <= len(re.findall(r"[.;](?:\s|$)", m.meaning)) <= 4
    assert (m.start is None) == (m.end is None)
    assert m.per == "request" or m.start is None


def test_durations_are_better_lower_and_rates_higher() -> None:
    for m in METRICS:
        if m.unit == "ms":
            assert m.better == "lower"
        if m.unit in ("tok/s", "req/s"):
            assert m.better == "higher" and m.per == "run"


def test_the_code_computes_exactly_the_table() -> None:
    measured = measure([])
    assert set(measured.statistics) == {m.name for m in METRICS if m.per != "run"}
    assert set(measured.totals) == {m.name for m in METRICS if m.per == "run"}
    assert list(measured.metrics()) == [m.name for m in METRICS]


def test_presets_are_objectives() -> None:
    assert len(SLO_PRESETS) == 10
    for name in SLO_PRESETS:
        slos = parse_slos([name])
        assert [slo.metric.name for slo in slos] == ["ttft", "tpot"]
        assert {slo.quantile for slo in slos} == {0.99}


def test_interactive_presets_are_stricter() -> None:
    for name in SLO_PRESETS:
        if name.endswith("-interactive"):
            ttft, tpot = parse_slos([name])
            slow_ttft, slow_tpot = parse_slos([name.removesuffix("-interactive")])
            assert ttft.bound < slow_ttft.bound and tpot.bound < slow_tpot.bound
