"""What servers said of a run's requests: parts from their spans, and what became of them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latdiag.attribute import answered, batching, offsets, spans, whitebox
from latdiag.model.caveats import caveat
from latdiag.model.units import ms
from latdiag.stacks import catalogue

if TYPE_CHECKING:
    from latdiag.attribute.parts import Parts
    from latdiag.store.run import Run

#: A clock that may have stood still while another ran: more than this is worth a word.
_DRIFT_PPM = 20.0


@dataclass(frozen=True, slots=True)
class Spoken:
    """``parts``: None where too few requests have evidence. ``document``: the entry ``evidence``
    of ``--json``. ``stacks``: those that spoke, by name."""

    parts: Parts | None
    document: dict[str, Any]
    caveats: list[dict[str, str]]
    stacks: tuple[str, ...]


def spoken(run: Run) -> Spoken | None:
    """Read the run's evidence; None where no server said anything that a stack knows."""
    known = catalogue.stacks()
    names = spans.known_name(known)
    batches = run.said(spans.COLUMNS, ("span",), lambda name: bool(name and names.match(name)))
    found = spans.read(batches, known)
    if not found.n:
        return None
    seen = answered.answered(run.batches(list(answered.COLUMNS)))
    if not seen.n:
        return None
    parts, facts, joined = whitebox.explain(found, seen)
    clocks = offsets.offsets(joined, seen)
    document = _document(facts, clocks, _wall(run.writers, str(seen.clock_id[0])))
    caveats = _caveats(facts, clocks, parts)
    held = batching.held_back(run.batches(list(batching.COLUMNS)), joined, seen)
    if held is not None:
        document["batching"] = _batching(held)
        figures = {"k": f"{held.tokens:.0f}", "t": held.every_ns, "s": held.step_ns}
        caveats.append(caveat("LD415", **figures))
    return Spoken(parts, document, caveats, facts.stacks)


def _document(
    facts: whitebox.Findings, clocks: Sequence[offsets.Offset], wall: int | None
) -> dict[str, Any]:
    return {
        "requests": facts.requests,
        "joined": facts.joined,
        "told": facts.told,
        "joined_by": facts.by,
        "contradicted": facts.contradicted,
        "partial": facts.partial,
        "spans": facts.spans,
        "duplicates": facts.duplicates,
        "senders": [{"sender": name, **said} for name, said in facts.senders.items()],
        "clocks": [_clock(each, wall) for each in clocks],
        "medians_ms": {name: ms(value) for name, value in facts.medians.items()},
    }


def _clock(found: offsets.Offset, wall: int | None) -> dict[str, Any]:
    """``wall``: REALTIME minus MONOTONIC of the client; 0 where its instants are REALTIME."""
    offset = None if wall is None else ms(found.offset_ns - wall)
    return {
        "sender": found.sender,
        "n": found.n,
        "offset_ms": offset,
        "half_width_ms": ms(found.half_ns),
        "steps": [{"request": at, "by_ms": ms(by)} for at, by in found.steps],
        "drift_ppm": found.drift_ppm,
    }


def _batching(found: batching.Batching) -> dict[str, Any]:
    return {
        "requests": found.requests,
        "held": found.held,
        "share_together": found.share,
        "tokens": found.tokens,
        "every_ms": ms(found.every_ns),
        "step_ms": ms(found.step_ns),
    }


def _wall(writers: Sequence[Mapping[str, Any]], clock: str) -> int | None:
    """The first writer's REALTIME minus MONOTONIC; None where no writer noted it."""
    if clock.startswith("capture:"):
        return 0
    for writer in writers:
        samples = writer.get("clock")
        if isinstance(samples, list) and samples and isinstance(samples[0], list):
            first = samples[0]
            if len(first) >= 2 and all(isinstance(value, int) for value in first[:2]):
                return int(first[1]) - int(first[0])
    return None


def _caveats(
    facts: whitebox.Findings, clocks: Sequence[offsets.Offset], parts: Parts | None
) -> list[dict[str, str]]:
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
    for each in clocks:
        if each.steps:
            out.append(caveat("LD211", sender=each.sender, steps=len(each.steps)))
        elif each.drift_ppm is not None and abs(each.drift_ppm) > _DRIFT_PPM:
            out.append(caveat("LD212", sender=each.sender, ppm=f"{each.drift_ppm:.0f}"))
    return out
