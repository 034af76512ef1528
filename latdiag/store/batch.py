"""Columns of a run's rows in numpy: what readers are given, and what a writer takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Ints:
    """A nullable int64 column: ``values`` (0 where null) and ``valid``, both of length n."""

    values: NDArray[np.int64]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lists:
    """A list column: row i holds ``values[offsets[i]:offsets[i + 1]]``.

    ``offsets`` has length n + 1, never decreases, and begins with 0 in what is read; ``valid``
    is False where the whole list is null (then it is empty too). Values are int64, int32, int8
    or bool as the schema declares.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]
    valid: NDArray[np.bool_]

    @classmethod
    def whole(cls, values: NDArray[Any], offsets: NDArray[np.int64]) -> Lists:
        """A column of which no row is null."""
        return cls(values, offsets, np.ones(len(offsets) - 1, dtype=bool))


@dataclass(frozen=True, slots=True)
class MapColumn:
    """A map column for writing: row i holds ``keys[offsets[i]:offsets[i + 1]]`` and the values
    of the same places. No row is null, and no key may be twice in a row (not checked here)."""

    offsets: NDArray[np.integer[Any]]
    keys: Sequence[str]
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class Batch:
    """At most 10,000 rows. Which columns are there depends on what was asked for. ``run``: which
    of the runs that are read together they are of, from 0."""

    n: int
    ints: dict[str, Ints]
    bools: dict[str, NDArray[np.bool_]]
    texts: dict[str, NDArray[np.object_]]
    lists: dict[str, Lists]
    run: int = 0
    #: NaN where null
    floats: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def select(self, keep: NDArray[np.bool_]) -> Batch:
        """The rows where ``keep`` (length n) is True, in order."""
        lists = {}
        for name, column in self.lists.items():
            sizes = np.diff(column.offsets)
            inside = np.repeat(keep, sizes)
            offsets = np.concatenate(([0], np.cumsum(sizes[keep]))).astype(np.int64)
            lists[name] = Lists(column.values[inside], offsets, column.valid[keep])
        return Batch(
            n=int(keep.sum()),
            ints={k: Ints(v.values[keep], v.valid[keep]) for k, v in self.ints.items()},
            bools={k: v[keep] for k, v in self.bools.items()},
            texts={k: v[keep] for k, v in self.texts.items()},
            lists=lists,
            run=self.run,
            floats={k: v[keep] for k, v in self.floats.items()},
        )
