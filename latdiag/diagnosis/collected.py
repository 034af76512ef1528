"""What the receiver beside a run counted: its account, and what of it is worth a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latdiag.model.caveats import caveat
from latdiag.model.text import shown

_TOLD = (
    *("exports", "accepted", "refused", "refused_exports", "other_signals"),
    *("dropped_attributes", "samples", "lost", "disk_cap_reached", "forwarded"),
    *("forward_failed", "forward_failure", "scrapes", "scrape_problems"),
    *("senders_total", "unknown_senders", "unknown_spans"),
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
            spans_of = sum(int(sender.get("spans") or 0) for sender in unknown)
            n = counts.get("unknown_spans", spans_of)
            senders = counts.get("unknown_senders", len(unknown))
            out.append(caveat("LD423", spans=n, senders=senders, names=names))
        out += _missed(counts)
        if not counts.get("accepted") and not counts.get("samples"):
            out.append(caveat("LD424"))
    return out


def _missed(counts: Mapping[str, Any]) -> list[dict[str, str]]:
    """Scrapes that brought nothing, and exports that could not be passed on."""
    out = []
    problems = [p for p in counts.get("scrape_problems") or () if isinstance(p, Mapping)]
    if problems:
        first = problems[0]
        url, why = shown(first.get("replica") or "?", 120), shown(first.get("text") or "?", 160)
        out.append(caveat("LD425", n=len(problems), url=url, why=why))
    failed = counts.get("forward_failed") or 0
    if failed:
        why = shown(counts.get("forward_failure") or "no reason was told", 160)
        out.append(caveat("LD426", n=failed, why=why))
    return out


def _numbers(counts: Any) -> dict[str, int]:
    found = counts if isinstance(counts, Mapping) else {}
    return {str(k): v for k, v in found.items() if isinstance(v, int) and v}


def _name(sender: Mapping[str, Any]) -> str:
    return shown(sender.get("service") or sender.get("sender") or "?", 40)
