"""What the servers said: how many requests they spoke of, who spoke, and by what clocks;
what their replies stated, and what their metrics counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latdiag.model.components import COMPONENTS
from latdiag.model.units import quantity
from latdiag.report.page import Page

_BY = {
    "trace_id": "trace id",
    "request_id": "request id",
    "response_id": "response id",
}
_PLACE = {name: place for place, name in enumerate(COMPONENTS)}
#: More senders than this are counted, not listed.
_SHOWN = 6


def servers(page: Page, result: Mapping[str, Any]) -> None:
    """What spans told, what replies, and what metrics; nothing where no server spoke."""
    spans, metrics = result.get("evidence"), result.get("aggregates")
    stated = result.get("replies")
    if spans or stated or metrics:
        page.gap()
    if spans:
        _spans(page, spans)
    if stated:
        _replies(page, stated)
    if metrics:
        _metrics(page, metrics)


def _spans(page: Page, found: Mapping[str, Any]) -> None:
    """One line on the join, one a sender."""
    by = ", ".join(
        f"{count} by {_BY.get(how) or page.word(how, 20)}"
        for how, count in (found.get("joined_by") or {}).items()
        if count
    )
    requests, joined, told = (found.get(key, 0) for key in ("requests", "joined", "told"))
    text = f"{joined} of {requests} requests joined to spans ({by or 'none'})"
    text += f", {told} of them in the breakdown"
    lost = [f"{found[key]} {key}" for key in ("partial", "contradicted") if found.get(key)]
    if found.get("duplicates"):
        lost.append(f"{found['duplicates']} spans twice")
    page.paragraph("; ".join([text, *lost]), "Servers: ", "  ")
    clocks = {clock["sender"]: clock for clock in found.get("clocks") or ()}
    senders = found.get("senders") or []
    for sender in senders[:_SHOWN]:
        page.paragraph(_sender(page, sender, clocks.get(sender["sender"])), "  ", "    ")
    if len(senders) > _SHOWN:
        page.line(f"  and {len(senders) - _SHOWN} more senders")


def _sender(page: Page, sender: Mapping[str, Any], clock: Mapping[str, Any] | None) -> str:
    name = page.word(sender.get("sender") or "?", 40)
    stack = page.word(sender.get("stack") or "unknown stack", 30)
    roles = [role for role in sender.get("roles") or () if role != "unified"]
    what = f"{stack} ({', '.join(page.word(role, 12) for role in roles)})" if roles else stack
    text = f"{what} {name}: {sender.get('spans', 0)} spans of {sender.get('requests', 0)} requests"
    if clock is None or clock.get("offset_ms") is None or clock.get("half_width_ms") is None:
        return text
    offset, half = (quantity(clock[key], "ms") for key in ("offset_ms", "half_width_ms"))
    return f"{text}; clock {offset} from the client's, known to {half}"


def _replies(page: Page, found: Mapping[str, Any]) -> None:
    """One line: how many replies state times, and which."""
    text = f"{found['stated']} of {found['requests']} state times"
    lost = [f"{found[key]} {key}" for key in ("partial", "contradicted") if found.get(key)]
    times = [
        f"{page.word(time['field'], 40)} {quantity(time['median_ms'], 'ms')}"
        for time in found.get("times") or ()
        if time.get("median_ms") is not None
    ]
    if times:
        text += f": {', '.join(times[:_SHOWN])} (medians)"
    page.paragraph("; ".join([text, *lost]), "Replies: ", "  ")


def _metrics(page: Page, found: Mapping[str, Any]) -> None:
    """One line: whose requests the servers counted, and what these took on the average; one a
    server where no request was ours."""
    replicas = found.get("replicas") or []
    if found.get("of") == "traffic":
        for replica in replicas[:_SHOWN]:
            page.paragraph(_replica(page, replica), "Metrics: ", "  ")
        if len(replicas) > _SHOWN:
            page.line(f"  and {len(replicas) - _SHOWN} more servers")
        return
    n = len(replicas)
    own, finished = found.get("own", 0), max((found.get("finished") or {}).values(), default=0)
    text = f"{n} server{'' if n == 1 else 's'}, "
    if found.get("verdict") in ("own", "others"):
        text += f"{min(own, finished)} of {finished} finished requests are ours"
    else:
        text += page.word(found.get("why") or "whose requests they counted is not known", 300)
    whose = " of the whole probe" if found.get("of") == "probe" else ""
    times = _times(page, found.get("claims") or ())
    if times:
        text += f"; {', '.join(times)} (mean{whose}, {_grade(page, found)})"
    gone = sum(1 for replica in replicas if replica.get("left_out"))
    if gone:
        text += f"; {gone} left out"
    page.paragraph(text, "Metrics: ", "  ")


def _replica(page: Page, found: Mapping[str, Any]) -> str:
    """What one server finished, and the mean of each time."""
    role = page.word(found.get("role") or "unified", 12)
    name = page.word(found.get("replica") or "?", 60) + (f" ({role})" if role != "unified" else "")
    if found.get("left_out"):
        return f"{name}: left out, {page.word(found['left_out'], 200)}"
    text = f"{name} finished {found['finished']} requests in {quantity(found['seconds'], 's')}"
    times = _times(page, found.get("claims") or ())
    return f"{text}; {', '.join(times)} (mean of each, {_grade(page, found)})" if times else text


def _times(page: Page, claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """``queue 8.70 ms`` of every component, in the order of the claims; a bound where only that
    is known."""
    sums: dict[str, list[float | None]] = {}
    bounds: dict[str, float] = {}
    for claim in claims:
        name = "+".join(page.word(part, 20) for part in claim["of"])
        sums.setdefault(name, []).append(claim["mean_ms"])
        bounds[name] = bounds.get(name, 0.0) + claim["hi_ms"]
    found = []
    for name in sorted(sums, key=lambda each: _PLACE.get(each, len(_PLACE))):
        known = [value for value in sums[name] if value is not None]
        if len(known) == len(sums[name]):
            found.append(f"{name} {quantity(sum(known), 'ms')}")
        else:
            found.append(f"{name} at most {quantity(bounds[name], 'ms')}")
    return found


def _grade(page: Page, found: Mapping[str, Any]) -> str:
    """The worst of the claims' grades."""
    return max((page.word(claim.get("grade") or "", 1) for claim in found["claims"]), default="B")
