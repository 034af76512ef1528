"""Spans of servers that stacks know, joined to the requests that they are of.

Nothing here compares the instants of two senders: a span is joined by the ids that it bears.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from latdiag.stacks.signal import Role, Signal, Stack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
#: A chain of parents longer than this is a circle.
_DEEP = 32


@dataclass(frozen=True, slots=True)
class Requests:
    """What a request may be joined by; one entry a request, None where it lacks one.
    ``span_id``: of the client's own span, which is above the servers'."""

    trace_id: Sequence[str | None]
    span_id: Sequence[str | None]
    request_id: Sequence[str | None]
    response_id: Sequence[str | None]


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

    def select(self, rows: NDArray[Any]) -> Spans:
        """These spans alone, in the given order; parents are looked up anew."""
        import numpy as np

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


def read(batches: Iterable[Said], stacks: Sequence[Stack]) -> Spans:
    """All spans of the batches (columns ``COLUMNS``, names that ``known_name`` matches)."""
    import numpy as np

    wanted = [s for stack in stacks for s in stack.signals if s.kind == "attribute"]
    numbers = sorted({s.foreign for s in wanted} | {r for st in stacks for r in st.ranks})
    words = sorted(
        {SCOPE}
        | {key.attribute for st in stacks for key in st.keys}
        | {role.attribute[0] for st in stacks for role in st.roles if role.attribute}
    )
    pieces = [_piece(said, numbers, words) for said in batches]
    if not pieces:
        pieces = [_nothing(numbers, words)]
    joined: dict[str, Any] = {
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
        values={name: joined[f"#{name}"] for name in numbers},
        texts={name: joined[f"={name}"] for name in words},
        senders=tuple(senders.tolist()),
        stacks=tuple(stacks),
    )


def _piece(said: Said, numbers: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
    columns = said.columns
    found: dict[str, Any] = {"name": columns.texts["foreign_name"]}
    for name in ("trace_id", "span_id", "parent_span_id", "replica"):
        found[name] = columns.texts[name]
    found |= {"start": columns.ints["start_ns"].values, "end": columns.ints["end_ns"].values}
    found |= {f"#{name}": said.labels.number(name) for name in numbers}
    return found | {f"={name}": said.labels.of(name) for name in words}


def _nothing(numbers: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
    import numpy as np

    texts = ("name", "trace_id", "span_id", "parent_span_id", "replica")
    found: dict[str, Any] = {name: np.zeros(0, dtype=object) for name in texts}
    found |= {name: np.zeros(0, dtype=np.int64) for name in ("start", "end")}
    found |= {f"#{name}": np.zeros(0) for name in numbers}
    return found | {f"={name}": np.zeros(0, dtype=object) for name in words}


# ---------------------------------------------------------------------- whose spans they are
def join(spans: Spans, requests: Requests) -> Spans:
    """The spans of these requests alone: each once, with stack, parent, role and signal.

    A whole trace goes to the request that one of its spans names: by trace id, else by an id
    that a stack's key attribute holds. An id that two requests bear joins nothing.
    """
    import numpy as np

    spans = _of_stacks(spans)
    row = _looked_up(spans.trace, requests.trace_id)
    counts = {"trace_id": len(np.unique(row[row >= 0]))}
    for held in ("request_id", "response_id"):
        named = _by_key(spans, held, getattr(requests, held))
        taken = set(row[row >= 0].tolist())
        new = {
            trace: at
            for trace, at in zip(spans.trace[named >= 0], named[named >= 0], strict=True)
            if at not in taken
        }
        added = np.array([new.get(trace, -1) for trace in spans.trace], dtype=np.int64)
        row = np.where(row >= 0, row, added) if len(row) else row
        counts[held] = len(set(new.values()))
    spans = replace(spans, row=row)
    spans = spans.select(np.flatnonzero(row >= 0))
    # Content decides the order, so that the order of arrival does not.
    order = np.lexsort(
        (spans.name.astype(str), spans.span.astype(str), spans.end, spans.start, spans.row)
    )
    spans = spans.select(order)
    once = _once(spans)
    duplicates = spans.n - len(once)
    spans = _with_parents(spans.select(once), requests)
    spans = _with_signals(replace(spans, role=_roles(spans)))
    return replace(spans, joined_by=counts, duplicates=duplicates)


def _of_stacks(spans: Spans) -> Spans:
    """With the stack of each sender: the one that knows most of its spans' names, or its scope."""
    import numpy as np

    votes = np.zeros((len(spans.senders), len(spans.stacks)), dtype=np.int64)
    names, codes = np.unique(spans.name.astype(str), return_inverse=True)
    scopes, scope_codes = np.unique(spans.texts[SCOPE].astype(str), return_inverse=True)
    for at, stack in enumerate(spans.stacks):
        knows = np.array([_signals_of(stack, name) != [] for name in names], dtype=bool)
        marks = [re.compile(m.pattern) for m in stack.marks if m.where == "scope"]
        says = np.array([any(m.fullmatch(s) for m in marks) for s in scopes], dtype=bool)
        weight = knows[codes] * (1 + 2 * says[scope_codes])
        votes[:, at] = np.bincount(spans.sender, weights=weight, minlength=len(spans.senders))
    if not votes.size:
        return spans
    best = np.where(votes.max(axis=1) > 0, votes.argmax(axis=1), -1)
    return replace(spans, stack=best[spans.sender])


def _signals_of(stack: Stack, name: str) -> list[Signal]:
    return [
        signal
        for signal in stack.signals
        if signal.kind == "span"
        and (name.startswith(signal.foreign) if signal.prefix else name == signal.foreign)
    ]


def _looked_up(values: NDArray[np.object_], known: Sequence[str | None]) -> NDArray[np.int64]:
    """For each value the only place in ``known`` that holds it, -1 if none or several."""
    import numpy as np

    places: dict[str, int] = {}
    for at, value in enumerate(known):
        if value:
            places[value] = at if value not in places else -1
    return np.array([places.get(value, -1) for value in values], dtype=np.int64)


def _by_key(spans: Spans, held: str, known: Sequence[str | None]) -> NDArray[np.int64]:
    import numpy as np

    found = np.full(spans.n, -1, dtype=np.int64)
    for at, stack in enumerate(spans.stacks):
        for key in stack.keys:
            if key.holds != held:
                continue
            mine = np.flatnonzero((spans.stack == at) & (found < 0))
            texts = spans.texts[key.attribute][mine]
            plain = _looked_up(texts, known)
            if key.ending:
                end = re.compile(f"(?:{key.ending})\\Z")
                cut = np.array([t and end.sub("", t) for t in texts], dtype=object)
                plain = np.where(plain >= 0, plain, _looked_up(cut, known))
            found[mine] = plain
    return found


def _once(spans: Spans) -> NDArray[np.int64]:
    """Every span once: of those with one id in one trace, the first in the sorted order."""
    import numpy as np

    seen: set[tuple[int, str]] = set()
    keep = []
    for at, key in enumerate(zip(spans.row.tolist(), spans.span.tolist(), strict=True)):
        if key not in seen:
            seen.add(key)
            keep.append(at)
    return np.array(keep, dtype=np.int64)


def _with_parents(spans: Spans, requests: Requests) -> Spans:
    import numpy as np

    place = {key: i for i, key in enumerate(zip(spans.row.tolist(), spans.span, strict=True))}
    parent = [
        place.get(key, -1) if key[1] else -1
        for key in zip(spans.row.tolist(), spans.above, strict=True)
    ]
    found = np.array(parent, dtype=np.int64)
    found = np.where(found == np.arange(spans.n), -1, found)
    lost = [
        at < 0 and bool(above) and above != requests.span_id[row]
        for at, above, row in zip(found.tolist(), spans.above, spans.row.tolist(), strict=True)
    ]
    return replace(spans, parent=found, lost=np.array(lost, dtype=bool))


# ---------------------------------------------------------------------- what they mean
def _roles(spans: Spans) -> NDArray[np.object_]:
    """The role in which each span was made: its own, or that of the nearest span above it, or,
    where those are lost, the one that most spans of its sender have."""
    import numpy as np

    roles = np.full(spans.n, None, dtype=object)
    for at, stack in enumerate(spans.stacks):
        mine = spans.stack == at
        for rule in stack.roles:
            fits = mine & (roles == None) & _named(spans, rule)  # noqa: E711 - elementwise
            if rule.leg:
                fits &= _leg(spans, rule, stack)
            elif rule.attribute is not None:
                fits &= spans.texts[rule.attribute[0]] == rule.attribute[1]
            roles[fits] = rule.role
    above = spans.parent.copy()
    for _ in range(_DEEP):
        open_ = (roles == None) & (above >= 0)  # noqa: E711 - elementwise
        if not open_.any():
            break
        roles[open_] = roles[above[open_]]
        above[open_] = spans.parent[above[open_]]
    return _or_of_sender(roles, spans)


def _or_of_sender(roles: NDArray[np.object_], spans: Spans) -> NDArray[np.object_]:
    import numpy as np

    open_ = roles == None  # noqa: E711 - elementwise
    words, codes = np.unique(roles[~open_].astype(str), return_inverse=True)
    votes = np.zeros((len(spans.senders), len(words) + 1), dtype=np.int64)
    np.add.at(votes, (spans.sender[~open_], codes), 1)
    usual = np.array([*words.tolist(), "unified"], dtype=object)
    most = np.where(votes.any(axis=1), votes.argmax(axis=1), len(words))
    return np.where(open_, usual[most[spans.sender]], roles)


def _named(spans: Spans, rule: Role) -> NDArray[np.bool_]:
    import numpy as np

    names, codes = np.unique(spans.name.astype(str), return_inverse=True)
    good = np.array([name.startswith(rule.span) for name in names], dtype=bool)
    return good[codes] if len(codes) else np.zeros(0, dtype=bool)


def _leg(spans: Spans, rule: Role, stack: Stack) -> NDArray[np.bool_]:
    """Spans of the servers that make only the first token (``first``), or the rest.

    A server is known by most of its traces: one that has lost its other half says it too.
    """
    import numpy as np

    first = next(r for r in stack.roles if r.leg == "first" and r.span == rule.span)
    assert first.attribute is not None
    inside = _named(spans, rule) & (spans.stack == spans.stacks.index(stack))
    one = inside & (spans.texts[first.attribute[0]] == first.attribute[1])
    rest = inside & ~one
    rows = int(spans.row.max()) + 1 if spans.n else 0
    made = np.full((2, rows), -1, dtype=np.int64)
    for half, which in zip(made, (one, rest), strict=True):
        half[spans.row[which]] = spans.sender[which]
    both = (made >= 0).all(axis=0) & (made[0] != made[1])
    votes = np.zeros((len(spans.senders), 2), dtype=np.int64)
    for column, which in enumerate((one, rest)):
        chosen = which & both[spans.row]
        votes[:, column] = np.bincount(spans.sender[chosen], minlength=len(spans.senders))
    is_first = votes[:, 0] > votes[:, 1]
    is_second = votes[:, 1] > votes[:, 0]
    chosen_senders: NDArray[np.bool_] = is_first if rule.leg == "first" else is_second
    found: NDArray[np.bool_] = inside & chosen_senders[spans.sender]
    return found


def _with_signals(spans: Spans) -> Spans:
    import numpy as np

    table: list[Signal] = []
    found = np.full(spans.n, -1, dtype=np.int64)
    keys = np.array(
        [f"{s}|{r}|{n}" for s, r, n in zip(spans.stack, spans.role, spans.name, strict=True)],
        dtype=str,
    )
    words, first, codes = np.unique(keys, return_index=True, return_inverse=True)
    place = np.full(len(words), -1, dtype=np.int64)
    for code, at in enumerate(first.tolist()):
        stack, role = spans.stacks[int(spans.stack[at])], str(spans.role[at])
        meant = [s for s in _signals_of(stack, spans.name[at]) if role in (s.roles or (role,))]
        if meant and spans.stack[at] >= 0:
            place[code] = len(table)
            table.append(meant[0])
    found = place[codes] if spans.n else found
    return replace(spans, signal=found, signals=tuple(table))
