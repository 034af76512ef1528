"""What the receiver beside a run counted: its account, and what of it is worth a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.document import OPTIONAL
from latdiag.model.text import shown

#: Senders that are named in one sentence.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Sender:
    """One that sent spans, its words safe to show; ``known``: a stack has names of its spans."""

    sender: str
    service: str
    known: bool
    spans: int
    first_ns: int | None
    last_ns: int | None
    span_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScrapeProblem:
    """What went wrong with scrapes of one server, ``count`` times."""

    replica: str
    text: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """The receiver's counts. ``stopped``: the signal that ended it, or 0. ``accepted``: spans.
    ``refused``: spans by reason; ``refused_exports``: exports by reason; ``other_signals``:
    exports that are no spans; ``wrong_doors``: connections by what they spoke instead. ``rows``,
    ``samples``, ``bytes``: as written. ``forwarded``: None where nothing is passed on.
    ``scrapes``: by label. ``senders``: those with most spans. ``takes_spans``: None in runs that
    do not say whether a door was open to spans."""

    duration_ns: int | None = field(default=None, metadata=OPTIONAL)
    stopped: int | None = field(default=None, metadata=OPTIONAL)
    exports: int
    accepted: int
    refused: Mapping[str, int]
    refused_exports: Mapping[str, int]
    other_signals: Mapping[str, int]
    dropped_attributes: int
    rows: int | None = field(default=None, metadata=OPTIONAL)
    samples: int
    bytes: int | None = field(default=None, metadata=OPTIONAL)
    lost: int
    disk_cap_reached: bool
    forwarded: int | None
    forward_failed: int | None
    forward_failure: str | None
    scrapes: Mapping[str, int]
    scrape_problems: tuple[ScrapeProblem, ...]
    senders_total: int
    unknown_senders: int
    unknown_spans: int
    senders: tuple[Sender, ...] | None = field(default=None, metadata=OPTIONAL)
    wrong_doors: Mapping[str, int] | None = field(default=None, metadata=OPTIONAL)
    takes_spans: bool | None = field(default=None, metadata=OPTIONAL)

    @classmethod
    def read(cls, counts: Mapping[str, object]) -> Collected:
        """From what the receiver wrote; nothing in it is trusted to be of its type."""
        senders = tuple(_sender(each) for each in _rows(counts.get("senders")))
        unknown = [each for each in senders if not each.known]
        failure = counts.get("forward_failure")
        return cls(
            exports=_count(counts.get("exports")),
            accepted=_count(counts.get("accepted")),
            refused=_counts(counts.get("refused")),
            refused_exports=_counts(counts.get("refused_exports")),
            other_signals=_counts(counts.get("other_signals")),
            dropped_attributes=_count(counts.get("dropped_attributes")),
            rows=_count(counts.get("rows")),
            samples=_count(counts.get("samples")),
            bytes=_count(counts.get("bytes")),
            lost=_count(counts.get("lost")),
            scrapes=_counts(counts.get("scrapes")),
            disk_cap_reached=bool(counts.get("disk_cap_reached")),
            forwarded=_number(counts.get("forwarded")),
            forward_failed=_number(counts.get("forward_failed")),
            forward_failure=None if failure is None else str(failure),
            scrape_problems=tuple(_problem(p) for p in _rows(counts.get("scrape_problems"))),
            senders_total=_count(counts.get("senders_total"), len(senders)),
            unknown_senders=_count(counts.get("unknown_senders"), len(unknown)),
            unknown_spans=_count(counts.get("unknown_spans"), sum(s.spans for s in unknown)),
            senders=senders,
            wrong_doors=_counts(counts.get("wrong_doors")) or None,
            takes_spans=takes if isinstance(takes := counts.get("takes_spans"), bool) else None,
        )

    @property
    def channels(self) -> frozenset[str]:
        """What the servers could send here, whether it came or not: spans, metrics."""
        metrics = bool(self.samples or self.scrapes or self.scrape_problems)
        spans = self.takes_spans if self.takes_spans is not None else not metrics
        return frozenset(("spans",) * (spans or self.exports > 0) + ("metrics",) * metrics)

    def brief(self) -> Collected:
        """Without what was written, and who sent it: the account beside a run's own result."""
        return replace(self, rows=None, bytes=None, senders=None)


def collected(writers: Sequence[Mapping[str, object]]) -> list[Collected]:
    """What each receiver of a run counted; none where there was none."""
    counts = [each.get("counts") for each in writers if each.get("kind") == "otlp"]
    return [Collected.read(each) for each in counts if isinstance(each, Mapping)]


def caveats(found: Collected) -> Iterator[Caveat]:
    """What was sent and is not there, and what nobody here understands."""
    refused, exports = (
        {why: n for why, n in counts.items() if n}
        for counts in (found.refused, found.refused_exports)
    )
    if refused or exports:
        reasons = ", ".join(sorted(shown(name, 40) for name in {**refused, **exports}))
        told = {"spans": sum(refused.values()), "exports": sum(exports.values())}
        yield caveat("LD421", reasons=reasons, **told)
    if not_spans := elsewhere(found):
        yield caveat("LD431", what="; ".join(not_spans))
    if found.lost:
        yield caveat("LD432", lost=found.lost)
    if found.disk_cap_reached:
        yield caveat("LD422")
    unknown = [each for each in found.senders or () if not each.known]
    if unknown:
        names = ", ".join(shown(s.service or s.sender or "?", 40) for s in unknown[:_NAMED])
        yield caveat(
            "LD423", spans=found.unknown_spans, senders=found.unknown_senders, names=names
        )
    if found.scrape_problems:
        first = found.scrape_problems[0]
        url, why = shown(first.replica or "?", 120), shown(first.text or "?", 160)
        others = len(found.scrape_problems) - 1
        more = f" (and {others} more failure{'s' * (others > 1)})" if others else ""
        yield caveat("LD425", url=url, why=why, more=more)
    if found.forward_failed:
        why = shown(found.forward_failure or "no reason given", 160)
        yield caveat("LD426", n=found.forward_failed, why=why)
    if "spans" in found.channels and not found.accepted:
        yield caveat("LD424")


def elsewhere(found: Collected) -> list[str]:
    """What brought no spans: other protocols, paths and methods, and what nobody takes here."""
    lines = [f"{shown(what, 120)} ({n})" for what, n in (found.wrong_doors or {}).items()]
    if found.forwarded is None:
        lines += [f"exports of {shown(what, 20)} ({n})" for what, n in found.other_signals.items()]
    return lines


# ---------------------------------------------------------------------- reading
def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _count(value: object, otherwise: int = 0) -> int:
    return value if isinstance(value, int) else otherwise


def _counts(by_name: object) -> dict[str, int]:
    found = by_name if isinstance(by_name, Mapping) else {}
    return {str(key): n for key, n in found.items() if isinstance(n, int)}


def _rows(entries: object) -> list[Mapping[str, object]]:
    return [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []


def _sender(found: Mapping[str, object]) -> Sender:
    names = found.get("span_names")
    return Sender(
        sender=shown(found.get("sender") or "", 200),
        service=shown(found.get("service") or "", 200),
        known=bool(found.get("known")),
        spans=_count(found.get("spans")),
        first_ns=_number(found.get("first_ns")),
        last_ns=_number(found.get("last_ns")),
        span_names=tuple(shown(name, 100) for name in names) if isinstance(names, list) else (),
    )


def _problem(found: Mapping[str, object]) -> ScrapeProblem:
    count = _count(found.get("count"))
    return ScrapeProblem(str(found.get("replica") or ""), str(found.get("text") or ""), count)
