"""A change on the way in words, and what each stretch of the run bears of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.parts import Parts
from latdiag.measurement.changes import Change
from latdiag.measurement.course import Course, Stretch
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.units import GLUE, NS_PER_S, ms, quantity

if TYPE_CHECKING:
    from latdiag.measurement.frame import Frame
    from latdiag.measurement.observations import Observations

_WORDS = {"tpot": "TPOT", "ttft": "TTFT"}
#: Requests of a stretch that say anything.
_FEWEST = 5


def with_stretches(course: Course, frame: Frame, parts: Parts | None) -> Course:
    """With the workload before and after the first change that lies in it, taken apart as
    ``parts`` are; as it is where none does."""
    rows = parts.row if parts is not None else None
    if parts is None or rows is None or len(rows) != len(parts.total) or not course.changes:
        return course
    at = (frame.begin[rows] - int(frame.begin[frame.begun].min())) / NS_PER_S
    for change in course.changes:
        inside = _after(change, at)
        groups = (~inside, inside)
        if min(int(group.sum()) for group in groups) >= _FEWEST:
            found = [_stretch(parts, at, group) for group in groups]
            return replace(course, stretches=tuple(found))
    return course


def _after(change: Change, at: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The later ones, or those in a spell; of what changes all the time, the later half."""
    since = change.from_s
    if change.kind in ("drift", "cold_start"):
        since = float(np.median(at)) if len(at) else since
    later: NDArray[np.bool_] = at >= since
    return later & (at < change.until_s) if change.kind == "spell" else later


def _stretch(parts: Parts, at: NDArray[np.float64], group: NDArray[np.bool_]) -> Stretch:
    sums = {name: int(column[group].sum()) for name, column in parts.inside("client_e2e").items()}
    first = max(sums, key=lambda name: sums[name])
    source = parts.sources.get(first)
    members = (source.members if source is not None else ()) or (first,)
    total = int(parts.total[group].sum())
    n = int(group.sum())
    return Stretch(
        float(at[group].min()),
        float(at[group].max()),
        n,
        ms(total / n),
        members,
        sums[first] / max(total, 1),
    )


def first_begin(seen: Observations) -> int:
    """When the run's first request was sent or due, ns; instants of changes count from there."""
    begun = seen.begin[seen.sent > 0]
    return int(begun.min()) if len(begun) else 0


def stretches(
    course: Course, seen: Observations, row: NDArray[np.int64] | None
) -> NDArray[np.int64] | None:
    """Which stretch between steps, or in a spell, the rows of the frame belong to; None where all
    are of one, or a stretch has too few. What changes all the time has no stretches."""
    if row is None or not len(row) or not len(seen.row):
        return None
    begin = np.zeros(max(int(row.max()), int(seen.row.max())) + 1, dtype=np.int64)
    begin[seen.row] = seen.begin
    at = (begin[row] - first_begin(seen)) / NS_PER_S
    found = np.zeros(len(row), dtype=np.int64)
    for change in course.changes:
        if change.kind in ("step", "spell"):
            found = 2 * found + _after(change, at)
    _, found, counts = np.unique(found, return_inverse=True, return_counts=True)
    return found if len(counts) > 1 and counts.min() >= _FEWEST else None


def caveats_of(course: Course | None) -> list[Caveat]:
    """One for each change, and one for what the means mix."""
    if course is None:
        return []
    found = [caveat("LD126", what=_sentence(each)) for each in course.changes]
    if course.stretches:
        found.append(caveat("LD127", what="; ".join(_bears(each) for each in course.stretches)))
    return found


def _sentence(change: Change) -> str:
    what = _WORDS[change.what]
    before, after = _quantity(change.before_ms), _quantity(change.after_ms)
    size = f"{change.factor:.2f} times [{change.factor_lo:.2f}, {change.factor_hi:.2f}]"
    since = f"{change.from_s:.1f} s"
    if change.kind == "spell":
        return (
            f"from {since} to {change.until_s:.1f} s of the run {what} was {after} in place of"
            f" {before} ({size}): others' load, or a slow spell of the server"
        )
    if change.kind == "drift":
        return f"{what} drifted from {before} to {after} ({size})"
    if change.kind == "cold_start":
        return f"{what} came down from {before} to {after} ({size}): a cold start"
    between = f"between {change.from_lo_s:.1f} and {change.from_hi_s:.1f} s"
    if f"{change.from_lo_s:.1f}" == f"{change.from_hi_s:.1f}":
        between = f"at {since}"
    return f"{between} of the run {what} went from {before} to {after} ({size})"


def _bears(found: Stretch) -> str:
    lead = " + ".join(found.leader)
    return (
        f"{found.requests} requests from {found.from_s:.0f} to {found.until_s:.0f} s take"
        f" {_quantity(found.e2e_ms)}, {100 * found.share:.0f} % of it {lead}"
    )


def _quantity(value: float) -> str:
    return quantity(value, "ms").replace(GLUE, " ")
