"""What others do with the same requests: rules of tools and of practice, each (columns) -> red."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

Columns = dict[str, Any]
_METRICS = ("ttft", "tpot", "e2e")
_RUNS = 10


def _arms(columns: Columns, metric: str) -> tuple[Any, Any]:
    there = columns["ok"]
    return tuple(columns[metric][there & (columns["arm"] == arm)] for arm in (0, 1))  # type: ignore[return-value]


def _runs(columns: Columns, metric: str) -> tuple[Any, Any]:
    """p95 of each of ten stretches of the measurement, by arm."""
    pairs = columns["pair"].max() + 1
    run = columns["pair"] * _RUNS // pairs
    return tuple(
        np.array(
            [
                np.percentile(
                    columns[metric][(run == at) & (columns["arm"] == arm) & columns["ok"]], 95
                )
                for at in range(_RUNS)
            ]
        )
        for arm in (0, 1)
    )  # type: ignore[return-value]


def _worse_than(limit: float) -> Callable[[Columns], bool]:
    def rule(columns: Columns) -> bool:
        ratios = (
            np.percentile(other, 95) / np.percentile(one, 95)
            for one, other in (_arms(columns, metric) for metric in _METRICS)
        )
        return any(ratio > 1 + limit for ratio in ratios)

    return rule


def _welch(columns: Columns) -> bool:
    return any(
        stats.ttest_ind(other, one, equal_var=False, alternative="greater").pvalue < 0.05
        for one, other in (_runs(columns, metric) for metric in _METRICS)
    )


def _mann_whitney(columns: Columns) -> bool:
    return any(
        stats.mannwhitneyu(other, one, alternative="greater", method="asymptotic").pvalue < 0.05
        for one, other in (_arms(columns, metric) for metric in _METRICS)
    )


def _benchstat(columns: Columns) -> bool:
    return any(
        stats.mannwhitneyu(other, one, alternative="two-sided", method="exact").pvalue < 0.05
        and np.median(other) > np.median(one)
        for one, other in (_runs(columns, metric) for metric in _METRICS)
    )


#: name: the rule; red if any of TTFT, TPOT and E2E is.
BASELINES: dict[str, Callable[[Columns], bool]] = {
    "p95 worse than 10 %": _worse_than(0.10),
    "p95 worse than 15 %": _worse_than(0.15),
    "Welch over 10 runs": _welch,
    "Mann-Whitney, requests": _mann_whitney,
    "benchstat's rule": _benchstat,
}
