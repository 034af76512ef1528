"""Draws that any process can repeat, and the laws of token lengths made of them."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.work.draws import octets, uniforms
from latdiag.load.work.lengths import LONGEST, Lengths
from latdiag.model.errors import UsageFault


def test_draws_depend_on_seed_stream_and_index():
    base = octets(1, "a", 2, 8)
    assert base == octets(1, "a", 2, 8)
    assert octets(1, "a", 2, 16).startswith(base)
    assert len({base, octets(2, "a", 2, 8), octets(1, "b", 2, 8), octets(1, "a", 3, 8)}) == 4
    # "1/2" and "12/..." must not meet: the parts are kept apart.
    assert octets(1, "1", 2, 8) != octets(11, "", 2, 8)


def test_uniforms_fill_the_open_interval_evenly():
    drawn = [u for i in range(5000) for u in uniforms(3, "u", i)]
    assert all(0 < u < 1 for u in drawn)
    assert statistics.fmean(drawn) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / len(drawn)))
    tenths = [sum(i / 10 <= u < (i + 1) / 10 for u in drawn) for i in range(10)]
    assert sum((n - 1000) ** 2 / 1000 for n in tenths) < 33.7  # chi square, 9 degrees, 1e-4


# Lengths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "params"),
    [
        ("512", "fixed", (512,)),
        ("uniform:100-200", "uniform", (100, 200)),
        ("normal:512,64", "normal", (512, 64)),
        ("lognormal:512,0.8", "lognormal", (512, 0.8)),
        ("choice:128,512,2048", "choice", (128, 512, 2048)),
        (" uniform: 5 - 5 ", "uniform", (5, 5)),
    ],
)
def test_lengths_are_read(text, kind, params):
    parsed = Lengths.parse(text)
    assert (parsed.kind, parsed.params) == (kind, params)


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "-5", "1.5", "many", "uniform:200-100", "uniform:100", "uniform:1-2-3",
        "normal:5", "normal:0,1", "normal:512,-3", "lognormal:512", "lognormal:0.5,1", "choice:",
        "choice:1,,2", "choice:0", "zipf:3", "fixed:3,4", "99999999999", "normal:1e3,2",
        "uniform:0-5", ":5",
    ],
)  # fmt: skip
def test_what_is_no_length_is_refused_with_the_forms(text):
    with pytest.raises(UsageFault) as fault:
        Lengths.parse(text)
    assert "lognormal:512,0.8" in fault.value.remedy


SPECS = st.one_of(
    st.integers(1, LONGEST).map(str),
    st.tuples(st.integers(1, 9999), st.integers(0, 9999)).map(
        lambda p: f"uniform:{p[0]}-{sum(p)}"
    ),
    st.tuples(st.integers(1, LONGEST), st.integers(0, LONGEST)).map(
        lambda p: f"normal:{p[0]},{p[1]}"
    ),
    st.tuples(st.integers(1, LONGEST), st.integers(0, LONGEST)).map(
        lambda p: f"lognormal:{p[0]},{p[1]}"
    ),
    st.lists(st.integers(1, 9999), min_size=1).map(lambda p: "choice:" + ",".join(map(str, p))),
)


@given(SPECS, st.integers(0, 2**48), st.integers(0, 10**9))
def test_every_draw_is_a_sound_length_and_repeatable(spec, seed, index):
    law = Lengths.parse(spec).seeded(seed, "isl")
    n = law.draw(index)
    assert type(n) is int and 1 <= n <= LONGEST
    assert n == Lengths.parse(spec).seeded(seed, "isl").draw(index)
    assert 1 <= law.mean <= LONGEST
    if law.kind == "uniform":
        assert law.params[0] <= n <= law.params[1]
    if law.kind in ("choice", "fixed"):
        assert n in law.params


def test_the_laws_are_what_they_say():
    n = 4000
    draw = {
        spec: [Lengths.parse(spec).seeded(5, "isl").draw(i) for i in range(n)]
        for spec in ("uniform:100-199", "normal:500,50", "lognormal:512,0.8", "choice:1,2,3,4")
    }
    uniform = draw["uniform:100-199"]
    assert (min(uniform), max(uniform)) == (100, 199)
    assert statistics.fmean(uniform) == pytest.approx(149.5, abs=4 * 28.9 / math.sqrt(n))
    assert statistics.fmean(draw["normal:500,50"]) == pytest.approx(500, abs=4 * 50 / math.sqrt(n))
    assert statistics.stdev(draw["normal:500,50"]) == pytest.approx(50, rel=0.05)
    logs = [math.log(x) for x in draw["lognormal:512,0.8"]]
    assert statistics.median(draw["lognormal:512,0.8"]) == pytest.approx(512, rel=0.07)
    assert statistics.stdev(logs) == pytest.approx(0.8, rel=0.05)
    fours = [draw["choice:1,2,3,4"].count(value) for value in (1, 2, 3, 4)]
    assert all(abs(f - n / 4) < 4 * math.sqrt(n * 3 / 16) for f in fours)
    mean = Lengths.parse("lognormal:512,0.8").mean
    assert mean == pytest.approx(512 * math.exp(0.32))
