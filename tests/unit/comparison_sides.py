"""Sides for the tests of a comparison: runs of which only the parts matter, or the metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from hypothesis import strategies as st

from latdiag.attribution.parts import Parts, Source
from latdiag.diagnosis.comparison import compare, compare_parts
from latdiag.diagnosis.difference import RunRows, SideRows
from latdiag.measurement.metric_rows import read_rows
from latdiag.model.components import COMPONENTS

from .split_rows import MS

PLAIN = Source("A", "made by the test")
MERGED = Source("E", "made by the test", ("queue", "prefill", "frontend", "gateway"))


def series(rng: np.random.Generator, n: int, phi: float) -> np.ndarray:
    """Stationary AR(1) with unit variance."""
    noise = rng.normal(size=n) * np.sqrt(1 - phi**2)
    noise[0] /= np.sqrt(1 - phi**2)
    return np.fromiter(accumulate(noise.tolist(), lambda before, new: new + phi * before), float)


def partition(queue: np.ndarray, decode: np.ndarray, **more: Any) -> Parts:
    """Parts of two components, in ms."""
    parts = {
        name: np.rint(values * MS).astype(np.int64)
        for name, values in (("queue", queue), ("decode", decode))
    }
    return of(parts, dict.fromkeys(parts, PLAIN), **more)


def of(parts: dict[str, np.ndarray], sources: dict[str, Source], **more: Any) -> Parts:
    total = sum(parts.values(), np.zeros(len(next(iter(parts.values()))), dtype=np.int64))
    flags = np.zeros(len(total), dtype=bool)
    return Parts(total, total // 2, parts, flags, 0, sources, **more)


NO_ROWS = read_rows([])


def side(*partitions: Parts) -> SideRows:
    """A side of runs of which only the parts matter."""
    return SideRows(
        RunRows(parts, replace(NO_ROWS, sending=(("c", "", number, 0, len(parts.total)),)))
        for number, parts in enumerate(partitions)
    )


def compared(a: SideRows, b: SideRows, metrics: Sequence[str] = (), seed: int = 0) -> Any:
    """What ``compare --json`` prints of two sides."""
    return compare(a, b, metrics, seed).to_json()


def components(a: SideRows, b: SideRows, population: str = "mean", seed: int = 0) -> Any:
    shared = "both sides are the same run" if set(a.identities) & set(b.identities) else None
    found = compare_parts(population, a, b, seed, shared)
    return {} if found is None else found.to_json()


Draw = Callable[[np.random.Generator, float], list[Parts]]


def load(n: int, phi: float, runs: int = 1, drift: float = 0.0) -> Draw:
    """``runs`` of ``n`` requests each, skewed and dependent; ``drift``: from run to run, ms."""

    def draw(rng: np.random.Generator, shift: float) -> list[Parts]:
        return [
            partition(
                np.exp(0.5 * series(rng, n, phi)) * 20 + shift,
                50 + 2 * series(rng, n, phi) + drift * rng.normal(),
            )
            for _ in range(runs)
        ]

    return draw


any_ns = st.integers(0, 10**10)


@st.composite
def any_parts(draw: st.DrawFn) -> Parts:
    """A partition with any classes, any times, and negative rows that settle."""
    stated = draw(st.lists(st.sampled_from(COMPONENTS), min_size=1, unique=True))
    stated = [name for name in COMPONENTS if name in stated]
    keys, rest = [], list(stated)
    while rest:
        size = draw(st.integers(1, min(3, len(rest))))
        keys.append(tuple(rest[:size]))
        rest = rest[size:]
    n = draw(st.integers(1, 6))
    parts, sources = {}, {}
    for members in keys:
        values = draw(st.lists(any_ns, min_size=n, max_size=n))
        parts[members[0]] = np.array(values, dtype=np.int64)
        sources[members[0]] = Source("A", "x", members if len(members) > 1 else ())
    segment = np.sort(np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))))
    return of(parts, sources, segment=segment)


def leaves_of(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "contains_zero" in node:
            yield node
        for below in node.values():
            yield from leaves_of(below)


def assert_swapped(a: SideRows, b: SideRows) -> int:
    """Every difference is the negative, to the last bit; how many have an interval."""
    one, other = compared(a, b, ("ttft", "itl"), 7), compared(b, a, ("ttft", "itl"), 7)
    bounded = 0
    for here, there in zip(leaves_of(one), leaves_of(other), strict=True):
        for key, opposite in (("value", "value"), ("lo", "hi"), ("rounded_ns", "rounded_ns")):
            if here.get(key) is not None:
                assert here[key] == -there[opposite]
        assert here["contains_zero"] == there["contains_zero"]
        bounded += here["lo"] is not None
    return bounded
