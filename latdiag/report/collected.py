"""What the receiver beside a run counted: its account, and what of it is worth a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latdiag.model.caveats import caveat
from latdiag.model.text import shown

_TOLD = (
    *("exports", "accepted", "refused", "refused_exports", "other_signals"),
    *("dropped_attributes", "samples", "lost", "disk_cap_reached", "forwarded"),
    *("forward_failed", "scrapes", "scrape_problems"),
)
#: Senders that are named in one sentence.
_NAMED = 3


def counts_of(writers: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The counts of the run's receiver; None where there was none."""
    for writer in writers:
        counts = writer.get("counts")
        if writer.get("kind") == "otlp" and isinstance(counts, Mapping):
            return {name: counts[name] for name in _TOLD if name in counts}
    return None


def caveats(writers: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What was sent and is not there, and what nobody here understands."""
    out = []
    for writer in writers:
        counts = writer.get("counts")
        if writer.get("kind") != "otlp" or not isinstance(counts, Mapping):
            continue
        spans, exports = (_numbers(counts.get(key)) for key in ("refused", "refused_exports"))
        if spans or exports:
            reasons = ", ".join(sorted(shown(name, 40) for name in {**spans, **exports}))
            told = {"spans": sum(spans.values()), "exports": sum(exports.values())}
            out.append(caveat("LD421", reasons=reasons, **told))
        if counts.get("disk_cap_reached"):
            out.append(caveat("LD422"))
        unknown = [s for s in counts.get("senders") or () if not s.get("known")]
        if unknown:
            names = ", ".join(_name(sender) for sender in unknown[:_NAMED])
            n = sum(int(sender.get("spans") or 0) for sender in unknown)
            out.append(caveat("LD423", spans=n, senders=len(unknown), names=names))
        if not counts.get("accepted") and not counts.get("samples"):
            out.append(caveat("LD424"))
    return out


def _numbers(counts: Any) -> dict[str, int]:
    found = counts if isinstance(counts, Mapping) else {}
    return {str(k): v for k, v in found.items() if isinstance(v, int) and v}


def _name(sender: Mapping[str, Any]) -> str:
    return shown(sender.get("service") or sender.get("sender") or "?", 40)
