"""Traces that leave while the load runs, by a process of their own.

The queue is the run on disk: the process reads what the writers have put there, gives way to all
that measures, and may be too slow without anybody waiting for it. What it has not sent when its
time is over after the load is counted. Forked, so nothing heavy is imported here at the top.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from latdiag.export.way import Way
from latdiag.ingest.gathering import Gather, Heard
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.units import NS_PER_S, seconds
from latdiag.runtime.channel import Channel, message
from latdiag.runtime.children import LATER, fork_talking

if TYPE_CHECKING:
    from latdiag.export.delivery import Delivery

#: How often what is new is read: as often as a young run is written.
_EVERY_S = 1.0
#: How long after the load it may send what is left, and a batch may take.
PATIENCE_NS, BATCH_NS = 10 * NS_PER_S, 3 * NS_PER_S
#: A batch is tried so many times, and waited for between them; see ``delivery``.
_TRIES, _BETWEEN_S = 3, 2.5
#: To read, to count and to answer.
_CLOSING_S = 60.0


@message
@dataclass(frozen=True, slots=True)
class LoadOver:
    """``patience_ns``: for what is left."""

    patience_ns: int


@message
@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a load's traces. ``attempts``: finished; ``unread``: those of them that were
    still waiting at the end, ``unplaced``: without a time of day. ``spans``: made of the others,
    of which the receiver took ``delivered``; ``reasons``: spans by why it did not."""

    attempts: int = 0
    unread: int = 0
    unplaced: int = 0
    spans: int = 0
    delivered: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def exporting(
    path: str, *, way: Way, gather: Gather, say: Callable[[str], None]
) -> Iterator[Heard]:
    """``gather`` for the run at ``path``, and its traces on their ``way`` meanwhile. What did not
    arrive is a caveat of what was heard, and never a fault."""
    child, channel = fork_talking(partial(_live, path, way, os.getpid()), "latdiag-export", LATER)
    try:
        with gather(path) as heard:
            yield heard
        patience_ns = 0 if heard.stopped else PATIENCE_NS
        channel.send(LoadOver(patience_ns))
        batch_s = _TRIES * seconds(BATCH_NS) + _BETWEEN_S
        sent = channel.receive(seconds(patience_ns) + batch_s + _CLOSING_S)
        sent = sent if isinstance(sent, Sent) else None
        if sent is not None:
            say(f"exported {sent.delivered:,} of {sent.spans:,} spans to {way.name}")
        for each in caveats_of(sent, way.name):
            say(each.text)
            heard.caveats = (*heard.caveats, each)
    finally:
        channel.close()
        child.end(patience_s=0.5)


def caveats_of(sent: Sent | None, place: str) -> Iterator[Caveat]:
    """What did not arrive at ``place``; None: nobody could say."""
    if sent is None:
        why = "the process that sends them gave no account"
        yield caveat("LD434", place=place, why=why)
        return
    parts = [f"{n:,} of {sent.spans:,} spans: {text}" for text, n in sent.reasons.items()]
    for count, what in (
        (sent.unread, "were still waiting when the time after the load was over"),
        (sent.unplaced, "have no time of day"),
    ):
        if count:
            parts.append(f"{count:,} of {sent.attempts:,} requests {what}")
    if parts:
        yield caveat("LD434", place=place, why="; ".join(parts[:3]))


def _live(path: str, way: Way, parent: int, channel: Channel) -> None:
    """The life of the process."""
    follower, until = Follower(path, way), None
    while not channel.ended and os.getppid() == parent:
        said = channel.receive(_EVERY_S if until is None else 0.0)
        if isinstance(said, LoadOver):
            until = time.monotonic() + seconds(said.patience_ns)
        follower.step(until)
        if until is not None:
            follower.step(until)  # what was written while the last step went on
            channel.send(follower.account())
            return


class Follower:
    """Sends the traces of what is new in the run at ``path``."""

    def __init__(self, path: str, way: Way) -> None:
        from latdiag.export.delivery import Delivery
        from latdiag.export.senders import sender_of

        self._path = path
        self._sender = sender_of(way)
        self._seen: set[str] = set()
        self._attempts = self._unread = self._unplaced = 0
        self._total: Delivery = Delivery()

    def step(self, until: float | None = None) -> None:
        """Send what finished since the last one, or count it where ``until`` (monotonic, s) is
        over."""
        from latdiag.attribution.client_only import partition
        from latdiag.export.attempts import Attempts
        from latdiag.export.choice import Wanted
        from latdiag.export.delivery import deliver
        from latdiag.export.spans import traces
        from latdiag.store.run import News

        news = News.open(self._path)
        assert isinstance(news, News)
        news.seen = self._seen
        if until is not None and time.monotonic() >= until:
            count = sum(batch.n for batch in news.batches(["attempt"]))
            self._attempts, self._unread = self._attempts + count, self._unread + count
            return
        attempts = Attempts(news, Wanted(at_most=2**62), partition)
        self._attempts += len(attempts.table)
        self._unplaced += attempts.unplaced
        self._total.add(deliver(traces(attempts, live=True), self._sender))

    def account(self) -> Sent:
        """So far."""
        total = self._total
        return Sent(
            self._attempts, self._unread, self._unplaced, total.spans, total.delivered,
            dict(total.reasons.most_common(3)),
        )  # fmt: skip
