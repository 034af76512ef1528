"""What servers said of a run's requests: parts from their spans, and what became of them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from latdiag.attribution.accounts import Account, Rank
from latdiag.attribution.evidence import (
    ClockStep,
    HeldBack,
    SenderClock,
    SpanEvidence,
)
from latdiag.attribution.replies.source import UNLIKE, inside_spans
from latdiag.attribution.spans import batching, columns, offsets
from latdiag.attribution.spans import explain as whitebox
from latdiag.attribution.spans.complete import Findings
from latdiag.measurement.chunks import Chunks
from latdiag.measurement.frame import Frame
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.units import ms

if TYPE_CHECKING:
    from latdiag.attribution.parts import Parts
    from latdiag.attribution.replies.columns import Reader

_COLLECTIVES = "interconnect.collective"
#: A clock that may have stood still while another ran: more than this is worth a word.
_DRIFT_PPM = 20.0


def account(
    spans: columns.Spans,
    frame: Frame,
    chunks: Chunks,
    replies: Reader,
    writers: Sequence[Mapping[str, object]],
) -> Account | None:
    """What ``spans`` say of the requests in ``frame``; None where no server said anything that a
    stack knows. ``chunks``: how each row's output came. ``writers``: those of the run."""
    if not spans.n:
        return None
    seen = frame.answered()
    if not seen.n:
        return _served(spans) if not frame.n else None  # a client was there, and got nothing
    stated = inside_spans(replies, seen, spans.stacks)
    gathered = batching.gathered(chunks.select(seen.row))
    parts, facts, joined = whitebox.explain(spans, seen, stated, gathered)
    clocks = offsets.offsets(joined, seen)
    evidence = _evidence(facts, clocks, writers)
    caveats = _caveats(facts, clocks, parts)
    ranks = spans.ranks
    if ranks > 1 and parts is not None and _COLLECTIVES not in parts.leaves:
        caveats.append(caveat("LD405", ranks=ranks))
    held = batching.held_back(chunks, joined, seen)
    if held is not None:
        evidence = replace(evidence, batching=_batching(held))
        figures = {"k": f"{held.tokens:.0f}", "t": held.every_ns, "s": held.step_ns}
        caveats.append(caveat("LD415", **figures))
    return Account(Rank.SPANS, parts, evidence, tuple(caveats), facts.stacks)


def _served(spans: columns.Spans) -> Account:
    """Of a run without requests: where the servers' own time went."""
    parts, facts = whitebox.server_only(spans)
    caveats = tuple(_caveats(facts, [], None))
    return Account(Rank.SPANS, parts, _evidence(facts, [], ()), caveats, facts.stacks)


def _evidence(
    facts: Findings,
    clocks: Sequence[tuple[str, offsets.Offset]],
    writers: Sequence[Mapping[str, object]],
) -> SpanEvidence:
    return SpanEvidence(
        requests=facts.requests,
        joined=facts.joined,
        told=facts.told,
        joined_by=facts.by,
        contradicted=facts.contradicted,
        partial=facts.partial,
        spans=facts.spans,
        duplicates=facts.duplicates,
        senders=tuple(facts.senders),
        clocks=tuple(_clock(each, _wall(writers, clock)) for clock, each in clocks),
        medians_ms={name: ms(value) for name, value in facts.medians.items()},
    )


def _clock(found: offsets.Offset, wall: int | None) -> SenderClock:
    """``wall``: REALTIME minus MONOTONIC of the client; 0 where its instants are REALTIME."""
    return SenderClock(
        sender=found.sender,
        n=found.n,
        offset_ms=None if wall is None else ms(found.offset_ns - wall),
        half_width_ms=None if found.half_ns is None else ms(found.half_ns),
        steps=tuple(ClockStep(at, ms(by)) for at, by in found.steps),
        drift_ppm=found.drift_ppm,
    )


def _batching(found: batching.Batching) -> HeldBack:
    return HeldBack(
        requests=found.requests,
        held=found.held,
        share_together=found.share,
        tokens=found.tokens,
        every_ms=ms(found.every_ns),
        step_ms=ms(found.step_ns),
    )


def _wall(writers: Sequence[Mapping[str, object]], clock: str) -> int | None:
    """REALTIME minus MONOTONIC of a clock's first writer; None where no writer noted it."""
    if clock.startswith("capture:"):
        return 0
    for writer in writers:
        samples = writer.get("clock") if writer.get("clock_id") == clock else None
        if isinstance(samples, list) and samples and isinstance(samples[0], list):
            first = samples[0]
            if len(first) >= 2 and all(isinstance(value, int) for value in first[:2]):
                return int(first[1]) - int(first[0])
    return None


def _caveats(
    facts: Findings, clocks: Sequence[tuple[str, offsets.Offset]], parts: Parts | None
) -> list[Caveat]:
    out = []
    if facts.joined < facts.requests:
        out.append(caveat("LD411", rows=facts.requests - facts.joined, requests=facts.requests))
    if facts.partial or facts.contradicted:
        out.append(
            caveat(
                "LD412",
                partial=facts.partial,
                contradicted=facts.contradicted,
                requests=facts.joined,
            )
        )
    if parts is not None and facts.user_stamps:
        total = int(parts.total.sum())
        share = int(parts.parts["unattributed"].sum()) / total if total else 0.0
        out.append(caveat("LD413", share=share))
    if facts.all_kept and parts is not None:
        out.append(caveat("LD414", whole=facts.joined - facts.partial - facts.contradicted))
    if facts.left_ns and abs(facts.left_ns - facts.told_ns) > UNLIKE * facts.told_ns:
        out.append(caveat("LD420", told=round(facts.told_ns), left=round(facts.left_ns)))
    for _, each in clocks:
        if each.steps:
            out.append(caveat("LD211", sender=each.sender, steps=len(each.steps)))
        elif each.drift_ppm is not None and abs(each.drift_ppm) > _DRIFT_PPM:
            out.append(caveat("LD212", sender=each.sender, ppm=f"{each.drift_ppm:.0f}"))
    return out
