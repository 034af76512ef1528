"""What the servers said: how many requests they spoke of, who spoke, and by what clocks;
what their replies stated, and what their metrics counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from latdiag.model.components import COMPONENTS
from latdiag.model.units import GLUE, quantity
from latdiag.report.page import Page

if TYPE_CHECKING:
    from latdiag.attribution.evidence import (
        MetricClaim,
        MetricEvidence,
        ReplicaMetrics,
        ReplyEvidence,
        SenderClock,
        SenderSpans,
        ServerState,
        SpanEvidence,
    )
    from latdiag.diagnosis.result import Result

_BY = {
    "trace_id": "trace id",
    "request_id": "request id",
    "response_id": "response id",
}
_PLACE = {name: place for place, name in enumerate(COMPONENTS)}
#: More senders than this are counted, not listed.
_SHOWN = 6


def servers(page: Page, result: Result) -> None:
    """What spans told, what replies, and what metrics; nothing where no server spoke."""
    if result.evidence or result.replies or result.aggregates:
        page.gap()
    if result.evidence is not None:
        _spans(page, result.evidence)
    if result.replies is not None:
        _replies(page, result.replies)
    if result.aggregates is not None:
        _metrics(page, result.aggregates)


def _spans(page: Page, found: SpanEvidence) -> None:
    """One line on the join, one a sender."""
    by = ", ".join(
        f"{count} by {_BY.get(how) or page.word(how, 20)}"
        for how, count in found.joined_by.items()
        if count
    )
    text = f"{found.joined} of {found.requests} requests joined to spans ({by or 'none'})"
    text += f", {found.told} of them used in the breakdown"
    lost = _lost(found)
    if found.duplicates:
        lost.append(f"{found.duplicates} spans twice")
    page.paragraph("; ".join([text, *lost]), "Servers: ", "  ")
    clocks = {clock.sender: clock for clock in found.clocks}
    for each in found.senders[:_SHOWN]:
        page.paragraph(sender(page, each, clocks.get(each.sender)), "  ", "    ")
    if len(found.senders) > _SHOWN:
        page.line(f"  and {len(found.senders) - _SHOWN} more senders")


def _lost(found: SpanEvidence | ReplyEvidence) -> list[str]:
    """Requests whose evidence is not used."""
    counts = {"partial": found.partial, "contradicted": found.contradicted}
    return [f"{n} {what}" for what, n in counts.items() if n]


def sender(page: Page, found: SenderSpans, clock: SenderClock | None) -> str:
    """``vllm (decode) NAME: 54 spans of 54 requests``, and its clock where that is known."""
    name = page.word(found.sender or "?", 40)
    stack = page.word(found.stack or "unknown stack", 30)
    roles = [role for role in found.roles if role != "unified"]
    what = f"{stack} ({', '.join(page.word(role, 12) for role in roles)})" if roles else stack
    text = f"{what} {name}: {_many(found.spans, 'span')} of {_many(found.requests, 'request')}"
    if clock is None or clock.offset_ms is None or clock.half_width_ms is None:
        return text
    offset, half = quantity(clock.offset_ms, "ms"), quantity(clock.half_width_ms, "ms")
    return f"{text}; clock {offset} relative to the client's, +- {half}"


def _replies(page: Page, found: ReplyEvidence) -> None:
    """One line: how many replies state times, and which."""
    text = f"{found.stated} of {found.requests} state times"
    times = [
        f"{page.word(time.field, 40)} {quantity(time.median_ms, 'ms')}"
        for time in found.times
        if time.median_ms is not None
    ]
    if times:
        text += f": {', '.join(times[:_SHOWN])} (medians)"
    page.paragraph("; ".join([text, *_lost(found)]), "Replies: ", "  ")


def _metrics(page: Page, found: MetricEvidence) -> None:
    """One line: whose requests the servers counted, and what these took on the average; one a
    server where no request was ours."""
    replicas = found.replicas
    if found.of == "traffic":
        for each in replicas[:_SHOWN]:
            page.paragraph(replica(page, each), "Metrics: ", "  ")
        if len(replicas) > _SHOWN:
            page.line(f"  and {len(replicas) - _SHOWN} more servers")
        return
    n, finished = len(replicas), max(found.finished.values(), default=0)
    text = f"{n} server{'' if n == 1 else 's'}, "
    if found.verdict in ("own", "others"):
        text += f"{min(found.own, finished)} of {finished} finished requests are this client's"
    else:
        text += page.word(found.why or "it is not known whose requests they counted", 300)
    whose = " of the whole probe" if found.of == "probe" else ""
    times = _times(page, found.claims)
    if times:
        text += f"; {', '.join(times)} (mean{whose}, {_grade(page, found.claims)})"
    gone = sum(1 for each in replicas if each.left_out)
    if gone:
        text += f"; {gone} left out"
    page.paragraph(text, "Metrics: ", "  ")
    if found.state is not None:
        page.paragraph(fullest(found.state), "Engines: ", "  ")


def fullest(found: ServerState, in_full: bool = True) -> str:
    """``KV cache 92 %, 16 running, 48 waiting at most (5 scrapes); 3 preemptions``, the scrapes in
    full alone."""
    parts = []
    if found.kv_used is not None:
        parts.append(f"KV cache {100 * found.kv_used:.0f} %")
    for n, what in ((found.running, "running"), (found.waiting, "waiting")):
        if n is not None:
            parts.append(f"{n} {what}")
    scrapes = f" ({_many(found.scrapes, 'scrape')})" if in_full else ""
    texts = [f"{', '.join(parts)} at most{scrapes}"] if parts else []
    if found.preemptions is not None:
        texts.append(_many(found.preemptions, "preemption"))
    return "; ".join(texts)


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def brief(page: Page, found: ReplicaMetrics) -> str:
    """``decode, 400 requests: queue 8.70 ms, decode 1 163 ms (mean)``."""
    name = page.word(found.replica or "?", 40)
    if found.left_out:
        return f"{name}: left out, {page.word(found.left_out, 100)}"
    times = ", ".join(_times(page, found.claims)).replace(GLUE, " ")
    return f"{name}, {found.finished} requests: {f'{times} (mean)' if times else 'no times'}"


def replica(page: Page, found: ReplicaMetrics) -> str:
    """What one server finished, and the mean of each time."""
    role = page.word(found.role or "unified", 12)
    name = page.word(found.replica or "?", 60) + (f" ({role})" if role != "unified" else "")
    if found.left_out:
        return f"{name}: left out, {page.word(found.left_out, 200)}"
    text = f"{name} finished {found.finished} requests in {quantity(found.seconds, 's')}"
    times = _times(page, found.claims)
    grade = _grade(page, found.claims)
    return f"{text}; {', '.join(times)} (mean of each, {grade})" if times else text


def _times(page: Page, claims: Sequence[MetricClaim]) -> list[str]:
    """``queue 8.70 ms`` of every component, in the order of the claims; a bound where only that
    is known."""
    sums: dict[str, list[float | None]] = {}
    bounds: dict[str, float] = {}
    for claim in claims:
        name = "+".join(page.word(part, 20) for part in claim.of)
        sums.setdefault(name, []).append(claim.mean_ms)
        bounds[name] = bounds.get(name, 0.0) + claim.hi_ms
    found = []
    for name in sorted(sums, key=lambda each: _PLACE.get(each, len(_PLACE))):
        known = [value for value in sums[name] if value is not None]
        if len(known) == len(sums[name]):
            found.append(f"{name} {quantity(sum(known), 'ms')}")
        else:
            found.append(f"{name} at most {quantity(bounds[name], 'ms')}")
    return found


def _grade(page: Page, claims: Sequence[MetricClaim]) -> str:
    """The worst of the claims' grades."""
    return max((page.word(claim.grade, 1) for claim in claims), default="B")
