"""What the replies of a run stated of their own requests: times inside spans, and alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.accounts import Account, Rank
from latdiag.attribution.evidence import ReplyEvidence, ReplyTime
from latdiag.attribution.replies import columns, overheads
from latdiag.attribution.replies import explain as replied
from latdiag.measurement.frame import Frame
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.units import UNIT_NS, ms
from latdiag.stacks import catalogue
from latdiag.stacks.signal import Signal, Stack

if TYPE_CHECKING:
    from latdiag.attribution.parts import Parts

#: From here on those that are not told are not like those that are.
UNLIKE = 0.2


#: What replies must tell apart to be better than what a probe has learned.
_PHASES = ("queue", "prefill")


def reader() -> columns.Reader:
    """Reads what replies state of times that a stack knows, alone or inside spans."""
    known = catalogue.stacks()
    return columns.Reader([*_alone(known), *_inside(known), *overheads.fields(known)])


def _alone(known: Sequence[Stack]) -> list[Signal]:
    return [s for stack in known for s in stack.signals if s.kind == "reply" and s.covers]


def _inside(known: Sequence[Stack]) -> list[Signal]:
    return [s for stack in known for s in stack.signals if s.kind == "reply" and s.bearer]


def account(replies: columns.Reader, seen: Frame) -> Account | None:
    """What replies stated of the answered requests ``seen``; None where none states a time that a
    stack knows."""
    if not replies.bodies:
        return None
    known = catalogue.stacks()
    found, times = _times(replies, seen, _alone(known))
    chunks = replies.chunks[seen.row]
    parts, facts = replied.explain(seen, times, known, chunks)
    if not facts.stated:
        return None
    evidence = ReplyEvidence(
        requests=facts.requests,
        stated=facts.stated,
        told=facts.told,
        partial=facts.partial,
        contradicted=facts.contradicted,
        refused=sum(sum(reasons.values()) for reasons in found.refused.values()),
        unreadable=found.unreadable,
        times=tuple(_time(times[name], stack, name) for stack, name in facts.used),
    )
    caveats = tuple(_caveats(facts, parts, seen))
    return Account(rank_of(parts), parts, evidence, caveats, facts.stacks)


def rank_of(parts: Parts | None) -> Rank:
    """How far parts that replies state are to be believed."""
    apart = parts is not None and all(
        name in parts.parts and not parts.sources[name].members for name in _PHASES
    )
    return Rank.REPLIES if apart else Rank.MERGED_REPLIES


def _time(values: NDArray[np.float64], stack: str, name: str) -> ReplyTime:
    known = values[np.isfinite(values)]
    median = ms(float(np.median(known))) if len(known) else None
    return ReplyTime(stack, name, len(known), median)


def _caveats(facts: replied.Replied, parts: Parts | None, seen: Frame) -> list[Caveat]:
    out = []
    if facts.told < facts.requests:
        silent = facts.requests - facts.stated
        left = {"partial": facts.partial, "contradicted": facts.contradicted}
        out.append(caveat("LD427", silent=silent, requests=facts.requests, **left))
    if parts is None:
        return out
    if facts.left_ns and abs(facts.left_ns - facts.told_ns) > UNLIKE * facts.told_ns:
        out.append(caveat("LD420", told=round(facts.told_ns), left=round(facts.left_ns)))
    if 20 * facts.ahead > facts.told:
        ahead = {"rows": facts.ahead, "ahead": round(facts.ahead_ns)}
        out.append(caveat("LD429", requests=facts.told, **ahead))
    if facts.unsure:
        out.append(caveat("LD428", fields=", ".join(facts.unsure)))
    if 2 * int(seen.kernel.sum()) < seen.n:
        total = int(parts.total.sum())
        share = int(parts.parts["unattributed"].sum()) / total if total else 0.0
        out.append(caveat("LD413", share=share))
    return out


def inside_spans(
    replies: columns.Reader, seen: Frame, known: Sequence[Stack]
) -> dict[str, NDArray[np.float64]]:
    """What replies stated of each answered request that a span bears, by the signal's foreign
    name and in its unit; NaN where one did not."""
    fields = _inside(known)
    units = {signal.foreign: UNIT_NS[signal.unit] for signal in fields}
    _, times = _times(replies, seen, fields)
    return {name: values / units[name] for name, values in times.items()}


def _times(
    replies: columns.Reader, seen: Frame, fields: Sequence[Signal]
) -> tuple[columns.Replies, dict[str, NDArray[np.float64]]]:
    """(What the replies held; ns of each answered request by the field's foreign name, NaN where
    a reply did not state it)."""
    found = replies.replies(fields)
    times = {signal.foreign: np.full(seen.n, np.nan) for signal in fields}
    for column in found.columns.values():
        whole = np.full(found.n, np.nan)
        whole[column.rows] = column.values
        times[column.signal.foreign] = whole[seen.row]
    return found, times
