"""Claims in, parts that add up exactly out: the one place where claims are added up.

Every claim goes to the class of its leaves. What is left of the end-to-end time when all claims
are taken away, to the nanosecond, is unattributed; it is the only part that may be negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import BIT
from latdiag.attribution.ledger import Claim, Ledger, Merges, Origin, is_parted, key_of
from latdiag.attribution.parts import Parts, Source
from latdiag.measurement.frame import Frame
from latdiag.model.components import COMPONENTS


@dataclass(frozen=True, slots=True)
class Whole:
    """What is divided up, one entry per row; int64 ns. ``total``: end to end; ``ttft``: until the
    first token; ``stream``: from the first token to the last. ``delayed``: rows whose network
    share is bounded, not measured. ``segment``: the independent repetition of each row.
    ``interval``: what ``total`` is. ``row``: which rows of the frame these are."""

    total: NDArray[np.int64]
    ttft: NDArray[np.int64]
    stream: NDArray[np.int64]
    delayed: NDArray[np.bool_]
    segment: NDArray[np.int64] | None = None
    interval: str = "client_e2e"
    row: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, rows: Frame) -> Whole:
        """The requests of a workload, as the client saw them."""
        return cls(
            rows.done - rows.begin,
            rows.first - rows.begin,
            rows.last - rows.first,
            rows.delayed & rows.kernel,
            np.unique(rows.scenario.astype(str), return_inverse=True)[1],
            row=rows.row,
        )


def settle(
    whole: Whole, ledger: Ledger, left_out: int, alone: NDArray[np.int64] | None = None
) -> Parts:
    """The parts of ``whole``. ``left_out``: successful requests that are not among the rows;
    ``alone``: what each row would take on an idle server."""
    classes = _by_class(ledger.claims, ledger.merges)
    columns = {name: _sum([c.ns for c in claims], whole) for name, claims in classes.items()}
    columns["unattributed"] = whole.total - _sum(columns.values(), whole)
    early = {
        name: _sum([c.early for c in claims], whole)
        for name, claims in classes.items()
        if any(claim.may_be_early for claim in claims)
    }
    late = {
        name: _sum([c.inside for c in claims], whole) - early.get(name, 0)
        for name, claims in classes.items()
        if any(claim.may_be_late for claim in claims)
    }
    for name, inside, length in (
        ("client_ttft", early, whole.ttft),
        ("decode", late, whole.stream),
    ):
        if name not in ledger.filled:
            inside["unattributed"] = length - _sum(inside.values(), whole)
    leaves = _leaves(ledger.claims, whole)
    return Parts(
        total=whole.total,
        ttft=whole.ttft,
        parts=_in_time_order(columns),
        delayed=whole.delayed,
        left_out=left_out,
        sources=_sources(ledger),
        draws=_draws(classes, whole, ledger),
        slack=_slack(ledger, len(whole.total)),
        leaves=leaves,
        leaf_sources=dict.fromkeys(leaves, Source(*ledger.leaf_origin[:2])),
        alone=alone,
        segment=whole.segment,
        within={"client_ttft": _in_time_order(early), "decode": _in_time_order(late)},
        interval=whole.interval,
        row=whole.row,
    )


def unclaimed(
    whole: Whole, claims: Sequence[Claim], merges: Merges
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """ns per row that no claim of one class takes: in all, and until the first token."""
    parted = [claim for claim in claims if is_parted(claim.leaves, merges)]
    return (
        whole.total - _sum([claim.ns for claim in parted], whole),
        whole.ttft - _sum([claim.early for claim in parted], whole),
    )


def _by_class(claims: Sequence[Claim], merges: Merges) -> dict[str, list[Claim]]:
    """The claims of each class; those on leaves of several classes are in none."""
    classes: dict[str, list[Claim]] = {}
    for claim in claims:
        if is_parted(claim.leaves, merges):
            classes.setdefault(key_of(claim.leaves, merges), []).append(claim)
    return classes


def _sum(columns: Iterable[NDArray[np.int64]], whole: Whole) -> NDArray[np.int64]:
    total = np.zeros(len(whole.total), dtype=np.int64)
    for column in columns:
        total += column
    return total


def _in_time_order(columns: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    return {name: columns[name] for name in COMPONENTS if name in columns}


def _draws(
    classes: Mapping[str, Sequence[Claim]], whole: Whole, ledger: Ledger
) -> dict[str, NDArray[np.float64]]:
    """(draws, rows) of every class that another draw of the evidence would change; what is left
    unattributed changes with them where claims do not fill the time until the first token."""
    draws = {}
    for name, claims in classes.items():
        if any(claim.drawn is not None for claim in claims):
            columns = [c.ns if c.drawn is None else c.drawn for c in claims]
            draws[name] = np.asarray(sum(columns[1:], columns[0]), dtype=float)
    if draws and "client_ttft" not in ledger.filled:
        still = [c.ns for n, claims in classes.items() if n not in draws for c in claims]
        draws["unattributed"] = whole.total - _sum(still, whole) - sum(draws.values())
    return draws


def _slack(ledger: Ledger, n: int) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """By class (less, more): ns of each row that the moves of the ledger leave open."""
    less: dict[str, NDArray[np.float64]] = {}
    more: dict[str, NDArray[np.float64]] = {}
    for giver, taker, ns in ledger.moves:
        assert giver != taker, giver
        less[giver] = less.get(giver, 0.0) + np.broadcast_to(ns, n)
        more[taker] = more.get(taker, 0.0) + np.broadcast_to(ns, n)
    for name, most in ledger.limits.items():
        if name in less:
            less[name] = np.minimum(less[name], most)
    none = np.zeros(n)
    return {name: (less.get(name, none), more.get(name, none)) for name in {**less, **more}}


def _leaves(claims: Sequence[Claim], whole: Whole) -> dict[str, NDArray[np.int64]]:
    """What evidence states of one leaf and no other, by leaf."""
    stated: dict[int, list[NDArray[np.int64]]] = {}
    for claim in claims:
        if claim.stated:
            stated.setdefault(claim.leaves, []).append(claim.ns)
    return {leaf: _sum(stated[bit], whole) for leaf, bit in BIT.items() if bit in stated}


def _sources(ledger: Ledger) -> dict[str, Source]:
    """What each class rests on: the worst grade of its claims, and the words of all."""
    origins: dict[str, dict[Origin, None]] = {}
    for claim in ledger.claims:
        mine = origins.setdefault(key_of(claim.leaves, ledger.merges), {})
        mine.update(dict.fromkeys(claim.origins))
    sources = {"unattributed": Source(ledger.remainder.grade, ledger.remainder.text)}
    for name, known in origins.items():
        grade = max(origin.grade for origin in known)
        members = ledger.merges.get(name, ())
        sources[name] = Source(grade, _words(list(known)), members, ledger.settles.get(name))
    return sources


def _words(origins: Sequence[Origin]) -> str:
    """The evidence in words; names of one kind are listed together."""
    names: dict[tuple[str, str], dict[str, None]] = {}
    for origin in origins:
        names.setdefault((origin.text, origin.after), {})[origin.name] = None
    return "; ".join(text + ", ".join(n) + after for (text, after), n in names.items())
