"""Sending traces in batches, and counting what became of every span.

opentelemetry's ``BatchSpanProcessor`` drops what its queue cannot hold and reports success, and
its exporters read no ``partial_success``; so batches are encoded by its exporter's encoder and
sent here, one at a time, each with an answer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Protocol

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan

from latdiag.model.text import shown

#: A batch: so many spans, and at most so many bytes, a quarter of what receivers take by default.
_SPANS, _BYTES = 512, 1 << 20
#: How often a batch is sent that no answer came to, and what is waited before, s.
_WAITS_S = (0.5, 2.0)
#: Who asks to wait longer is not waited for.
_LONGEST_WAIT_S = 30.0
#: After so many batches without an answer the others are not sent.
_LOST_IN_A_ROW = 2
#: Reasons that are told apart.
_REASONS = 20


class Answer(Enum):
    """``TAKEN``: all but what the receiver rejected. ``REFUSED``: nothing of this batch.
    ``SHUT``: neither this nor any other. ``LATER``: the same batch may be sent again."""

    TAKEN = "taken"
    REFUSED = "refused"
    SHUT = "shut"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Reply:
    """``rejected``: spans of a batch that was taken. ``answered``: whether the receiver said so;
    without, a batch may have arrived all the same. ``wait_s``: how long it asks to wait."""

    answer: Answer
    text: str = ""
    rejected: int = 0
    answered: bool = True
    wait_s: float | None = None


class Sender(Protocol):
    """A way to a receiver."""

    def send(self, batch: bytes) -> Reply:
        """Send an ``ExportTraceServiceRequest`` in protobuf; whatever happens is a reply."""


@dataclass(slots=True)
class Delivery:
    """Spans by what became of them: ``delivered`` (the receiver confirmed them), ``rejected`` (it
    refused them), ``lost`` (no answer: they may have arrived), ``unsent`` (nothing was taken any
    more). ``reasons``: spans by why. ``traces``: made, as were ``spans`` in all."""

    traces: int = 0
    spans: int = 0
    delivered: int = 0
    rejected: int = 0
    lost: int = 0
    unsent: int = 0
    batches: int = 0
    repeated: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)

    @property
    def complete(self) -> bool:
        return self.delivered == self.spans

    def add(self, other: Delivery) -> None:
        """What became of those of ``other`` too."""
        for each in fields(self):
            if each.name != "reasons":
                setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        for text, spans in other.reasons.items():
            self.note(text, spans)

    def note(self, text: str, spans: int) -> None:
        """Count ``spans`` under a reason; a receiver cannot make up more reasons than are kept."""
        text = shown(text, 200) or "no reason given"
        known = text in self.reasons or len(self.reasons) < _REASONS
        self.reasons[text if known else "other reasons"] += spans


def deliver(
    traces: Iterable[Sequence[ReadableSpan]],
    sender: Sender,
    progress: Callable[[Delivery], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Delivery:
    """Send ``traces``; every span of them is counted once."""
    found = Delivery()
    missed, shut = 0, ""
    for batch, spans in _batches(traces, found):
        if shut:
            found.unsent += spans
            found.note(shut, spans)
            continue
        reply = _sent(batch, sender, found, sleep)
        found.batches += 1
        if reply.answer is Answer.TAKEN:
            rejected = min(max(reply.rejected, 0), spans)
            found.delivered += spans - rejected
            found.rejected += rejected
            if rejected:
                found.note(f"rejected: {reply.text}" if reply.text else "rejected", rejected)
            elif reply.text:
                found.warnings[shown(reply.text, 200)] += 1
        elif reply.answered:
            found.rejected += spans
            found.note(reply.text, spans)
        else:
            found.lost += spans
            found.note(reply.text, spans)
        missed = missed + 1 if reply.answer is Answer.LATER else 0
        if reply.answer is Answer.SHUT or missed >= (_LOST_IN_A_ROW if found.delivered else 1):
            shut = f"not sent after: {reply.text}"
        progress(found)
    return found


def _sent(batch: bytes, sender: Sender, found: Delivery, sleep: Callable[[float], None]) -> Reply:
    reply = sender.send(batch)
    for usual in _WAITS_S:
        wait = usual if reply.wait_s is None else reply.wait_s
        if reply.answer is not Answer.LATER or wait > _LONGEST_WAIT_S:
            break
        sleep(wait)
        found.repeated += 1
        reply = sender.send(batch)
    return reply


def _batches(
    traces: Iterable[Sequence[ReadableSpan]], found: Delivery
) -> Iterator[tuple[bytes, int]]:
    """(A batch in protobuf, its spans); a trace is in one batch. Counts what it makes."""
    held: list[Sequence[ReadableSpan]] = []
    spans = 0
    for trace in traces:
        found.traces += 1
        found.spans += len(trace)
        held.append(trace)
        spans += len(trace)
        if spans >= _SPANS:
            yield from _encoded(held)
            held, spans = [], 0
    yield from _encoded(held)


def _encoded(held: Sequence[Sequence[ReadableSpan]]) -> Iterator[tuple[bytes, int]]:
    if not held:
        return
    spans = [span for trace in held for span in trace]
    batch = encode_spans(spans).SerializeToString()
    if len(batch) <= _BYTES or len(held) == 1:
        yield batch, len(spans)
        return
    middle = len(held) // 2
    yield from _encoded(held[:middle])
    yield from _encoded(held[middle:])
