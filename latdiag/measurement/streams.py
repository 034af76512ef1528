"""What the arrivals of a stretch of rows say, in whole columns: first, last, and the gaps.

The list columns of a batch lie flat, row after row; a gap across the border of two rows is no
gap. Everything is one pass over the flat arrays, in pieces that stay in a processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latdiag.model.records import ANSWER_KINDS, OUTPUT_KINDS
from latdiag.store.batch import Batch, Ints, Lists

#: Arrivals worked on at once: temporaries of 2 MB; half of it and twice of it take as long.
ARRIVALS_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps between consecutive output arrivals of n rows, in nanoseconds.

    ``values`` lie row after row, ``sizes`` (length n) says how many each row has; ``left_out``
    counts the gaps that are not among them, by reason.
    """

    values: NDArray[np.int64]
    sizes: NDArray[np.int64]
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class Streams:
    """The output arrivals of n rows. Arrays have length n; instants are 0 where there is none.

    ``first_tokens``: what the first output arrival brought, 1 where tokens are not known.
    ``tokens``: what all of them brought, 0 where that is not known.
    """

    outputs: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    first_censored: NDArray[np.bool_]
    last_censored: NDArray[np.bool_]
    first_tokens: NDArray[np.int64]
    tokens: NDArray[np.int64]
    has_answer: NDArray[np.bool_]
    answer: NDArray[np.int64]
    answer_censored: NDArray[np.bool_]
    icl: Gaps
    itl: Gaps
    censored_arrivals: int
    multi_token_arrivals: int
    zero_token_arrivals: int
    arrivals: Arrivals


class Arrivals(NamedTuple):
    """The output arrivals of n rows, flat: row i has ``offsets[i]`` to ``offsets[i + 1]`` of
    ``stamps`` (ns), ``tokens`` (0 where not known) and ``exact``: whether the stamp is its own."""

    stamps: NDArray[np.int64]
    offsets: NDArray[np.int64]
    tokens: NDArray[np.int32]
    exact: NDArray[np.bool_]


def pieces(batch: Batch, arrivals: int = ARRIVALS_AT_ONCE) -> Iterator[Batch]:
    """``batch`` cut at row borders into views of about ``arrivals`` arrivals each."""
    ends = batch.lists["arrivals_ns"].offsets
    start = 0
    while start < batch.n:
        until = int(ends.searchsorted(ends[start] + arrivals, side="right")) - 1
        stop = min(batch.n, max(until, start + 1))
        whole = start == 0 and stop == batch.n
        yield batch if whole else _rows(batch, slice(start, stop))
        start = stop


def _rows(batch: Batch, rows: slice) -> Batch:
    def part(column: Lists) -> Lists:
        offsets = column.offsets[rows.start : rows.stop + 1]
        values = column.values[offsets[0] : offsets[-1]]
        return Lists(values, offsets - offsets[0], column.valid[rows])

    return Batch(
        rows.stop - rows.start,
        {name: Ints(c.values[rows], c.valid[rows]) for name, c in batch.ints.items()},
        {name: c[rows] for name, c in batch.bools.items()},
        {name: c[rows] for name, c in batch.texts.items()},
        {name: part(c) for name, c in batch.lists.items()},
        batch.run,
        {name: c[rows] for name, c in batch.floats.items()},
    )


def read_streams(batch: Batch) -> Streams:
    """The streams of the rows of ``batch``, which is best a piece of ``pieces``."""
    column = batch.lists["arrivals_ns"]
    kinds = aligned(batch.lists["kinds"], column)
    at = np.flatnonzero(among(kinds, OUTPUT_KINDS))
    # Row i has the output arrivals bounds[i] to bounds[i + 1].
    bounds = np.searchsorted(at, column.offsets)
    stamps = column.values.take(at)
    censored = aligned(batch.lists["censored"], column).take(at)
    known = batch.lists["tokens"].valid
    tokens = aligned(batch.lists["tokens"], column).take(at)
    outputs = np.diff(bounds)
    answers = np.flatnonzero(among(kinds.take(at), ANSWER_KINDS))
    answer_bounds = np.searchsorted(answers, bounds)
    has_answer = np.diff(answer_bounds) > 0
    answer_at = _taken(answers, answer_bounds[:-1], has_answer)
    has = outputs > 0
    stepped = batch.bools["clock_step"]
    icl, kept = _chunk_gaps(stamps, bounds, outputs, censored, stepped)
    return Streams(
        outputs,
        _taken(stamps, bounds[:-1], has),
        _taken(stamps, bounds[1:] - 1, has),
        _taken(censored, bounds[:-1], has),
        _taken(censored, bounds[1:] - 1, has),
        np.where(known & has, _taken(tokens, bounds[:-1], has), 1),
        np.diff(np.concatenate(([0], np.cumsum(tokens, dtype=np.int64)))[bounds]),
        has_answer,
        _taken(stamps, answer_at, has_answer),
        _taken(censored, answer_at, has_answer),
        icl,
        _token_gaps(icl, kept, tokens, known, bounds),
        int(np.count_nonzero(censored)),
        int(np.count_nonzero(tokens > 1)),
        int(np.count_nonzero(tokens == 0)) - int(outputs[~known].sum()),
        Arrivals(stamps, bounds, tokens, ~censored),
    )


def among(kinds: NDArray[np.int8], wanted: Sequence[int]) -> NDArray[np.bool_]:
    """Where ``kinds`` is one of ``wanted``: a few passes over bytes beat a table look-up."""
    found = np.zeros(kinds.size, dtype=np.bool_)
    for kind in wanted:
        found |= kinds == int(kind)
    return found


def aligned(column: Lists, arrivals: Lists) -> NDArray[Any]:
    """Flat values, one for each arrival: 0 in the rows whose list is null."""
    if np.array_equal(column.offsets, arrivals.offsets):
        return column.values
    lengths, wanted = np.diff(column.offsets), np.diff(arrivals.offsets)
    alike = lengths == wanted
    flat = np.zeros(arrivals.values.size, dtype=column.values.dtype)
    flat[np.repeat(alike, wanted)] = column.values[np.repeat(alike, lengths)]
    return flat


def _taken(values: NDArray[Any], at: NDArray[np.int64], there: NDArray[np.bool_]) -> NDArray[Any]:
    """``values[at]`` where ``there``, else 0."""
    found = np.zeros(there.size, dtype=values.dtype)
    found[there] = values[at[there]]
    return found


def _chunk_gaps(
    stamps: NDArray[np.int64],
    bounds: NDArray[np.int64],
    outputs: NDArray[np.int64],
    censored: NDArray[np.bool_],
    stepped: NDArray[np.bool_],
) -> tuple[Gaps, NDArray[np.bool_]]:
    """Gaps of ICL, and which of the gaps between neighbours in ``stamps`` they are."""
    kept = np.ones(max(stamps.size - 1, 0), dtype=np.bool_)
    borders = bounds[1:-1]
    kept[borders[(borders > 0) & (borders < stamps.size)] - 1] = False
    left_out = {}
    if stepped.any():
        left_out["clock_step"] = int(np.maximum(outputs[stepped] - 1, 0).sum())
        kept &= ~np.repeat(stepped, outputs)[1:]
    if censored.any():
        touched = censored[1:] | censored[:-1]
        left_out["censored"] = int(np.count_nonzero(kept & touched))
        kept &= ~touched
    sizes = _row_counts(kept, bounds) if left_out else np.maximum(outputs - 1, 0)
    return Gaps(np.diff(stamps)[kept], sizes, left_out), kept


def _token_gaps(
    icl: Gaps,
    kept: NDArray[np.bool_],
    tokens: NDArray[np.int32],
    known: NDArray[np.bool_],
    bounds: NDArray[np.int64],
) -> Gaps:
    """Those gaps of ICL whose later arrival brought exactly one token."""
    brought = tokens[1:][kept]
    single = brought == 1
    if single.all():
        # The very same array: whoever counts both need count but once.
        return Gaps(icl.values, icl.sizes, dict(icl.left_out))
    unknown = int(icl.sizes[~known].sum())
    reasons = {
        "tokens_unknown": unknown,
        "multi_token": int(np.count_nonzero(brought > 1)),
        "zero_token": int(np.count_nonzero(brought == 0)) - unknown,
    }
    kept = kept.copy()
    kept[kept] = single
    left_out = icl.left_out | {why: count for why, count in reasons.items() if count}
    return Gaps(icl.values[single], _row_counts(kept, bounds), left_out)


def _row_counts(kept: NDArray[np.bool_], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of a row's gaps are kept; the gap at a border of two rows never is."""
    # Those that are not kept are few: the others are not counted one by one.
    edges = np.minimum(bounds, kept.size)
    return np.diff(edges - np.searchsorted(np.flatnonzero(~kept), edges))
