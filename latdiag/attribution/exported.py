"""The parts of requests as the traces of an earlier export state them, to the nanosecond."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latdiag.attribution.accounts import Account, Rank
from latdiag.attribution.parts import Parts, Source
from latdiag.measurement.frame import Frame
from latdiag.model import span_names as names
from latdiag.model.components import COMPONENTS, in_time_order

if TYPE_CHECKING:
    from latdiag.store.evidence import Said

#: (request, instant of its end): another attempt of the request ends at another.
_Key = tuple[str, int]


class Reader:
    """Takes rows of evidence as they go by."""

    columns = ("request_id", "end_ns", "foreign_value", "labels", "grade")
    kinds = ("attribute",)

    def __init__(self) -> None:
        self._parts: dict[_Key, dict[str, int]] = {}
        self._sources: dict[str, Source] = {}
        self._bounded: set[_Key] = set()

    def wanted(self, name: str) -> bool:
        """Whether these are rows of an export, of components that there are."""
        label = name.removeprefix(names.PART)
        return label != name and set(label.split("+")) <= set(COMPONENTS)

    def add(self, said: Said) -> None:
        texts, ends = said.columns.texts, said.columns.ints["end_ns"]
        rows = zip(
            texts["foreign_name"], texts["request_id"], ends.values.tolist(),
            texts["foreign_value"], texts["grade"], said.labels.of("evidence"),
            said.labels.of("bounded"), strict=True,
        )  # fmt: skip
        for name, request, end, value, grade, evidence, bounded in rows:
            label = name.removeprefix(names.PART)
            ns = _whole(value)
            if ns is None or request is None:
                continue
            self._parts.setdefault((request, end), {})[label] = ns
            if bounded is not None:
                self._bounded.add((request, end))
            members = tuple(label.split("+"))
            merged = members if len(members) > 1 else ()
            source = Source(grade if grade in _GRADES else "E", evidence or "", merged)
            self._sources.setdefault(label, source)

    def account(self, frame: Frame) -> Account | None:
        """None where no trace of an export is in the run. Requests whose parts do not add up to
        their time are left out."""
        if not self._parts:
            return None
        answered = frame.answered()
        total = answered.done - answered.begin
        keys = list(zip(answered.request_id, answered.done.tolist(), strict=True))
        stated = [self._parts.get(key, {}) for key in keys]
        sums = np.array([sum(each.values()) for each in stated], dtype=np.int64)
        at = np.flatnonzero(
            (sums == total) & np.array([bool(each) for each in stated], dtype=bool)
        )
        if not len(at):
            return None
        rows, chosen = answered.select(at), [stated[place] for place in at.tolist()]
        columns = {
            label: np.array([each.get(label, 0) for each in chosen], dtype=np.int64)
            for label in self._sources
        }
        named = {label.partition("+")[0]: column for label, column in columns.items()}
        if len(named) < len(columns):  # two exports divided the time differently
            return None
        parts = Parts(
            total=total[at],
            ttft=rows.first - rows.begin,
            parts=in_time_order(named),
            delayed=np.array([keys[place] in self._bounded for place in at.tolist()], dtype=bool),
            left_out=answered.n - len(at),
            sources={label.partition("+")[0]: one for label, one in self._sources.items()},
            row=rows.row,
        )
        return Account(Rank.EXPORTED, parts)


_GRADES = tuple("ABCDE")


def _whole(text: str | None) -> int | None:
    """An int64 that ``text`` states."""
    try:
        number = int(text or "")
    except ValueError:
        return None
    return number if abs(number) < 2**62 else None
