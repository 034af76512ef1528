"""Objectives: what is understood, what is refused and with which words, and how they judge."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.measurement.slo import parse_slo, parse_slos
from latdiag.model.errors import UsageFault
from latdiag.model.metrics import METRICS
from latdiag.stats import Estimate

MS = 1_000_000


@dataclass(frozen=True)
class Told:
    """Readings that say one thing, and note what they were asked for."""

    answer: Estimate
    asked: list[tuple[str, str]]

    def reading(self, name: str, statistic: str) -> Estimate:
        self.asked.append((name, statistic))
        return self.answer


def told(value: float | None, lo: float | None, hi: float | None) -> Told:
    refused = "too few" if value is None else None
    return Told(Estimate(value, lo, hi, 1000, 900, "how", refused), [])


@pytest.mark.parametrize(
    ("text", "name", "statistic", "quantile", "sign", "bound"),
    [
        ("ttft.p95<500ms", "ttft", "p95", 0.95, "<", 500 * MS),
        ("tpot.p99<40ms", "tpot", "p99", 0.99, "<", 40 * MS),
        ("e2e.mean<2s", "e2e", "mean", None, "<", 2000 * MS),
        ("itl.p99<100ms", "itl", "p99", 0.99, "<", 100 * MS),
        ("itl.p99.9<=0.1s", "itl", "p99.9", 0.999, "<=", 100 * MS),
        ("itl.p99.90<100ms", "itl", "p99.9", 0.999, "<", 100 * MS),
        ("icl.p05<1us", "icl", "p5", 0.05, "<", 1000),
        ("response_time.p50 <= 1.5 s", "response_time", "p50", 0.5, "<=", 1500 * MS),
        ("output_throughput>1000", "output_throughput", "", None, ">", 1000),
        ("output_throughput >= 1000tok/s", "output_throughput", "", None, ">=", 1000),
        ("goodput>2.5req/s", "goodput", "", None, ">", 2.5),
        ("errors<1%", "errors", "", None, "<", 0.01),
        ("errors<=0", "errors", "", None, "<=", 0),
        ("slo_attainment>0.99", "slo_attainment", "", None, ">", 0.99),
    ],
)
def test_what_is_understood(
    text: str, name: str, statistic: str, quantile: float | None, sign: str, bound: float
) -> None:
    slo = parse_slo(text)
    assert (slo.metric.name, slo.statistic, slo.sign) == (name, statistic, sign)
    assert slo.quantile == quantile
    assert slo.bound == pytest.approx(bound)
    assert slo.text == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write for example"),
        ("ttft", "write for example"),
        ("ttft.p95", "write for example"),
        ("ttft.p95=500ms", "write for example"),
        ("TTFT.p95<500ms", "write for example"),
        ("ttft.p95<", "write for example"),
        ("tfft.p95<500ms", "ttft"),
        ("ttft<500ms", "ttft.p95"),
        ("ttft.p95<500", "500ms or 500s"),
        ("ttft.p95<abc", "30s, 2m or 250ms"),
        ("ttft.p95<-5ms", "30s, 2m or 250ms"),
        ("ttft.p95<5%", "30s, 2m or 250ms"),
        ("ttft.p95<0ms", "write <="),
        ("ttft.p95>500ms", "write <"),
        ("output_throughput<10", "write >"),
        ("ttft.p100<5ms", "p1 to p99.9"),
        ("ttft.p0<5ms", "p1 to p99.9"),
        ("ttft.max<5ms", "p1 to p99.9"),
        ("errors.p95<1%", "without .p95"),
        ("errors<1ms", "1% or 0.01"),
        ("errors<5", "5%"),
        ("output_throughput>fast", "1000tok/s"),
        ("output_throughput>1000req/s", "1000tok/s"),
        ("output_throughput>10%", "1000tok/s"),
        ("mlperf:gpt-2", "mlperf:llama2-70b"),
    ],
)
def test_nonsense_is_a_usage_fault_that_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(UsageFault) as fault:
        parse_slos([text])
    assert says in fault.value.remedy
    assert fault.value.exit_code == 2


@given(st.text(max_size=30) | st.from_regex(r"[a-z_]{1,8}\.p[0-9.]{1,4}[<>]=?[0-9.]{1,4}[a-z%]*"))
def test_any_text_is_an_objective_or_a_usage_fault(text: str) -> None:
    try:
        slo = parse_slo(text)
    except UsageFault as fault:
        assert fault.text and fault.remedy
    else:
        assert slo.bound >= 0 and slo.metric in METRICS
        assert parse_slo(slo.text) == slo


def test_presets_unfold_and_what_is_said_twice_counts_once() -> None:
    slos = parse_slos(["mlperf:llama2-70b-interactive", "ttft.p99<450ms", "errors<1%"])
    assert [slo.text for slo in slos] == ["ttft.p99<450ms", "tpot.p99<40ms", "errors<1%"]


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [
        ("ttft.p95<500ms", 499.0, True),
        ("ttft.p95<500ms", 500.0, False),
        ("ttft.p95<=500ms", 500.0, True),
        ("ttft.p95<=500ms", 500.1, False),
    ],
)
def test_the_bound_itself(text: str, value: float, met: bool) -> None:
    slo = parse_slo(text)
    readings = told(value * MS, None, None)
    assert slo.judge(readings).met is met
    assert readings.asked == [("ttft", "p95")]
    column = np.array([value * MS], dtype=np.int64)
    assert slo.holds_for(column).tolist() == [met]


def test_higher_is_better_for_rates() -> None:
    assert parse_slo("output_throughput>1000").judge(told(1001.0, 900.0, 1100.0)).met is True
    assert parse_slo("output_throughput>1000").judge(told(1000.0, None, None)).met is False
    assert parse_slo("output_throughput>=1000").judge(told(1000.0, None, None)).met is True


@pytest.mark.parametrize(
    ("value", "lo", "hi", "met", "sure"),
    [
        (450.0, 440.0, 460.0, True, True),
        (490.0, 470.0, 510.0, True, False),
        (510.0, 490.0, 530.0, False, False),
        (600.0, 550.0, 650.0, False, True),
        (450.0, None, None, True, False),
    ],
)
def test_a_verdict_is_sure_when_the_whole_interval_agrees(
    value: float, lo: float | None, hi: float | None, met: bool, sure: bool
) -> None:
    scaled = [None if x is None else x * MS for x in (value, lo, hi)]
    judged = parse_slo("ttft.p95<500ms").judge(told(*scaled))
    assert (judged.met, judged.sure) == (met, sure)


def test_a_refused_reading_is_no_verdict() -> None:
    judged = parse_slo("ttft.p99<1s").judge(told(None, None, None))
    assert judged.met is None and not judged.sure
    document = judged.to_json()
    assert document["met"] is None and document["reason"] == "too few"
    assert document["slo"] == "ttft.p99<1s"


def test_a_judgement_as_json() -> None:
    document = parse_slo("ttft.p95<500ms").judge(told(4e8, 3e8, 45e7)).to_json()
    assert document["met"] is True and document["sure"] is True and "reason" not in document
    reading = document["reading"]
    assert isinstance(reading, dict)
    assert (reading["value"], reading["lo"], reading["hi"]) == (400.0, 300.0, 450.0)


@pytest.mark.parametrize(
    ("text", "per_request"),
    [("ttft.p95<1s", True), ("tpot.mean<1s", True), ("itl.p99<1s", False), ("errors<1%", False)],
)
def test_which_objectives_goodput_counts(text: str, per_request: bool) -> None:
    assert parse_slo(text).per_request is per_request
