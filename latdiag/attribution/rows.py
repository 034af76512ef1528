"""Accounts of some of the requests, and two of the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.parts import Parts

#: Of so many of the stronger's requests the weaker must know, to split the sums of all of them.
_MOST = 0.9


def of_the_same_rows(strong: Parts, weak: Parts) -> tuple[Parts, Parts] | None:
    """Both, of what both know; None where the weaker lacks too much, or is of another interval."""
    if strong.row is None or weak.row is None or strong.interval != weak.interval:
        return None
    shared = np.isin(strong.row, weak.row)
    if not len(strong.row) or shared.mean() < _MOST:
        return None
    ours = strong if shared.all() else selected(strong, np.flatnonzero(shared))
    assert ours.row is not None
    order = np.argsort(weak.row, kind="stable")
    return ours, selected(weak, order[np.searchsorted(weak.row[order], ours.row)])


def selected(parts: Parts, rows: NDArray[np.int64]) -> Parts:
    """These rows alone, in the given order; the others are left out, and counted."""

    def taken(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: taken(each) for name, each in value.items()}
        if isinstance(value, tuple):
            return tuple(taken(each) for each in value)
        return value[..., rows] if isinstance(value, np.ndarray) else value

    columns = {f.name: taken(getattr(parts, f.name)) for f in fields(parts)}
    kept = replace(parts, **columns)
    return replace(kept, left_out=parts.left_out + len(parts.total) - len(rows))
