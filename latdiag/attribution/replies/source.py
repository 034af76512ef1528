"""What the replies of a run stated of their own requests: times inside spans, and alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.replies import columns
from latdiag.attribution.replies import explain as replied
from latdiag.measurement import answered
from latdiag.measurement.answered import Answered
from latdiag.model.caveats import caveat
from latdiag.model.records import Outcome
from latdiag.model.units import UNIT_NS, ms
from latdiag.stacks import catalogue
from latdiag.stacks.signal import Signal, Stack

if TYPE_CHECKING:
    from latdiag.attribution.parts import Parts
    from latdiag.store.batch import Batch
    from latdiag.store.run import Run

#: From here on those that are not told are not like those that are.
UNLIKE = 0.2


@dataclass(frozen=True, slots=True)
class Stated:
    """``parts``: None where too few replies state times. ``document``: the entry ``replies`` of
    ``--json``. ``caveats``: for where ``parts`` is what the breakdown rests on."""

    parts: Parts | None
    document: dict[str, Any]
    caveats: list[dict[str, str]]
    stacks: tuple[str, ...]


def stated(run: Run) -> Stated | None:
    """Read the run's replies; None where none states a time that a stack knows."""
    if not any(_has_body(batch) for batch in run.batches(["reply_timings"])):
        return None
    known = catalogue.stacks()
    fields = [s for stack in known for s in stack.signals if s.kind == "reply" and s.covers]
    seen = answered.answered(run.batches(list(answered.COLUMNS)))
    found, times, chunks = _read(run, seen, fields)
    parts, facts = replied.explain(seen, times, known, chunks)
    if not facts.stated:
        return None
    document = {
        "requests": facts.requests,
        "stated": facts.stated,
        "told": facts.told,
        "partial": facts.partial,
        "contradicted": facts.contradicted,
        "refused": sum(sum(reasons.values()) for reasons in found.refused.values()),
        "unreadable": found.unreadable,
        "times": [_time(times[name], stack, name) for stack, name in facts.used],
    }
    return Stated(parts, document, _caveats(facts, parts, seen), facts.stacks)


def _has_body(batch: Batch) -> bool:
    """Whether a reply states anything beside headers, which go out before a stream ends."""
    return any(text is not None and '"body"' in text for text in batch.texts["reply_timings"])


def _time(values: NDArray[np.float64], stack: str, name: str) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    median = ms(float(np.median(known))) if len(known) else None
    return {"stack": stack, "field": name, "n": len(known), "median_ms": median}


def _caveats(facts: replied.Replied, parts: Parts | None, seen: Answered) -> list[dict[str, str]]:
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


def borne(run: Run, seen: Answered, known: Sequence[Stack]) -> dict[str, NDArray[np.float64]]:
    """What replies stated of each answered request that a span bears, by the signal's foreign
    name and in its unit; NaN where one did not."""
    fields = [s for stack in known for s in stack.signals if s.kind == "reply" and s.bearer]
    units = {signal.foreign: UNIT_NS[signal.unit] for signal in fields}
    _, times, _ = _read(run, seen, fields)
    return {name: values / units[name] for name, values in times.items()}


def _read(
    run: Run, seen: Answered, fields: Sequence[Signal]
) -> tuple[columns.Replies, dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """(What the replies held; ns of each answered request by the field's foreign name, NaN where
    a reply did not state it; pieces with tokens that each came in)."""
    place = {name: row for row, name in enumerate(seen.request_id.tolist())}
    at: list[int] = []
    chunks = np.zeros(seen.n, dtype=np.int64)

    def noted() -> Iterator[Batch]:
        for batch in run.batches(["request_id", "outcome", "tokens", *columns.COLUMNS]):
            names = batch.texts["request_id"].tolist()
            rows = np.array([place.get(name, -1) for name in names], dtype=np.int64)
            # An attempt that failed has the id of the one that did not.
            rows[batch.texts["outcome"] != Outcome.OK.value] = -1
            at.extend(rows.tolist())
            tokens = batch.lists["tokens"]
            some = np.concatenate(([0], np.cumsum(tokens.values > 0)))
            pieces = some[tokens.offsets[1:]] - some[tokens.offsets[:-1]]
            chunks[rows[rows >= 0]] = pieces[rows >= 0]
            yield batch

    found = columns.replies(noted(), fields)
    times = {signal.foreign: np.full(seen.n, np.nan) for signal in fields}
    for column in found.columns.values():
        rows = np.array(at, dtype=np.int64)[column.rows]
        mine = rows >= 0
        times[column.signal.foreign][rows[mine]] = column.values[mine]
    return found, times, chunks
