"""What the two OpenAI-like dialects share: JSON in and out, usage, errors, foreign timings.

Whatever is read here is hostile: any field may be missing, of another type, huge or deep.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence

from latdiag.load.dialects.event import Ask, Event, Figures
from latdiag.load.dialects.sse import TypedData
from latdiag.model.records import OUTPUT_KINDS, Kind
from latdiag.model.text import shown

#: An object of foreign JSON: its values are proven one by one, where they are read.
Chunk = dict[str, object]
#: Text fields of one choice that no dialect knows, by name, each with a hash of its text.
Unlisted = tuple[tuple[str, int], ...]
#: What one choice of a chunk says: kind, number of token ids, finish reason, unlisted texts.
Said = tuple[Kind, int | None, object, Unlisted]

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
#: What json.loads does after its checks of types and encodings, which cost as much as the rest.
_decode = json.JSONDecoder().raw_decode

_DONE = Event(Kind.OTHER, done=True)
_EMPTY = Event(Kind.OTHER)

#: No server counts further; what does is no count.
_COUNT_LIMIT = 2**31

#: An error, and where Groq has its usage.
_RARE = frozenset({"error", "x_groq"})

#: What continuous usage is made of.
_PLAIN_USAGE = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})

_FIGURE_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_FIGURE = re.compile(r"-?\d{1,20}(\.\d{1,20})?([eE][+-]?\d{1,3})?")
_FIGURES_LIMIT = 64
_NAME_LIMIT = 64


def encode(body: Mapping[str, object], overlay: Mapping[str, object] | None) -> bytes:
    """The bytes of a request body; the user's overlay has the last word."""
    return _encode(_merged(body, overlay) if overlay else body).encode()


def _merged(body: Mapping[str, object], overlay: Mapping[str, object]) -> dict[str, object]:
    """``body`` with ``overlay`` merged in, object by object (RFC 7396: null removes a field)."""
    out = dict(body)
    for key, value in overlay.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, Mapping):
            held = out.get(key)
            out[key] = _merged(held if isinstance(held, Mapping) else {}, value)
        else:
            out[key] = value
    return out


def common_fields(ask: Ask) -> dict[str, object]:
    """The fields that both dialects send after the prompt."""
    extras = ask.extras
    fields: dict[str, object] = {"stream": True}
    options = {}
    if "usage" in extras or "continuous_usage" in extras:
        options["include_usage"] = True
    if "continuous_usage" in extras:
        options["continuous_usage_stats"] = True
    if options:
        fields["stream_options"] = options
    if ask.max_tokens is not None:
        newer = "max_completion_tokens" in extras
        fields["max_completion_tokens" if newer else "max_tokens"] = ask.max_tokens
        if "min_tokens" in extras:
            fields["min_tokens"] = ask.max_tokens
    for flag in ("ignore_eos", "return_token_ids"):
        if flag in extras:
            fields[flag] = True
    return fields


class EventReader:
    """Reads a dialect whose choices ``read_choice`` understands, and keeps the numbers in the
    ``objects`` (paths) in which servers state figures about themselves."""

    __slots__ = ("_objects", "_rare", "_read_choice")

    def __init__(
        self, read_choice: Callable[[object], Said], objects: Sequence[tuple[str, ...]]
    ) -> None:
        self._read_choice = read_choice
        self._objects = {".".join(path): path for path in objects}
        self._rare = _RARE | {path[0] for path in objects}

    def read(self, data: bytes) -> Event:
        """The Event of one event's data. Never raises, whatever the bytes."""
        chunk = _parse(data)
        if isinstance(chunk, Event):
            return chunk
        choices = chunk.get("choices")
        if type(choices) is not list or not choices:
            return self._event(chunk, Kind.OTHER, None, None, ())
        if len(choices) == 1:
            return self._event(chunk, *self._read_choice(choices[0]))
        return self._event(chunk, *_several([self._read_choice(choice) for choice in choices]))

    def _event(
        self, chunk: Chunk, kind: Kind, ids: int | None, finish: object, unlisted: Unlisted
    ) -> Event:
        """The Event of a chunk whose choices said all the rest."""
        if unlisted:
            event = _full_event(chunk, kind, ids, finish, self._timings(chunk))
            return event._replace(unlisted=unlisted)
        usage = chunk.get("usage")
        if finish is None and self._rare.isdisjoint(chunk) and "choices" in chunk:
            # Most chunks: some text, and perhaps usage without details.
            if usage is None:
                return Event(kind, ids, None, None, None, None, None, _name(chunk.get("id"), 200))
            if type(usage) is dict and usage.keys() <= _PLAIN_USAGE and usage:
                return Event(
                    Kind.USAGE if kind is Kind.OTHER else kind,
                    ids,
                    _count(usage.get("completion_tokens")),
                    _count(usage.get("prompt_tokens")),
                    None,
                    None,
                    None,
                    _name(chunk.get("id"), 200),
                )
        return _full_event(chunk, kind, ids, finish, self._timings(chunk))

    def _timings(self, chunk: Chunk) -> Figures | None:
        """Figures of the kept objects by their path; None where the chunk bears none. What is not
        at the top of a chunk may be in its first choice (SGLang)."""
        choices = chunk.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        found: Figures = {}
        for name, path in self._objects.items():
            bearer = chunk if path[0] in chunk else first
            if figures := _figures(_at(bearer, path)):
                found[name] = figures
        return found or None


#: Which kind a chunk of several choices has: output before all else, an answer before reasoning.
_RANK = {
    kind: rank
    for rank, kind in enumerate(
        (Kind.OTHER, Kind.ROLE, Kind.REASONING, Kind.REFUSAL, Kind.TOOL, Kind.ANSWER)
    )
}


def _several(said: list[Said]) -> Said:
    """Several choices in one chunk are one arrival with the tokens of all."""
    known = [ids for _, ids, _, _ in said if ids is not None]
    kind = max((kind for kind, _, _, _ in said), key=_RANK.__getitem__)
    return (
        kind,
        sum(known) if known else None,
        next((finish for _, _, finish, _ in said if finish is not None), None),
        () if kind in OUTPUT_KINDS else tuple(t for *_, texts in said for t in texts)[:_TEXTS],
    )


# ---------------------------------------------------------------------- text in other fields
#: Where servers put what a model thinks: text, or objects that hold it (vLLM, SGLang, DeepSeek;
#: OpenRouter's ``reasoning_details``, LiteLLM's ``thinking_blocks``, Ollama's ``thinking``).
_THOUGHTS = (
    "reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks",
    "reasoning_text", "thought", "thoughts",
)  # fmt: skip
#: What an object of thoughts says of them, and no output.
_LABELS = frozenset({"type", "format", "id", "index", "signature", "role", "name", "object"})
#: Texts of a choice or its delta that are no output, whatever they hold.
_WORDS = _LABELS | {"finish_reason", "stop_reason", "native_finish_reason", "tool_call_id",
                    "model", "matched_stop", "content_filter_results"}  # fmt: skip
_DEEP, _TEXTS = 3, 4


def thinks(fields: Chunk) -> bool:
    """Whether a delta or a choice bears what a model thinks before it answers."""
    return any(_bears_text(fields[name], _DEEP) for name in _THOUGHTS if name in fields)


def _bears_text(value: object, deep: int) -> bool:
    """Text, or objects and lists that hold some outside of their labels."""
    if type(value) is str:
        return value != ""
    if deep and type(value) is list:
        return any(_bears_text(each, deep - 1) for each in value)
    if deep and type(value) is dict:
        inner = (each for name, each in value.items() if name not in _LABELS)
        return any(_bears_text(each, deep - 1) for each in inner)
    return False


def unlisted(fields: Chunk) -> Unlisted:
    """The texts of a delta or a choice in fields that are not known. Whether they are output, one
    event alone does not tell: a label stays the same or is one of few, what is generated does
    not."""
    found = [
        (name[:_NAME_LIMIT], hash(value))
        for name, value in fields.items()
        if type(value) is str and value and name not in _WORDS
    ]
    return tuple(found[:_TEXTS])


def _parse(data: bytes) -> Chunk | Event:
    """The JSON object of an event, or the finished Event where it is none."""
    try:
        text = str(data, "utf-8")
        found, end = _decode(text)
    except (ValueError, RecursionError):
        return _parse_odd(data)
    if end != len(text) or type(found) is not dict or type(data) is not bytes:
        return _parse_odd(data)
    return found


def _parse_odd(data: bytes) -> Chunk | Event:
    """What is not an object alone: the end mark, keep-alives, typed events, rubbish."""
    stripped = data.strip()
    if stripped == b"[DONE]":
        return _DONE
    if isinstance(data, TypedData) and data.event_type == "error":
        return Event(Kind.ERROR, error=_typed_error(stripped))
    if not stripped:
        return _EMPTY
    try:
        found = json.loads(stripped.decode())
    except UnicodeDecodeError:
        return _unreadable(f"an event of {len(data)} bytes is not UTF-8")
    except (ValueError, RecursionError):
        return _unreadable(f"an event of {len(data)} bytes is not JSON")
    if not isinstance(found, dict):
        return _unreadable("an event is JSON, but not an object")
    return found


def _unreadable(text: str) -> Event:
    return Event(Kind.ERROR, error=text, unreadable=True)


def _typed_error(data: bytes) -> str:
    """The sentence of an event of type ``error``: JSON in some form, or plain text."""
    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError):
        return shown(data[:2000].decode("utf-8", "replace")) or "an error event without data"
    inner = found.get("error") if isinstance(found, dict) else None
    return _error_text(inner or found)


def _error_text(error: object) -> str:
    """One bounded sentence out of an error object of any shape."""
    if isinstance(error, str):
        return shown(error) or "an error without a message"
    if not isinstance(error, dict):
        return "an error without a message"
    message = next((v for k in ("message", "detail", "error") if _is_text(v := error.get(k))), "")
    label = next((v for k in ("type", "code") if _is_text(v := error.get(k))), "")
    return shown(": ".join(p for p in (label, message) if p)) or "an error without a message"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _full_event(
    chunk: Chunk, kind: Kind, ids: int | None, finish: object, timings: Figures | None
) -> Event:
    error = chunk.get("error")
    bare = chunk.get("object") == "error" or ("choices" not in chunk and "code" in chunk)
    if not error and bare and "message" in chunk:
        error = chunk  # older vLLM and SGLang; Dynamo
    usage = _usage(chunk)
    if kind is Kind.OTHER and usage:
        kind = Kind.USAGE
    details = _inside(usage, "prompt_tokens_details")
    output_details = _inside(usage, "completion_tokens_details")
    cached = _count(details.get("cached_tokens"))
    reasoning = _count(output_details.get("reasoning_tokens"))
    return Event(
        Kind.ERROR if error else kind,
        ids,
        _count(usage.get("completion_tokens")),
        _count(usage.get("prompt_tokens")),
        _count(usage.get("prompt_cache_hit_tokens")) if cached is None else cached,
        _count(usage.get("reasoning_tokens")) if reasoning is None else reasoning,
        _name(finish, 40),
        _name(chunk.get("id"), 200),
        _error_text(error) if error else None,
        False,
        timings,
    )


def _usage(chunk: Chunk) -> Chunk:
    """The usage object: at the top, inside the last choice, or where Groq has it."""
    found = chunk.get("usage")
    if isinstance(found, dict):
        return found
    choices = chunk.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        inner = _inside(choices[0], "usage")
        if inner:
            return inner
    return _inside(_inside(chunk, "x_groq"), "usage")


def _inside(outer: Chunk, key: str) -> Chunk:
    found = outer.get(key)
    return found if isinstance(found, dict) else {}


def _count(value: object) -> int | None:
    """A token count, or None for whatever is none."""
    if type(value) is int and 0 <= value < _COUNT_LIMIT:
        return value
    return None


def token_ids(choice: Chunk, listed_in: str) -> int | None:
    """How many tokens a choice says it brings: by their ids (vLLM, SGLang), else by the log
    probabilities in its list ``listed_in``; None where it bears neither.
    """
    ids = choice.get("token_ids")
    if type(ids) is list:
        return len(ids)
    logprobs = choice.get("logprobs")
    if type(logprobs) is dict:
        listed = logprobs.get(listed_in)
        return len(listed) if type(listed) is list else None
    return None


def _name(value: object, limit: int) -> str | None:
    """An identifier from outside: harmless and bounded."""
    if type(value) is not str or not value:
        return None
    if len(value) <= limit and value.isascii() and value.isprintable():
        return value
    return shown(value, limit) or None


def _at(bearer: object, path: tuple[str, ...]) -> object:
    """What an object holds at a path; None where there is nothing."""
    for key in path:
        if not isinstance(bearer, dict):
            return None
        bearer = bearer.get(key)
    return bearer


def _figures(value: object, depth: int = 2) -> Figures:
    """The numbers of an object, verbatim, two objects deep at most.

    Texts and lists stay out: they may hold the reply. A number written as text is a number.
    """
    if not isinstance(value, dict):
        return {}
    out: Figures = {}
    for key, inner in value.items():
        if len(out) >= _FIGURES_LIMIT:
            break
        if not _FIGURE_NAME.fullmatch(key):
            continue
        if isinstance(inner, dict) and depth > 1:
            kept = _figures(inner, depth - 1)
            if kept:
                out[key] = kept
        elif _is_figure(inner):
            out[key] = inner
    return out


def _is_figure(value: object) -> bool:
    if isinstance(value, int):  # bool is one too
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) and _FIGURE.fullmatch(value) is not None
