"""Rows of the table ``evidence`` as numpy columns: what servers stated, in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latdiag.store.arrays import to_batch
from latdiag.store.batch import Batch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of rows, flat: row i has ``names[codes[k]] = values[k]`` for k from
    ``offsets[i]`` up to ``offsets[i + 1]``."""

    offsets: NDArray[np.int64]
    codes: NDArray[np.int32]
    names: tuple[str, ...]
    values: NDArray[np.object_]

    def of(self, name: str) -> NDArray[np.object_]:
        """The label ``name`` of every row, None where a row lacks it."""
        import numpy as np

        found = np.full(len(self.offsets) - 1, None, dtype=object)
        if name in self.names:
            places = np.flatnonzero(self.codes == self.names.index(name))
            rows = np.searchsorted(self.offsets, places, side="right") - 1
            found[rows] = self.values[places]
        return found

    def number(self, name: str) -> NDArray[np.float64]:
        """The label as a number, NaN where it is none."""
        import numpy as np

        found = np.full(len(self.offsets) - 1, np.nan)
        texts = self.of(name)
        for row in np.flatnonzero(texts != None).tolist():  # noqa: E711 - elementwise
            try:
                found[row] = float(texts[row])
            except ValueError:
                pass
        return found


@dataclass(frozen=True, slots=True)
class Said:
    """Some rows. ``columns``: all but floats and labels; ``floats``: NaN where null."""

    n: int
    columns: Batch
    floats: dict[str, NDArray[np.float64]]
    labels: Labels


def to_said(record_batch: Any, kinds: tuple[str, ...], wanted: Callable[[str], bool]) -> Said:
    """The rows of some kinds with a wanted ``foreign_name``; both columns must be there."""
    import pyarrow as pa

    names = record_batch.schema.names
    chosen = record_batch.filter(_chosen(record_batch, kinds, wanted))
    plain = [i for i, c in enumerate(chosen.columns) if not _apart(c.type)]
    floats = {
        name: chosen.column(i).to_numpy(zero_copy_only=False)
        for i, name in enumerate(names)
        if pa.types.is_floating(chosen.column(i).type)
    }
    return Said(
        n=chosen.num_rows,
        columns=to_batch(chosen.select(plain)),
        floats=floats,
        labels=_labels(chosen.column("labels")) if "labels" in names else _none(chosen.num_rows),
    )


def _apart(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_map(kind) or pa.types.is_floating(kind))


def _chosen(record_batch: Any, kinds: tuple[str, ...], wanted: Callable[[str], bool]) -> Any:
    """Which rows to take: every distinct name is asked for once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pc.is_in(record_batch.column("kind"), value_set=pa.array(kinds))
    encoded = record_batch.column("foreign_name").dictionary_encode()
    words = encoded.dictionary.to_pylist()
    good = pa.array([i for i, word in enumerate(words) if wanted(word)], pa.int32())
    return pc.and_(kind, pc.is_in(encoded.indices, value_set=good))


def _labels(array: Any) -> Labels:
    import numpy as np

    offsets = np.asarray(array.offsets.to_numpy(zero_copy_only=False), dtype=np.int64)
    start, stop = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    encoded = array.keys.slice(start, stop - start).dictionary_encode()
    return Labels(
        offsets=offsets - start,
        codes=np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int32),
        names=tuple(encoded.dictionary.to_pylist()),
        values=np.array([*array.items.slice(start, stop - start).to_pylist(), None], object)[:-1],
    )


def _none(rows: int) -> Labels:
    import numpy as np

    empty = np.zeros(0, dtype=object)
    return Labels(np.zeros(rows + 1, dtype=np.int64), np.zeros(0, np.int32), (), empty)
