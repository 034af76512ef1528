"""Sets of leaves as bits of an int64, so that a column of sets is a column of integers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from latdiag.model.components import COMPONENTS, LEAVES
from latdiag.stacks.signal import HIDDEN

#: bit of each leaf by name
BIT = {leaf.name: 1 << at for at, leaf in enumerate(LEAVES)}
#: all leaves of a component
MASK = {
    component: sum(BIT[leaf.name] for leaf in LEAVES if leaf.component == component)
    for component in COMPONENTS
}


def bits(leaves: Iterable[str]) -> int:
    """The set of these leaves."""
    found = 0
    for leaf in leaves:
        found |= BIT[leaf]
    return found


HIDDEN_BITS = bits(HIDDEN)


def visible(leaves: Iterable[str]) -> int:
    """Those of these leaves that may be seen alone."""
    return bits(leaves) & ~HIDDEN_BITS


def components(mask: int) -> tuple[str, ...]:
    """The components that have leaves in a set, in time order."""
    return tuple(name for name in COMPONENTS if MASK[name] & mask)


def sizes(masks: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many leaves each set has."""
    found = np.zeros(len(masks), dtype=np.int64)
    for at in range(len(LEAVES)):
        found += (masks >> at) & 1
    return found
