"""How an engine tells its tokens: which events a stream has, and what they bring."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from latdiag.load.dialects import DIALECTS
from latdiag.model.records import Kind
from latdiag.stacks.signal import ReplyFields

from .request import Event, Request

#: How a reply counts its tokens: each event bears ids, or the total so far, or nothing.
COUNTS = ("ids", "so far", "nothing")


@cache
def kind_of(field: str) -> Kind:
    """As the client's dialect reads a delta whose text stands in this field."""
    choice = {"index": 0, "delta": {field: text_in(field, "word")}, "finish_reason": None}
    read = DIALECTS["openai-chat"].reader(ReplyFields())
    return read(json.dumps({"choices": [choice]}).encode()).kind


def text_in(field: str, text: str) -> object:
    """``text`` in the form that a field has (OpenRouter's is a list of parts)."""
    if field != "reasoning_details":
        return text
    return [{"type": "reasoning.text", "text": text}]


@dataclass(frozen=True, slots=True)
class Habit:
    """``chunk``: tokens of an event. ``hidden``: (share of the replies, most tokens) that are made
    first and never sent; only usage counts them. ``mute``: so many tokens at the start whose text
    comes with the next one that has text. ``thinks``: share of the tokens that are reasoning, sent
    in the field ``thought``, which the client may not know. ``head``: the reply's head goes out
    when the prompt was taken (``early``) or with the ``first`` event. ``role``: an event without
    text goes out ``early``, with the ``first`` token, or not at all (``none``). ``counts``: see
    above. ``usage``: an event of its own at the end."""

    chunk: int = 1
    hidden: tuple[float, int] = (0.0, 0)
    mute: int = 0
    thinks: float = 0.0
    thought: str = "reasoning_content"
    head: str = "early"
    role: str = "first"
    counts: str = "ids"
    usage: bool = True

    def begin(self, request: Request, draw: random.Random, emit: Callable[[Event], None]) -> None:
        """The prompt was taken."""
        request.notes["habit"] = self
        share, most = self.hidden
        if share and draw.random() < share:
            request.notes["hidden"] = draw.randint(max(1, most // 2), most)
        if self.head == "early":
            emit(Event(Kind.OTHER, head=True))
        if self.role == "early":
            self._emit(request, Event(Kind.ROLE), emit)

    def tokens(self, request: Request) -> int:
        """That the engine makes for it."""
        return request.osl + int(request.notes.get("hidden", 0))

    def unseen(self, request: Request) -> bool:
        """Whether nobody has seen anything of the tokens made so far."""
        least = max(self.mute, self.chunk - 1)
        silent = int(request.notes.get("hidden", 0)) + min(least, request.osl - 1)
        return request.made <= silent

    def token(self, request: Request, emit: Callable[[Event], None]) -> bool:
        """``request.made`` tokens are there; whether the reply is at its end."""
        ends = request.made >= self.tokens(request)
        shown = request.made - int(request.notes.get("hidden", 0))
        sent = int(request.notes.get("sent", 0))
        if shown <= 0 or (self.unseen(request) and not ends):
            return False
        if shown - sent >= self.chunk or ends:
            if not sent and self.role == "first":
                self._emit(request, Event(Kind.ROLE), emit)
            request.notes["sent"] = shown
            field = self.thought if shown <= self.thinks * request.osl else "content"
            event = Event(kind_of(field), shown - sent, ends and not self.usage)
            event.so_far, event.text = request.made, field
            self._emit(request, event, emit)
        if ends and self.usage:
            self._emit(request, Event(Kind.USAGE, 0, True, so_far=request.made), emit)
        return ends

    def _emit(self, request: Request, event: Event, emit: Callable[[Event], None]) -> None:
        if not request.notes.get("head") and self.head == "first":
            emit(Event(Kind.OTHER, head=True))
        request.notes["head"] = True
        emit(event)
