"""What ``collect`` says: while spans and samples come, and in the end."""

from __future__ import annotations

from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING

from latdiag.diagnosis.collected import Collected, caveats
from latdiag.diagnosis.result import Result
from latdiag.model.document import document
from latdiag.model.text import shown
from latdiag.model.units import show_duration
from latdiag.report.page import WIDTH, Page
from latdiag.store.place import displayed

if TYPE_CHECKING:
    from latdiag.ingest.collection import Collection
    from latdiag.ingest.plan import Account

#: Senders that are named in one line.
_NAMED = 5


def progress_lines(account: Account, seconds: int) -> list[str]:
    """What arrived so far, and which senders no stack here knows."""
    total = account.senders_total
    spans = f"{account.accepted} spans from {total} sender{'s' * (total != 1)}"
    parts = [spans]
    if account.samples:
        parts.append(f"{account.samples} samples in {sum(account.scrapes.values())} scrapes")
    if refused := sum(account.refused.values()):
        parts.append(f"{refused} spans refused")
    if turned_away := sum(account.refused_exports.values()):
        parts.append(f"{turned_away} exports refused")
    if wrong := sum(account.wrong_doors.values()):
        parts.append(f"{wrong} connections at the wrong port")
    if account.forward_failed:
        parts.append(f"{account.forward_failed} exports not forwarded")
    if account.disk_cap_reached:
        parts.append("--max-disk is reached")
    lines = wrap(f"{seconds} s: {', '.join(parts)}", WIDTH, subsequent_indent="  ")
    unknown = [sender for sender in account.senders if not sender.known]
    for sender in unknown[:_NAMED]:
        names = ", ".join(shown(name, 40) for name in sender.span_names[:3])
        service = sender.service or sender.sender
        text = f"  from a stack that latdiag does not know: {shown(service, 60)} ({names})"
        lines += wrap(text, WIDTH, subsequent_indent="    ")
    if account.unknown_senders > _NAMED:
        more = account.unknown_senders - _NAMED
        lines.append(f"  and {more} more senders from unknown stacks")
    return lines


def result_of(path: str, collection: Collection) -> Result:
    """The result of what was collected into the run at ``path``, as if read from there."""
    counts = Collected.read(document(collection.account))
    return Result(
        verb="collect",
        run=displayed(path),
        collected=replace(counts, duration_ns=collection.duration_ns, stopped=collection.stopped),
        caveats=tuple(caveats(counts)),
    )


def received(page: Page, result: Result) -> None:
    """What the receiver took, from whom, and what it did not take; nothing where there was none,
    or where it stood beside a load, whose page has the spans."""
    found = result.collected
    if found is None or found.senders is None:
        return
    page.gap()
    page.line(f"Collected for {show_duration(found.duration_ns or 0)}")
    page.line(f"  spans      {_counted(found.accepted)} in {found.exports} exports")
    for sender in found.senders[:_NAMED]:
        mark = "" if sender.known else "  (unknown stack)"
        name = page.word(sender.service or sender.sender, 36 if mark else 60)
        page.line(f"    {_counted(sender.spans):>12}  {name}{mark}")
    rest = found.senders[_NAMED:]
    if rest:
        page.line(f"    {_counted(sum(s.spans for s in rest)):>12}  {len(rest)} others")
    scrapes = sum(found.scrapes.values())
    page.line(f"  samples    {_counted(found.samples)} in {scrapes} scrapes")
    for text in _oddities(found):
        page.paragraph(page.word(text, 300), "  ", " " * 13)


def _oddities(found: Collected) -> list[str]:
    """What is not as it should be, a line each."""
    lines = [f"refused    {_counted(n)} spans: {why}" for why, n in found.refused.items()]
    lines += [
        f"refused    {_counted(n)} exports: {why}" for why, n in found.refused_exports.items()
    ]
    lines += [
        f"left out   {_counted(n)} exports of {what}" for what, n in found.other_signals.items()
    ]
    lines += _at_wrong_doors(found)
    if found.lost:
        lines.append(f"lost       {_counted(found.lost)} accepted spans: the disk was full")
    if found.forwarded is not None:
        failed = found.forward_failed
        lines.append(f"forwarded  {_counted(found.forwarded)} exports, {failed} failed")
    if found.disk_cap_reached:
        lines.append("stopped    collecting at --max-disk")
    lines += [
        f"scraping   {shown(p.replica, 60)}: {shown(p.text, 80)}"
        for p in found.scrape_problems[:_NAMED]
    ]
    if not found.accepted and not found.samples:
        lines.append("nothing    arrived: check that the server's exporter is on and points here")
    return lines


def _at_wrong_doors(found: Collected) -> list[str]:
    doors = (found.wrong_doors or {}).items()
    return [f"wrong port {_counted(n)} times: {shown(what, 120)}" for what, n in doors]


def _counted(number: int) -> str:
    return f"{number:,}".replace(",", " ")
