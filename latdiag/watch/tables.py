"""The sums of closed bins as columns: what changes are looked for in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.model.components import COMPONENTS
from latdiag.watch.bins import BIN_NS, Bin, Key

_QUEUE = COMPONENTS.index("queue")


@dataclass(frozen=True, slots=True)
class Table:
    """The sums of a key, (bins, components); ``running``: requests that were served at once."""

    number: NDArray[np.int64]
    early: NDArray[np.float64]
    timed: NDArray[np.float64]
    stream: NDArray[np.float64]
    steps: NDArray[np.float64]
    running: NDArray[np.float64]


def table_of(several: Sequence[Bin], key: Key) -> Table:
    n, width = len(several), len(COMPONENTS)
    early, timed, stream, steps = (np.zeros((n, width)) for _ in range(4))
    running = np.zeros(n)
    for at, each in enumerate(several):
        if (cell := each.cells.get(key)) is not None:
            early[at], timed[at] = cell.early, cell.timed
            stream[at], steps[at] = cell.stream, cell.steps
            running[at] = float(cell.whole.sum() - cell.whole[_QUEUE]) / BIN_NS
    number = np.array([each.number for each in several], dtype=np.int64)
    return Table(number, early, timed, stream, steps, running)


def sizes_of(several: Sequence[Bin], model: str) -> NDArray[np.float64]:
    """Mean tokens of a prompt in each bin, NaN where there is none."""
    cells = [each.cells.get(("model", model, "")) for each in several]
    return np.array(
        [one.prompt / one.prompts if one is not None and one.prompts else np.nan for one in cells]
    )
