"""Partitions by different evidence in the same classes: only those that all of them can state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.parts import Parts, Source
from latdiag.model.components import COMPONENTS

_REST = "unattributed"
#: Whose time a partition holds that does not name a component, where no other partition has it
#: together with one that is named: the first of these that it names.
#: A link between steps is inside of decode; what lies behind the first hop and before the first
#: token is inside of whatever is said to lie there.
_HELD_BY = {
    "client": ("network",),
    "network": ("gateway", "frontend", "queue", "prefill"),
    "gateway": ("frontend", "queue", "prefill", "network"),
    "frontend": ("prefill", "queue", "gateway"),
    "queue": ("prefill", "frontend", "gateway"),
    "prefill": ("queue", "frontend", "gateway"),
    "interconnect": ("decode", "prefill"),
    "decode": ("interconnect",),
}


def unified(partitions: Sequence[Parts]) -> list[tuple[str, ...]]:
    """The finest classes of components that every partition is a refinement of, in time order.

    What one of them merges is merged in all. A component that one of them does not name at all is
    not taken for nothing there: it is merged with the one that holds its time, which is one that
    another partition could not part it from, if there is one. ``unattributed`` is what is left
    over, so where it is not named it is 0.
    """
    group = {name: name for name in COMPONENTS}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    said = [
        {name: parts.sources[name].members or (name,) for name in parts.parts}
        for parts in partitions
    ]
    stated = [{member for members in each.values() for member in members} for each in said]
    everywhere = set().union(*stated) if stated else set()
    for each, here in zip(said, stated, strict=True):
        for members in each.values():
            for member in members[1:]:
                group[root(member)] = root(members[0])
        for name in everywhere - here - {_REST}:
            group[root(name)] = root(_host(name, here, [m for e in said for m in e.values()]))
    classes: dict[str, list[str]] = {}
    for name in COMPONENTS:
        if name in everywhere:
            classes.setdefault(root(name), []).append(name)
    return [tuple(members) for members in classes.values()]


def _host(name: str, here: Collection[str], classes: Iterable[tuple[str, ...]]) -> str:
    """Which of the components that are named ``here`` holds the time of one that is not.
    ``classes``: of all partitions."""
    together = {member for members in classes if name in members for member in members}
    hosts = [other for other in (*_HELD_BY[name], *COMPONENTS) if other in here]
    return next((other for other in hosts if other in together), hosts[0])


def pooled(partitions: Sequence[Parts], classes: Sequence[tuple[str, ...]]) -> Parts:
    """All rows, partition by partition, in these classes; each under its first member.

    Every segment of every partition is a repetition of its own.
    """
    partitions = list(partitions)
    sizes = [len(parts.total) for parts in partitions]
    keys = {members[0]: members for members in classes}
    columns = {
        key: np.concatenate([_column(parts, members) for parts in partitions])
        for key, members in keys.items()
    }
    segments, before = [], 0
    for parts, size in zip(partitions, sizes, strict=True):
        own = np.zeros(size, dtype=np.int64) if parts.segment is None else parts.segment
        places = np.unique(own, return_inverse=True)[1].astype(np.int64)
        # Rows of one repetition stand together, in time order.
        segments.append(places + before)
        before += int(places.max(initial=-1)) + 1
    segment = np.concatenate(segments)
    order = np.argsort(segment, kind="stable")
    slack = {key: _slack(partitions, members) for key, members in keys.items()}
    draws = {
        key: found[:, order]
        for key, members in keys.items()
        if (found := _draws(partitions, members)) is not None
    }
    return Parts(
        total=np.concatenate([parts.total for parts in partitions])[order],
        ttft=np.concatenate([parts.ttft for parts in partitions])[order],
        parts={key: column[order] for key, column in columns.items()},
        delayed=np.concatenate([parts.delayed for parts in partitions])[order],
        left_out=sum(parts.left_out for parts in partitions),
        sources={key: _source(partitions, members, keys) for key, members in keys.items()},
        draws=draws,
        slack={key: (less[order], more[order]) for key, (less, more) in slack.items()},
        segment=segment[order],
    )


def _named(parts: Parts, members: tuple[str, ...]) -> list[str]:
    """The parts of a partition that lie in a class."""
    return [name for name in parts.parts if name in members]


def _column(parts: Parts, members: tuple[str, ...]) -> NDArray[np.int64]:
    found = np.zeros(len(parts.total), dtype=np.int64)
    for name in _named(parts, members):
        found += parts.parts[name]
    return found


def _slack(
    partitions: Sequence[Parts], members: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whatever is open for a member is open for its class: some may move within, unseen."""
    ends = []
    for end in (0, 1):
        pieces = [
            sum(
                (p.slack[n][end] for n in _named(p, members) if n in p.slack),
                np.zeros(len(p.total)),
            )
            for p in partitions
        ]
        ends.append(np.concatenate(pieces))
    return ends[0], ends[1]


def _draws(partitions: Sequence[Parts], members: tuple[str, ...]) -> NDArray[np.float64] | None:
    """(draws, rows); a partition that rests on no law is the same in each draw."""
    drawn = [
        [(name, parts.draws.get(name)) for name in _named(parts, members)] for parts in partitions
    ]
    times = max((len(d) for each in drawn for _, d in each if d is not None), default=0)
    if not times:
        return None
    pieces = []
    for parts, each in zip(partitions, drawn, strict=True):
        found = np.zeros((times, len(parts.total)))
        for name, draws in each:
            found += parts.parts[name] if draws is None else draws[np.arange(times) % len(draws)]
        pieces.append(found)
    return np.concatenate(pieces, axis=1)


def _source(
    partitions: Sequence[Parts], members: tuple[str, ...], keys: dict[str, tuple[str, ...]]
) -> Source:
    """The worst grade of what lies in the class, and all that it rests on."""
    found = [parts.sources[n] for parts in partitions for n in _named(parts, members)]
    outside = (s.settles for s in found if s.settles and s.settles not in members)
    settles = next((k for s in outside for k, held in keys.items() if s in held), None)
    if settles is None and members[0] != _REST:
        settles = _REST
    return Source(
        max((each.grade for each in found), default="E"),
        "; ".join(dict.fromkeys(each.evidence for each in found)),
        members if len(members) > 1 else (),
        settles,
    )
