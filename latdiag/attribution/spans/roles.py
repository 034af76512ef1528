"""In which role a server made each span, and what it means in that role."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.spans.columns import Spans, signals_of
from latdiag.stacks.signal import Role, Signal, Stack

#: A chain of parents longer than this is a circle.
_DEEP = 32


def roles(spans: Spans) -> NDArray[np.object_]:
    """The role in which each span was made: its own, or that of the nearest span above it, or,
    where those are lost, the one that most spans of its sender have."""
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
    open_ = roles == None  # noqa: E711 - elementwise
    words, codes = np.unique(roles[~open_].astype(str), return_inverse=True)
    votes = np.zeros((len(spans.senders), len(words) + 1), dtype=np.int64)
    np.add.at(votes, (spans.sender[~open_], codes), 1)
    usual = np.array([*words.tolist(), "unified"], dtype=object)
    most = np.where(votes.any(axis=1), votes.argmax(axis=1), len(words))
    return np.where(open_, usual[most[spans.sender]], roles)


def _named(spans: Spans, rule: Role) -> NDArray[np.bool_]:
    names, codes = np.unique(spans.name.astype(str), return_inverse=True)
    good = np.array([name.startswith(rule.span) for name in names], dtype=bool)
    return good[codes] if len(codes) else np.zeros(0, dtype=bool)


def _leg(spans: Spans, rule: Role, stack: Stack) -> NDArray[np.bool_]:
    """Spans of the servers that make only the first token (``first``), of those that make the
    rest (``second``), and of the latter those of traces without such a one (``alone``), where
    most have none.

    A server is known by most of its traces: one that has lost its other half says it too.
    """
    first = next(r for r in stack.roles if r.leg == "first" and r.span == rule.span)
    assert first.attribute is not None
    inside = _named(spans, rule) & (spans.stack == spans.stacks.index(stack))
    one = inside & (spans.texts[first.attribute[0]] == first.attribute[1])
    rest = inside & ~one
    rows = int(spans.row.max()) + 1 if spans.n else 0
    made = np.full((2, rows), -1, dtype=np.int64)
    same = np.full((2, rows), None, dtype=object)
    for half, words, which in zip(made, same, (one, rest), strict=True):
        half[spans.row[which]] = spans.sender[which]
        if first.same:
            words[spans.row[which]] = spans.texts[first.same][which]
    both = (made >= 0).all(axis=0) & (made[0] != made[1]) & (same[0] == same[1])
    votes = np.zeros((len(spans.senders), 2), dtype=np.int64)
    for column, which in enumerate((one, rest)):
        chosen = which & both[spans.row]
        votes[:, column] = np.bincount(spans.sender[chosen], minlength=len(spans.senders))
    is_first = (votes[:, 0] > votes[:, 1])[spans.sender]
    is_second = (votes[:, 1] > votes[:, 0])[spans.sender]
    paired = np.zeros(rows, dtype=bool)
    paired[spans.row[inside & is_first & one]] = True
    met = paired[spans.row] if rows else np.zeros(spans.n, dtype=bool)
    # Where most of a server's traces have both halves, the others have lost one.
    n = len(spans.senders)
    of_all = np.bincount(spans.sender[inside], minlength=n)
    of_met = np.bincount(spans.sender[inside & met], minlength=n)
    own = is_second & ~met & (2 * of_met <= of_all)[spans.sender]
    told = {"first": is_first, "second": is_second & ~own, "alone": own}
    found: NDArray[np.bool_] = inside & told[rule.leg]
    return found


def with_signals(spans: Spans) -> Spans:
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
        meant = [s for s in signals_of(stack, spans.name[at]) if role in (s.roles or (role,))]
        if meant and spans.stack[at] >= 0:
            place[code] = len(table)
            table.append(meant[0])
    found = place[codes] if spans.n else found
    return replace(spans, signal=found, signals=tuple(table))
