"""A slice of a run's rows as numpy columns: what every reader of a run works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

    ``offsets`` has length n + 1 and begins with 0; ``valid`` is False where the whole list is
    null (then it is empty too). Values are int64, int32, int8 or bool as the schema declares.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """At most 10,000 rows. Which columns are there depends on what was asked for."""

    n: int
    ints: dict[str, Ints]
    bools: dict[str, NDArray[np.bool_]]
    texts: dict[str, NDArray[np.object_]]
    lists: dict[str, Lists]

    def select(self, keep: NDArray[np.bool_]) -> Batch:
        """The rows where ``keep`` (length n) is True, in order."""
        import numpy as np

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
        )
