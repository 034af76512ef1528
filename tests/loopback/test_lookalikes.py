"""Look-alikes of hosted APIs, measured: the numbers are those that the peer knows to be true."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from .invoke import loaded, well_measured
from .lookalikes import LOOKALIKES, looking_like

#: Requests of a load, at once; the tokens that the user wants.
REQUESTS, AT_ONCE, OSL = 24, 4, 32


@pytest.mark.parametrize("name", LOOKALIKES)
def test_a_load_has_the_right_numbers(tmp_path: Path, name: str) -> None:
    habits = LOOKALIKES[name]
    at_once = 12 if habits.at_once < REQUESTS else AT_ONCE
    with looking_like(habits) as (_, url, truth):
        ended = loaded(
            *(tmp_path, url, "--requests", str(REQUESTS), "--concurrency", str(at_once)),
            *("--osl", str(OSL), "--timeout", "20s"),
        )
    assert well_measured(ended), ended.err
    rows, result = ended.rows(), ended.result
    good = {n: row for n, row in rows.items() if row["outcome"] == "ok"}
    assert set(good) == set(truth.sent)
    for n, row in good.items():
        sent = truth.sent[n]
        came = [at for at, kind in zip(row["arrivals_ns"], row["kinds"], strict=True) if kind == 3]
        assert len(came) == len(sent) == OSL
        assert row["osl"] == OSL + habits.hidden
    # Client and peer share a clock: nothing came before it was sent, and the median soon after.
    late = [
        at / 1e9 - sent
        for n, row in good.items()
        for at, sent in zip(
            [a for a, k in zip(row["arrivals_ns"], row["kinds"], strict=True) if k == 3],
            truth.sent[n],
            strict=True,
        )
    ]
    assert statistics.median(late) < 0.005
    spans = [(sent[-1] - sent[0]) / (OSL - 1) for sent in truth.sent.values()]
    tpot = result["metrics"]["tpot"]["mean"]["value"]
    assert tpot == pytest.approx(1e3 * statistics.fmean(spans), rel=0.05)
    refused = result["load"]["failed"].get("rate_limited", 0)
    assert refused == truth.refused == len(rows) - len(good)
    assert (refused > 0) == (habits.at_once < REQUESTS)


#: The caveat that names the habit.
NAMED = {
    "keep-alive as data": "LD142",
    "an event stream under application/json": "LD141",
    "429 beyond 8": "LD113",
    "a reply held open": "LD143",
    "a refusal under 200": "LD109",
    "hidden reasoning": "LD107",
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_odd_about_it_is_said(tmp_path: Path, name: str) -> None:
    habits = LOOKALIKES[name]
    at_once = "12" if habits.at_once < REQUESTS else "2"
    with looking_like(habits) as (_, url, _truth):
        ended = loaded(
            *(tmp_path, url, "--requests", at_once, "--concurrency", at_once, "--osl", "4"),
        )
    codes = {caveat["code"] for caveat in ended.result["caveats"]}
    assert NAMED[name] in codes
    others = set(NAMED.values()) - {NAMED[name], "LD109", "LD107"}
    assert codes.isdisjoint(others)
