"""Which requests belong to which window of scrapes: edges against the client's own attempts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.metrics.deltas import Deltas, Sample
from latdiag.attribution.metrics.traffic import Own
from latdiag.load.plan import GET, LOADED_PATH, PATH
from latdiag.measurement.frame import Frame
from latdiag.model.records import Outcome
from latdiag.stacks.catalogue import METRIC_KINDS, selector
from latdiag.stacks.signal import MetricRole, Signal

#: The stages of a probe with requests that no engine sees.
_PATHS = (PATH, LOADED_PATH)
#: Failures that no engine has counted as a request that it finished.
_UNSEEN = (Outcome.REFUSED, Outcome.DNS, Outcome.TLS, Outcome.RATE_LIMITED)


@dataclass(frozen=True, slots=True)
class Window:
    """The scrapes of all servers from an edge to another. ``name``: the scenario that lies
    between, empty for a load."""

    name: str
    begin: str
    end: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Attempts:
    """Everything that was sent to an engine; an entry each, int64 ns. ``served``: it succeeded.
    ``unclear``: it failed, and a server may have finished it all the same. ``workload``: it is
    no warm-up. ``clocks``: how many the instants are of. ``refused_done``, ``refused_ns``: when
    those ended that were refused, and how long each took: they had no token, and a server may have
    counted them."""

    sent: NDArray[np.int64]
    done: NDArray[np.int64]
    served: NDArray[np.bool_]
    unclear: NDArray[np.bool_]
    workload: NDArray[np.bool_]
    clocks: int
    refused_done: NDArray[np.int64]
    refused_ns: NDArray[np.int64]

    def refused(self, at: Edges) -> tuple[int, int]:
        """(how many were refused in a window, ns that these took together)."""
        mine = at.holds(self.refused_done)
        return int(mine.sum()), int(self.refused_ns[mine].sum())


@dataclass(frozen=True, slots=True)
class Edges:
    """Between which instants all servers of a window were scraped at its beginning, and at its
    end; ns."""

    begin: tuple[int, int]
    end: tuple[int, int]

    def holds(self, done: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The instants in the window, as wide as the scrapes are."""
        found: NDArray[np.bool_] = (done > self.begin[0]) & (done <= self.end[1])
        return found


def windows(samples: Iterable[Sample]) -> list[Window]:
    """The windows that the edges of scrapes make: ``begin`` to ``end`` of each load, in time
    order, and ``NAME.before`` to ``NAME.after`` of each scenario of a capture, by name."""
    named: dict[str, list[Sample]] = {}
    live: list[Sample] = []
    for row in samples:
        name, dot, edge = row.edge.rpartition(".")
        if dot and edge in ("before", "after"):
            named.setdefault(name, []).append(row)
        else:
            live.append(row)
    found = [Window("", "begin", "end", tuple(rows)) for rows in _loads(live)]
    return found + [
        Window(name, f"{name}.before", f"{name}.after", tuple(rows))
        for name, rows in sorted(named.items())
    ]


def _loads(rows: Sequence[Sample]) -> list[list[Sample]]:
    """The scrapes of each load: a beginning after an end is that of the next."""
    marks = sorted({(row.at_ns, row.edge) for row in rows if row.edge in ("begin", "end")})
    steps = pairwise(marks)
    cuts = [at for (_, before), (at, edge) in steps if (before, edge) == ("end", "begin")]
    found: list[list[Sample]] = [[] for _ in range(len(cuts) + 1)]
    for row in rows:
        found[bisect_right(cuts, row.at_ns)].append(row)
    return found if marks else []


def edges(deltas: Deltas) -> Edges | None:
    """When the servers of a window were scraped; None where none was at both edges."""
    if not deltas.rows:
        return None
    begins = [row.begin_ns for row in deltas.rows]
    ends = [row.end_ns for row in deltas.rows]
    return Edges((min(begins), max(begins)), (min(ends), max(ends)))


def attempts(frame: Frame) -> Attempts:
    """All attempts that reached for an engine."""
    refused = (frame.outcome == Outcome.HTTP_ERROR.value) & (frame.status != 0)
    refused &= frame.status < 500
    refused |= np.isin(frame.outcome, [each.value for each in _UNSEEN])
    path = np.isin(frame.stage, _PATHS) & (frame.scenario == GET)
    keep = (frame.begun & ~path & ~refused).astype(bool)
    ended = np.where(frame.ended, frame.done, frame.sent)
    gone = (frame.begun & refused & ~path).astype(bool)
    return Attempts(
        sent=frame.sent[keep],
        done=np.maximum(ended, frame.sent)[keep],
        served=frame.ok[keep],
        unclear=~frame.ok[keep],
        workload=frame.workload[keep],
        clocks=len(set(frame.clock_id[keep].tolist())),
        refused_done=ended[gone],
        refused_ns=np.maximum(ended - frame.sent, 0)[gone],
    )


def own(at: Edges, sent: Attempts) -> Own:
    """The client's side of a window. In flight counts as well what failed, and what ended
    between the scrapes of one edge."""
    inside = (sent.done > at.begin[1]) & (sent.done <= at.end[0])
    astride = (sent.sent < at.begin[1]) & (sent.done > at.begin[0])
    astride |= (sent.sent < at.end[1]) & (sent.done > at.end[0])
    unsure = (sent.served & astride) | (sent.unclear & (inside | astride))
    return Own(int((sent.served & inside).sum()), int(unsure.sum()))


def with_roles(
    samples: Iterable[Sample], signals: Sequence[Signal], by_count: Sequence[MetricRole] = ()
) -> list[Sample]:
    """The samples of servers whose role nobody named, with the one that their labels name, or
    else what they have counted (``by_count``).

    Labels name a role where every signal that asks for them is of that one role. A role that no
    signal knows (a recording's word for its only server) is none.
    """
    known = {role for signal in signals for role in signal.roles}
    rows = [row if row.role in known else replace(row, role="") for row in samples]
    asked: dict[str, list[tuple[dict[str, str], str]]] = {}
    for signal in signals:
        if signal.kind in METRIC_KINDS and len(signal.roles) == 1:
            family, labels = selector(signal.foreign)
            if labels:
                asked.setdefault(family, []).append((labels, signal.roles[0]))
    named: dict[str, set[str]] = {}
    for row in rows:
        for labels, role in asked.get(row.name, ()) if not row.role else ():
            if labels.items() <= dict(row.labels).items():
                named.setdefault(row.replica, set()).add(role)
    sure = _counted_roles(rows, by_count)
    sure |= {replica: roles.pop() for replica, roles in named.items() if len(roles) == 1}
    return [
        replace(row, role=sure[row.replica]) if not row.role and row.replica in sure else row
        for row in rows
    ]


def _counted_roles(rows: Sequence[Sample], by_count: Sequence[MetricRole]) -> dict[str, str]:
    """The role of each replica whose counts fit that one alone."""
    asked = {text: selector(text) for each in by_count for text in (*each.above, *each.zero)}
    families = {family for family, _ in asked.values()}
    most: dict[tuple[str, str], float] = {}
    for row in rows:
        for text, (family, labels) in asked.items() if row.name in families else ():
            if row.name == family and labels.items() <= dict(row.labels).items():
                key = (row.replica, text)
                most[key] = max(most.get(key, 0.0), row.value)
    found: dict[str, str] = {}
    for replica in {replica for replica, _ in most}:
        fits = [
            each.role
            for each in by_count
            if all(most.get((replica, text), 0.0) > 0 for text in each.above)
            and all(most.get((replica, text), -1.0) == 0 for text in each.zero)
        ]
        if len(fits) == 1:
            found[replica] = fits[0]
    return found
