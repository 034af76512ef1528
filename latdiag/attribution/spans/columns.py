"""Spans of servers, of names that stacks know, as columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.stacks.signal import Signal, Stack

if TYPE_CHECKING:
    from latdiag.store.evidence import Said

COLUMNS = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "start_ns",
    "end_ns",
    "replica",
    "labels",
)
SCOPE = "otel.scope"
#: An instant that there is not.
NEVER = -(1 << 62)
#: Longer than any request: ten days. Later than any clock: the year 2200.
LONGEST_NS, _LATEST_NS = 864_000 * 10**9, 7_258_118_400 * 10**9


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of known names, one entry each. ``row``: the request that it is of, -1 if of none.
    ``parent``: index of its parent, -1 if that is not here; ``lost``: because it was lost, not
    because the client called it. ``sender``: index into ``senders``,
    ``stack`` into the stacks. ``signal``: index into ``signals``, -1 where its name means nothing
    in its role. ``values``: attributes of its stack's signals, NaN where it lacks one."""

    name: NDArray[np.object_]
    trace: NDArray[np.object_]
    span: NDArray[np.object_]
    above: NDArray[np.object_]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    sender: NDArray[np.int64]
    stack: NDArray[np.int64]
    row: NDArray[np.int64]
    parent: NDArray[np.int64]
    lost: NDArray[np.bool_]
    signal: NDArray[np.int64]
    role: NDArray[np.object_]
    values: dict[str, NDArray[np.float64]]
    texts: dict[str, NDArray[np.object_]]
    senders: tuple[str, ...] = ()
    stacks: tuple[Stack, ...] = ()
    signals: tuple[Signal, ...] = ()
    joined_by: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0

    @property
    def n(self) -> int:
        return len(self.name)

    @property
    def ranks(self) -> int:
        """How many ranks of a server the spans name: these compute each step together."""
        most = 0
        for stack in self.stacks:
            names = [name for name in stack.ranks if name in self.values]
            if names and self.n:
                columns = np.column_stack([self.values[name] for name in names])
                named = columns[~np.isnan(columns).all(axis=1)]
                most = max(most, len(np.unique(np.nan_to_num(named), axis=0)))
        return most

    def select(self, rows: NDArray[Any]) -> Spans:
        """These spans alone, in the given order; parents are looked up anew."""
        place = np.full(self.n + 1, -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        found = {
            f.name: column[rows]
            for f in fields(self)
            if not isinstance(column := getattr(self, f.name), tuple | dict | int)
        }
        found["parent"] = place[found["parent"]]
        return replace(
            self,
            **found,
            values={k: v[rows] for k, v in self.values.items()},
            texts={k: v[rows] for k, v in self.texts.items()},
        )


def known_name(stacks: Sequence[Stack]) -> re.Pattern[str]:
    """What the names of spans must match, at their beginning, to mean something to a stack."""
    names = [
        re.escape(signal.foreign) + ("" if signal.prefix else r"\Z")
        for stack in stacks
        for signal in stack.signals
        if signal.kind == "span"
    ]
    return re.compile("|".join(names) or r"\Z.")


class Reader:
    """Takes the spans of names that stacks know as a run's evidence goes by."""

    kinds = ("span",)
    columns = COLUMNS

    def __init__(self, stacks: Sequence[Stack], words: Sequence[str] = ()) -> None:
        """``words``: texts that are wanted beside those that the stacks name."""
        self._stacks = tuple(stacks)
        self._name = known_name(stacks)
        wanted = [s for stack in stacks for s in stack.signals if s.kind == "attribute"]
        self._numbers = sorted(
            {s.foreign for s in wanted} | {r for st in stacks for r in st.ranks}
        )
        self._words = sorted(
            {SCOPE, *words}
            | {key.attribute for st in stacks for key in st.keys}
            | {role.attribute[0] for st in stacks for role in st.roles if role.attribute}
            | {role.same for st in stacks for role in st.roles if role.same}
        )
        self._pieces: list[dict[str, NDArray[Any]]] = []

    def wanted(self, name: str) -> bool:
        return bool(name and self._name.match(name))

    def add(self, said: Said) -> None:
        self._pieces.append(_piece(said, self._numbers, self._words))

    def spans(self) -> Spans:
        """All spans so far."""
        pieces = self._pieces or [_nothing(self._numbers, self._words)]
        joined: dict[str, NDArray[Any]] = {
            name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]
        }
        senders, codes = np.unique(joined.pop("replica").astype(str), return_inverse=True)
        n = len(codes)
        none = np.full(n, -1, dtype=np.int64)
        return Spans(
            name=joined["name"],
            trace=joined["trace_id"],
            span=joined["span_id"],
            above=joined["parent_span_id"],
            start=joined["start"],
            end=np.maximum(joined["end"], joined["start"]),
            sender=codes.astype(np.int64),
            stack=none,
            row=none,
            parent=none,
            lost=np.zeros(n, dtype=bool),
            signal=none,
            role=np.full(n, None, dtype=object),
            values={name: joined[f"#{name}"] for name in self._numbers},
            texts={name: joined[f"={name}"] for name in self._words},
            senders=tuple(senders.tolist()),
            stacks=self._stacks,
        )


def read(batches: Iterable[Said], stacks: Sequence[Stack]) -> Spans:
    """All spans of the batches (columns ``COLUMNS``, names that ``known_name`` matches)."""
    reader = Reader(stacks)
    for said in batches:
        reader.add(said)
    return reader.spans()


def _piece(said: Said, numbers: Sequence[str], words: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The spans of a batch that say when they were."""
    columns = said.columns
    start, end = columns.ints["start_ns"], columns.ints["end_ns"]
    known = start.valid & end.valid & (start.values >= 0) & (start.values < _LATEST_NS)
    known &= (end.values >= 0) & (end.values < _LATEST_NS)
    known &= end.values - start.values < LONGEST_NS
    found = _columns_of(said, numbers, words)
    return {name: column[known] for name, column in found.items()}


def _columns_of(
    said: Said, numbers: Sequence[str], words: Sequence[str]
) -> dict[str, NDArray[Any]]:
    columns = said.columns
    found: dict[str, NDArray[Any]] = {"name": columns.texts["foreign_name"]}
    for name in ("trace_id", "span_id", "parent_span_id", "replica"):
        found[name] = columns.texts[name]
    found |= {"start": columns.ints["start_ns"].values, "end": columns.ints["end_ns"].values}
    found |= {f"#{name}": said.labels.number(name) for name in numbers}
    return found | {f"={name}": said.labels.of(name) for name in words}


def _nothing(numbers: Sequence[str], words: Sequence[str]) -> dict[str, NDArray[Any]]:
    texts = ("name", "trace_id", "span_id", "parent_span_id", "replica")
    found: dict[str, NDArray[Any]] = {name: np.zeros(0, dtype=object) for name in texts}
    found |= {name: np.zeros(0, dtype=np.int64) for name in ("start", "end")}
    found |= {f"#{name}": np.zeros(0) for name in numbers}
    return found | {f"={name}": np.zeros(0, dtype=object) for name in words}


def signals_of(stack: Stack, name: str) -> list[Signal]:
    """The signals of a stack that a span of this name may be."""
    return [
        signal
        for signal in stack.signals
        if signal.kind == "span"
        and (name.startswith(signal.foreign) if signal.prefix else name == signal.foreign)
    ]
