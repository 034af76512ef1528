"""``/v1/chat/completions``: OpenAI, vLLM, SGLang, Dynamo, TensorRT-LLM, llama.cpp and others."""

from __future__ import annotations

from collections.abc import Callable

from latdiag.load.dialects.event import Ask, Event
from latdiag.load.dialects.openai import (
    Chunk,
    EventReader,
    Said,
    common_fields,
    encode,
    thinks,
    token_ids,
    unlisted,
)
from latdiag.model.errors import UsageFault
from latdiag.model.records import Kind
from latdiag.stacks.signal import ReplyFields

#: Kinds of a choice without known output.
_BARE = (Kind.OTHER, Kind.ROLE)
#: What nearly all bear.
_ANSWER = Kind.ANSWER


class OpenAIChat:
    """Chat completions, streamed."""

    name = "openai-chat"
    path = "/v1/chat/completions"
    takes_token_ids = False

    def body(self, ask: Ask) -> bytes:
        """The request body; UsageFault for a prompt of token ids, which chat does not take."""
        messages = ask.messages
        if messages is None:
            if not isinstance(ask.prompt, str):
                raise UsageFault(
                    "a chat request takes text, not token ids", "use --path /v1/completions"
                )
            messages = [{"role": "user", "content": ask.prompt}]
        fields = {"model": ask.model, "messages": messages, **common_fields(ask)}
        return encode(fields, ask.overlay)

    def reader(self, fields: ReplyFields) -> Callable[[bytes], Event]:
        """Makes an Event of one event's data; it never raises."""
        return EventReader(_choice, fields.objects).read


def _choice(choice: object) -> Said:
    """What one choice says."""
    if type(choice) is not dict:
        return Kind.OTHER, None, None, ()
    delta = choice.get("delta")
    if type(delta) is not dict:
        delta = choice.get("message")  # a reply that was not streamed after all
        if type(delta) is not dict:
            delta = {}
    kind = _kind(delta)
    texts = () if kind is _ANSWER or kind not in _BARE else unlisted(delta) or unlisted(choice)
    return kind, token_ids(choice, "content"), choice.get("finish_reason"), texts


def _kind(delta: Chunk) -> Kind:
    """What a delta bears. Empty fields bear nothing; the answer wins over reasoning."""
    content = delta.get("content")
    if content and type(content) is str:
        return Kind.ANSWER
    found = _parts_kind(content) if type(content) is list else None
    if found is Kind.ANSWER:
        return found
    if _tool(delta.get("tool_calls")) or _called(delta.get("function_call")):
        return Kind.TOOL
    if _text(delta.get("refusal")):
        return Kind.REFUSAL
    if found or thinks(delta):
        return Kind.REASONING
    if _spoken(delta.get("audio")):
        return Kind.ANSWER
    return Kind.ROLE if _text(delta.get("role")) else Kind.OTHER


def _spoken(audio: object) -> bool:
    """Whether a piece of speech came, or of its transcript (OpenAI's ``audio``)."""
    return type(audio) is dict and (_text(audio.get("data")) or _text(audio.get("transcript")))


def _text(value: object) -> bool:
    return type(value) is str and value != ""


def _parts_kind(parts: list[object]) -> Kind | None:
    """Content as a list of typed parts (Mistral): thinking, or text of the answer."""
    kinds = set()
    for part in parts:
        if type(part) is not dict:
            continue
        if part.get("type") == "thinking" or part.get("thinking"):
            kinds.add(Kind.REASONING)
        elif _text(part.get("text")) or _text(part.get("content")):
            kinds.add(Kind.ANSWER)
    return max(kinds, default=None)


def _tool(calls: object) -> bool:
    """Whether a list of tool call deltas bears any output: a name or a piece of arguments."""
    return type(calls) is list and any(
        type(call) is dict and (_called(call.get("function")) or _called(call.get("custom")))
        for call in calls
    )


def _called(function: object) -> bool:
    return type(function) is dict and any(
        _text(function.get(key)) for key in ("name", "arguments", "input")
    )
