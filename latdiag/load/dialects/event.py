"""What a dialect is asked to send, and what it makes of what it receives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from latdiag.model.records import Kind
from latdiag.stacks.signal import ReplyFields

#: Fields beyond what every server takes. A hosted API refuses what it does not know, so each is
#: sent only when asked for, and whoever sends tries again without those that were refused.
EXTRAS = frozenset(
    {
        "usage",  # stream_options.include_usage: the totals, in a chunk of their own
        "continuous_usage",  # stream_options.continuous_usage_stats: usage in every chunk
        "ignore_eos",  # go on after the end of sequence
        "min_tokens",  # not shorter than max_tokens
        "return_token_ids",  # the ids of a chunk's tokens
        "max_completion_tokens",  # the newer name of max_tokens; some hosted models insist on it
    }
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``prompt``: text, or token ids where the dialect takes them; ``messages``
    stand in its place. Prompts are no part of the repr: a traceback must not show them.
    """

    model: str
    prompt: str | Sequence[int] = field(repr=False)
    max_tokens: int | None = None
    extras: frozenset[str] = frozenset()
    overlay: Mapping[str, object] | None = field(default=None, repr=False)
    messages: Sequence[Mapping[str, object]] | None = field(default=None, repr=False)


#: Figures that a server states about itself, by their foreign names and verbatim: numbers, texts
#: that are numbers, and objects of such.
Figures: TypeAlias = dict[str, "int | float | str | Figures"]


class Event(NamedTuple):
    """What one SSE event said. It bears no text of the reply.

    ``ids``: tokens in this event, where their ids (or log probabilities) came along.
    ``completion_tokens``: output tokens so far. ``finish``: why the reply ends. ``error``: a
    bounded sentence. ``done``: the end mark of the stream. ``timings``: what the
    server states about itself. ``unreadable``: the error is
    not the server's: what it sent is no event of this dialect. ``unlisted``: of an event without
    known output, text fields that no dialect knows, each with a hash of what it holds.
    """

    kind: Kind
    ids: int | None = None
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish: str | None = None
    response_id: str | None = None
    error: str | None = None
    done: bool = False
    timings: Figures | None = None
    unreadable: bool = False
    unlisted: tuple[tuple[str, int], ...] = ()


class Dialect(Protocol):
    """A way to speak to a server. Stateless: any process may read any event."""

    @property
    def name(self) -> str:
        """What a plan calls it."""

    @property
    def path(self) -> str:
        """Where it is spoken when the user names no path."""

    @property
    def takes_token_ids(self) -> bool:
        """Whether a prompt may be token ids: then its length is exact without a tokenizer."""

    def body(self, ask: Ask) -> bytes:
        """The request body; UsageFault where the dialect cannot say what is asked."""

    def reader(self, fields: ReplyFields) -> Callable[[bytes], Event]:
        """Makes an Event of the data of one event, with the numbers that ``fields`` name. It never
        raises, whatever the bytes."""
