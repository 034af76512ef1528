"""The invariants of ``tests/unit/test_whitebox.py`` over a million random traces, timed.

LATDIAG_BENCH_TRACES: how many; they come in lots, each from a seed of its own.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import pytest

from latdiag.attribution.spans import explain as whitebox
from tests.unit.random_traces import requests, traces
from tests.unit.test_whitebox import check_sums, same

pytestmark = pytest.mark.bench

LOT = 10_000
WANTED = int(os.environ.get("LATDIAG_BENCH_TRACES", "1000000"))


def test_a_million_traces() -> None:
    told = spans_seen = 0
    spent = 0.0
    for seed in range(max(1, WANTED // LOT)):
        random = np.random.default_rng(seed)
        spans, seen = traces(LOT, random), requests(LOT, random, kernel=seed % 2 == 0)
        begun = time.perf_counter()
        parts, facts, _ = whitebox.explain(spans, seen)
        spent += time.perf_counter() - begun
        assert parts is not None and facts.joined == LOT
        check_sums(parts)
        order = random.permutation(spans.n)
        wrong = random.integers(-(10**17), 10**17, len(spans.senders))[spans.sender]
        skewed = replace(spans, start=spans.start + wrong, end=spans.end + wrong)
        skewed = skewed.select(order)
        other, _, _ = whitebox.explain(skewed, seen)
        assert other is not None and same(parts, other)
        told += facts.told
        spans_seen += spans.n
        print(f"\r{(seed + 1) * LOT:,} traces, {spent:.0f} s", end="", flush=True)
    each = 1e6 * spent / max(1, WANTED // LOT) / LOT
    print(f"\n{WANTED:,} traces, {spans_seen:,} spans, {told:,} told: {each:.1f} us a trace")
