"""The spans of servers that a run has evidence of, as targets of links.

A request was sent in a trace of its own, and servers put their spans there. That trace is not
the one that is exported: beside our phases, a server's span that ends with ours would swallow them
on Jaeger's critical path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latdiag.store.evidence import Said

#: Components that happen in servers: their phases bear the link.
OF_SERVERS = frozenset({"gateway", "frontend", "queue", "prefill", "interconnect", "decode"})
_HEX = frozenset("0123456789abcdef")


class Reader:
    """Takes spans of evidence as they go by. ``sent``: by the trace that a request was sent in,
    the client's span there. ``found``: by trace, the server's span that is called by the client,
    or else any of the trace."""

    columns = ("trace_id", "span_id", "parent_span_id")
    kinds = ("span",)

    def __init__(self, sent: Mapping[str, str | None]) -> None:
        self._sent = sent
        self._called: set[str] = set()
        self.found: dict[str, str] = {}

    def wanted(self, _name: str) -> bool:
        return True

    def add(self, said: Said) -> None:
        texts = said.columns.texts
        rows = zip(*(texts[name] for name in self.columns), strict=True)
        for trace, span, parent in rows:
            if trace not in self._sent or trace in self._called or not _is_id(span, 16):
                continue
            if parent is not None and parent == self._sent[trace]:
                self._called.add(trace)
                self.found[trace] = span
            else:
                self.found.setdefault(trace, span)


def is_trace(text: str | None) -> bool:
    """Whether ``text`` is the id of a trace."""
    return _is_id(text, 32)


def _is_id(text: str | None, size: int) -> bool:
    return (
        text is not None and len(text) == size and _HEX.issuperset(text) and bool(text.strip("0"))
    )
