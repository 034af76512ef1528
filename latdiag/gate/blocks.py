"""One figure per pair and test: all that a verdict needs, and all that gate.json keeps.

A twin is left out, and counted, where either of its requests failed, was late, saw its clock set,
or, where a length was asked for, brought another number of tokens. Nothing else is: outliers stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from latdiag.gate.checks import Check
from latdiag.gate.twins import BASE, CANDIDATE, Floats, Grid, Ints, Mask, Twins
from latdiag.stats.estimate import rank

#: A pair with a smaller share of its twins is dropped.
ENOUGH = 0.8
#: Logarithms differ in their last bits from machine to machine, and ranks must not.
_DIGITS = 12
_QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
#: Where no evidence of servers is there, the client's own stamps part a request.
CLIENT_PARTS = ("to first token", "after first token")


@dataclass(frozen=True, slots=True)
class Column:
    """One test, an entry per pair. ``value``: what its pairs differ in (mean or quantile log ratio
    of the twins; for ``exceed2x`` a count), NaN where the pair has too few. ``base`` and
    ``candidate``: nanoseconds, or counts. ``twins``: how many went in."""

    value: Floats
    base: Floats
    candidate: Floats
    twins: Ints


@dataclass(frozen=True, slots=True)
class Part:
    """One component: its nanoseconds over the twins of each pair, exact."""

    base_ns: Ints
    candidate_ns: Ints


@dataclass(frozen=True, slots=True)
class Blocks:
    """Every pair that was measured, in the order of time. By arm, (pairs, 2): twins whose request
    ``failed`` or was not sent, was ``late`` or saw its clock set; ``lag_ns`` (the median) and
    ``cached`` tokens. ``kept``: twins that are judged; ``longer``, ``shorter``: those whose
    candidate brought more or fewer tokens; ``alike``: twins behind ``parts``."""

    candidate_second: Mask
    kept: Ints
    failed: Ints
    late: Ints
    lag_ns: Ints
    prompt: Ints
    cached: Ints
    longer: Ints
    shorter: Ints
    alike: Ints
    columns: Mapping[str, Column]
    parts: Mapping[str, Part]

    @property
    def pairs(self) -> int:
        """How many were measured."""
        return len(self.kept)

    def first(self, pairs: int) -> Blocks:
        """Of the first ``pairs`` alone."""
        cut = {
            each.name: getattr(self, each.name)[:pairs]
            for each in fields(self)
            if each.name not in ("columns", "parts")
        }
        columns = {
            name: Column(*(getattr(c, each.name)[:pairs] for each in fields(Column)))
            for name, c in self.columns.items()
        }
        parts = {
            name: Part(part.base_ns[:pairs], part.candidate_ns[:pairs])
            for name, part in self.parts.items()
        }
        return replace(self, columns=columns, parts=parts, **cut)


def joined(one: Blocks, other: Blocks) -> Blocks:
    """The pairs of ``one``, then those of ``other``. A component that only one of them has took
    nothing in the other."""
    whole = {
        each.name: np.concatenate([getattr(one, each.name), getattr(other, each.name)])
        for each in fields(Blocks)
        if each.name not in ("columns", "parts")
    }
    columns = {
        name: Column(
            *(
                np.concatenate(
                    [getattr(column, each.name), getattr(other.columns[name], each.name)]
                )
                for each in fields(Column)
            )
        )
        for name, column in one.columns.items()
    }
    none = [np.zeros(side.pairs, dtype=np.int64) for side in (one, other)]
    parts = {}
    for name in dict.fromkeys((*one.parts, *other.parts)):
        sides = [
            side.parts.get(name, Part(zeros, zeros))
            for side, zeros in zip((one, other), none, strict=True)
        ]
        parts[name] = Part(
            np.concatenate([each.base_ns for each in sides]),
            np.concatenate([each.candidate_ns for each in sides]),
        )
    return Blocks(columns=columns, parts=parts, **whole)


def blocks_of(twins: Twins, block: int, checks: tuple[Check, ...], fixed_length: bool) -> Blocks:
    """``block``: requests of a block. ``fixed_length``: every request was asked for the number of
    tokens that it must bring (``ignore_eos``); otherwise only what lasts to the end needs twins
    of one length."""
    grid = Grid(twins, block)
    failed = ~grid.mask(twins.ok)
    late = grid.mask(twins.late | twins.stepped) & ~failed
    clean = ~(failed | late).any(axis=2)
    tokens = grid.values(twins.tokens)
    more = tokens[:, :, CANDIDATE] - tokens[:, :, BASE]
    alike = clean & (more == 0)
    kept = alike if fixed_length else clean
    columns = {}
    for check in checks:
        judged = (alike if check.metric == "e2e" else kept) & grid.labelled(check.where)
        expected = grid.labelled(check.where).sum(axis=1)
        columns[check.name] = _column(grid.times(check.metric), judged, expected, check)
    known_parts, parts = _parts(grid, twins, alike)
    lags = np.where(grid.there, grid.values(twins.lag_ns), np.nan)
    return Blocks(
        candidate_second=np.asarray(grid.mask(twins.second)[:, :, CANDIDATE].any(axis=1)),
        kept=kept.sum(axis=1),
        failed=failed.sum(axis=1),
        late=late.sum(axis=1),
        lag_ns=_medians(lags),
        prompt=np.nansum(grid.values(twins.prompt), axis=1).astype(np.int64),
        cached=np.nansum(grid.values(twins.cached), axis=1).astype(np.int64),
        longer=(clean & (more > 0)).sum(axis=1),
        shorter=(clean & (more < 0)).sum(axis=1),
        alike=known_parts.sum(axis=1),
        columns=columns,
        parts=parts,
    )


def _column(times: Floats, judged: Mask, expected: Ints, check: Check) -> Column:
    there = judged & (times > 0).all(axis=2)
    n = there.sum(axis=1)
    base, candidate = (np.where(there, times[:, :, arm], np.nan) for arm in (BASE, CANDIDATE))
    enough = (n >= ENOUGH * expected) & (n > 0)
    with np.errstate(invalid="ignore"):
        log_ratio = np.log(candidate / base)
    if check.statistic == "exceed2x":
        # About the margin, so that a twin is as likely to be above as below at the boundary.
        apart = log_ratio - math.log1p(check.min_effect)
        one, other = ((sign * apart > math.log(2)).sum(axis=1) for sign in (-1, 1))
        value: Floats = (other - one).astype(float)
    elif check.statistic == "shift":
        one, other = _means(base, n), _means(candidate, n)
        value = np.nansum(log_ratio, axis=1) / np.maximum(n, 1)
    else:
        q = _QUANTILES[check.statistic]
        one, other = _quantiles(base, n, q), _quantiles(candidate, n, q)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.log(other / one)
    value, one, other = (np.where(enough, each, np.nan) for each in (value, one, other))
    return Column(np.round(value, _DIGITS) + 0.0, one, other, n)


def _means(values: Floats, n: Ints) -> Floats:
    return np.asarray(np.round(np.nansum(values, axis=1) / np.maximum(n, 1)))


def _quantiles(values: Floats, n: Ints, q: float) -> Floats:
    """The order statistic of each row's ``n`` values; NaNs sort to the end."""
    ranks = np.array([rank(int(one), q) if one else 1 for one in n], dtype=np.int64)
    ordered = np.sort(values, axis=1)
    return np.asarray(np.take_along_axis(ordered, ranks[:, None] - 1, axis=1)[:, 0])


def _medians(values: Floats) -> Ints:
    """Of each arm of each pair; 0 where nothing is known."""
    n = (~np.isnan(values)).sum(axis=1)
    found = [_quantiles(values[:, :, arm], n[:, arm], 0.5) for arm in (BASE, CANDIDATE)]
    return np.nan_to_num(np.stack(found, axis=1)).astype(np.int64)


def _parts(grid: Grid, twins: Twins, alike: Mask) -> tuple[Mask, Mapping[str, Part]]:
    """The twins of which every component is known, and the sums over these."""
    if twins.parts_ns:
        values = {name: grid.values(column) for name, column in twins.parts_ns.items()}
    else:
        first = grid.times("ttft")
        values = dict(zip(CLIENT_PARTS, (first, grid.times("e2e") - first), strict=True))
    known = alike.copy()
    for each in values.values():
        known &= ~np.isnan(each).any(axis=2)
    sums = {
        name: np.where(known[:, :, None], each, 0).sum(axis=1) for name, each in values.items()
    }
    return known, {
        name: Part(each[:, BASE].astype(np.int64), each[:, CANDIDATE].astype(np.int64))
        for name, each in sums.items()
    }
