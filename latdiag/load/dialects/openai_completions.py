"""``/v1/completions``: text in, text out; takes token ids, so prompts of exact length."""

from __future__ import annotations

from collections.abc import Callable

from latdiag.load.dialects.event import Ask, Event
from latdiag.load.dialects.openai import (
    EventReader,
    Said,
    Unlisted,
    common_fields,
    encode,
    thinks,
    token_ids,
    unlisted,
)
from latdiag.model.errors import UsageFault
from latdiag.model.records import Kind
from latdiag.stacks.signal import ReplyFields


class OpenAICompletions:
    """Completions, streamed."""

    name = "openai-completions"
    path = "/v1/completions"
    takes_token_ids = True

    def body(self, ask: Ask) -> bytes:
        """The request body; UsageFault for messages, which completions do not take."""
        if ask.messages is not None:
            raise UsageFault(
                "a completions request takes a prompt, not messages",
                "use --path /v1/chat/completions",
            )
        fields = {"model": ask.model, "prompt": ask.prompt, **common_fields(ask)}
        return encode(fields, ask.overlay)

    def reader(self, fields: ReplyFields) -> Callable[[bytes], Event]:
        """Makes an Event of one event's data; it never raises."""
        return EventReader(_choice, fields.objects).read


def _choice(choice: object) -> Said:
    """What one choice says."""
    if type(choice) is not dict:
        return Kind.OTHER, None, None, ()
    text = choice.get("text")
    texts: Unlisted = ()
    if text and type(text) is str:
        kind = Kind.ANSWER
    elif thinks(choice):
        kind = Kind.REASONING
    else:
        kind, texts = Kind.OTHER, unlisted(choice)
    return kind, token_ids(choice, "tokens"), choice.get("finish_reason"), texts
