"""The critical path of a trace by the rule of Jaeger's UI, told anew from what it was seen to do.

It sees whole microseconds, floor(start) and floor(duration). From a span it goes to the child that
finishes last; walking back, it takes only a sibling that ends *strictly* before the one that it
comes from begins, and charges what lies between to the parent. A child that begins at or after the
end of its parent is not seen, and one that reaches beyond is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Drawn:
    """A span as the UI has it; times in us."""

    span_id: str
    parent: str | None
    start: int
    duration: int

    @property
    def end(self) -> int:
        return self.start + self.duration

    @classmethod
    def of(cls, span_id: str, parent: str | None, start_ns: int, end_ns: int) -> Drawn:
        return cls(span_id, parent, start_ns // 1000, (end_ns - start_ns) // 1000)


def charged(spans: Iterable[Drawn]) -> dict[str, int]:
    """us that the critical path charges to each span that it visits."""
    known, children = _sane(list(spans))
    found: dict[str, int] = {}
    (current,) = (span for span in known.values() if span.parent is None)
    returning: int | None = None
    while True:
        child = _last_finishing(children[current.span_id], known, returning)
        until = current.end if returning is None else returning
        since = current.start if child is None else child.end
        found[current.span_id] = found.get(current.span_id, 0) + until - since
        if child is not None:
            current, returning = child, None
        elif current.parent is not None:
            current, returning = known[current.parent], current.start
        else:
            return found


def _last_finishing(
    children: list[str], known: Mapping[str, Drawn], returning: int | None
) -> Drawn | None:
    for each in children:
        if returning is None or known[each].end < returning:
            return known[each]
    return None


def _sane(spans: list[Drawn]) -> tuple[dict[str, Drawn], dict[str, list[str]]]:
    """The spans, cut to their parents, and the children of each, last finishing first."""
    known = {span.span_id: span for span in spans}
    for span in sorted(spans, key=lambda each: each.start):
        parent = known.get(span.parent or "")
        if parent is None:
            continue
        if span.start >= parent.end and span.duration + parent.duration:
            del known[span.span_id]
            continue
        start, end = max(span.start, parent.start), min(span.end, parent.end)
        known[span.span_id] = replace(span, start=start, duration=end - start)
    children: dict[str, list[str]] = {span: [] for span in known}
    for span in sorted(known.values(), key=lambda each: -each.end):
        if span.parent in known:
            children[span.parent].append(span.span_id)
    return known, children
