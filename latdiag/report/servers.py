"""What the servers said: how many requests they spoke of, who spoke, and by what clocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latdiag.report.page import Page, quantity

_BY = {
    "trace_id": "trace id",
    "request_id": "request id",
    "response_id": "response id",
}
#: More senders than this are counted, not listed.
_SHOWN = 6


def servers(page: Page, result: Mapping[str, Any]) -> None:
    """One line on the join, one a sender; nothing where no server spoke."""
    found = result.get("evidence")
    if not found:
        return
    page.gap()
    by = ", ".join(
        f"{count} by {_BY.get(how) or page.word(how, 20)}"
        for how, count in (found.get("joined_by") or {}).items()
        if count
    )
    requests, joined, told = (found.get(key, 0) for key in ("requests", "joined", "told"))
    text = f"{joined} of {requests} requests joined to spans ({by or 'none'}), {told} told whole"
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
    if clock is None or clock.get("offset_ms") is None:
        return text
    offset, half = (quantity(clock[key], "ms") for key in ("offset_ms", "half_width_ms"))
    return f"{text}; clock {offset} from the client's, known to {half}"
