"""What ``export`` says of what it sent or wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latdiag.model.text import shown
from latdiag.model.units import show_ms

if TYPE_CHECKING:
    from latdiag.export.delivery import Delivery
    from latdiag.export.exported import Exported

#: What files have that is not a row for each request.
_ROWS = {"perfetto": "events", "openmetrics": "samples"}


def lines_of(found: Exported) -> list[str]:
    """Lines for people."""
    lines = [_first(found)]
    if found.sampled:
        lines.append(
            f"a sample: {found.matching:,} requests match, and --at-most allows fewer; they are"
            " drawn by their ids, so that another export draws the same"
        )
    if found.unplaced:
        lines.append(
            f"{found.unplaced:,} requests were left out: no clock says at what time of day they"
            " were sent"
        )
    if found.delivery is not None:
        lines += _of_delivery(found.delivery)
    if found.slowest and found.delivery is not None and found.delivery.delivered:
        lines.append("slowest requests, by trace:")
        lines += [f"  {one.trace_id}  {show_ms(one.ns)} ms" for one in found.slowest]
    return lines


def _first(found: Exported) -> str:
    matching = "" if found.matching == found.of else f" ({found.matching:,} of {found.of:,} match)"
    place = shown(found.place)
    if not found.exported:
        return f"nothing to export to {place}: no request of the run can be exported{matching}"
    if found.delivery is not None:
        return (
            f"{found.exported:,} requests{matching} as {found.delivery.spans:,} spans to {place}"
        )
    counted = f", {found.rows:,} {_ROWS[found.to]}," if found.to in _ROWS else ""
    return f"{found.exported:,} requests{matching}{counted} in {place}"


def _of_delivery(sent: Delivery) -> list[str]:
    if not sent.spans:
        return []
    if sent.complete:
        again = f", {sent.repeated:,} batches were sent again" if sent.repeated else ""
        return [f"all {sent.delivered:,} spans delivered{again}"] + [
            f"  the receiver says: {text}" for text in sent.warnings
        ]
    counts = {
        "rejected by the receiver": sent.rejected,
        "lost (no answer: they may have arrived)": sent.lost,
        "not sent": sent.unsent,
    }
    told = "; ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return [f"{sent.delivered:,} of {sent.spans:,} spans delivered; {told}"] + [
        f"  {spans:,} spans: {text}" for text, spans in sent.reasons.most_common()
    ]
