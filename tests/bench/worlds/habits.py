"""How an engine tells its tokens: which events a stream has, and what they bring."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from latdiag.model.records import Kind

from .request import Event, Request


@dataclass(frozen=True, slots=True)
class Habit:
    """``chunk``: tokens of an event. ``hidden``: (share of the requests, most tokens) that are
    made first, counted in usage and never sent. ``mute``: so many tokens at the start whose text
    comes with the next one that has text. ``role``: an event without text comes before, ``early``
    (when the prompt was taken), with the ``first`` token, or not at all (``none``). ``counts``:
    events say how many tokens they bring. ``usage``: an event of its own at the end."""

    chunk: int = 1
    hidden: tuple[float, int] = (0.0, 0)
    mute: int = 0
    role: str = "first"
    counts: bool = True
    usage: bool = True

    def begin(self, request: Request, draw: random.Random, emit: Callable[[Event], None]) -> None:
        """The prompt was taken."""
        request.notes["counts"] = self.counts
        share, most = self.hidden
        if share and draw.random() < share:
            request.notes["hidden"] = draw.randint(max(1, most // 2), most)
        if self.role == "early":
            emit(Event(Kind.ROLE))

    def tokens(self, request: Request) -> int:
        """That the engine makes for it."""
        return request.osl + int(request.notes.get("hidden", 0))

    def unseen(self, request: Request) -> bool:
        """Whether nobody has seen anything of the tokens made so far."""
        return request.made <= self._silent(request)

    def _silent(self, request: Request) -> int:
        least = max(self.mute, self.chunk - 1)
        return int(request.notes.get("hidden", 0)) + min(least, request.osl - 1)

    def token(self, request: Request, emit: Callable[[Event], None]) -> bool:
        """``request.made`` tokens are there; whether the reply is at its end."""
        ends = request.made >= self.tokens(request)
        shown = request.made - int(request.notes.get("hidden", 0))
        sent = int(request.notes.get("sent", 0))
        if shown <= 0 or (self.unseen(request) and not ends):
            return False
        if shown - sent >= self.chunk or ends:
            if not sent and self.role == "first":
                emit(Event(Kind.ROLE))
            request.notes["sent"] = shown
            emit(Event(Kind.ANSWER, shown - sent, last=ends and not self.usage))
        if ends and self.usage:
            emit(Event(Kind.USAGE, last=True))
        return ends
