"""OpenAI's completion APIs as vLLM speaks them: request bodies in, events and replies out.

No sockets and no clock. A word is a token; what the words are does not matter, only how many.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from latdiag.sim.http import LAST_CHUNK, Refusal, chunk, json_object

CHAT, COMPLETIONS, MODELS = "/v1/chat/completions", "/v1/completions", "/v1/models"
#: Tokens that the chat template puts before and after the words of all messages.
TEMPLATE_BEFORE, TEMPLATE_AFTER = (1, 2, 3, 4), (5, 6, 7, 8)
TEMPLATE_TOKENS = len(TEMPLATE_BEFORE) + len(TEMPLATE_AFTER)
#: How long a chat reply is that nobody bounded, on a server whose replies never end by themselves.
UNBOUNDED_OSL = 256
_DEFAULT_OSL = 16
_VOCABULARY = 32_000
_SENTENCE = "the first light of day came over the hills and the river below them lay still"
_WORDS = tuple(_SENTENCE.split())
_TEXTS = [json.dumps(f" {word}").encode() for word in _WORDS]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a server takes. ``refuses``: names of fields (params.REFUSABLE) that it does not.
    ``eos_mean``: mean length of the replies that may end by themselves; None: they never do.
    """

    model: str
    max_model_len: int
    refuses: frozenset[str] = frozenset()
    eos_mean: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What a completion request asks for.

    ``prompt``: token ids. ``max_tokens``: most tokens of the reply. ``min_tokens``: it does not
    end by itself before. ``bounded``: whether the client or the API set ``max_tokens``, and not
    we. ``ends``: whether the reply may end by itself at all. ``refusal``: what is wrong with it as
    far as only the tokenised prompt shows, or as vLLM finds out only then.
    """

    chat: bool
    prompt: list[int]
    max_tokens: int
    min_tokens: int
    bounded: bool
    ends: bool
    stream: bool
    usage: bool
    continuous_usage: bool
    token_ids: bool
    temperature: float
    refusal: Refusal | None

    @property
    def isl(self) -> int:
        return len(self.prompt)

    def length(self, eos_mean: int | None, uniform: float) -> tuple[int, str]:
        """Tokens of the reply and its finish reason, out of a uniform draw from [0, 1).

        A reply that may end by itself has a geometric length.
        """
        if self.ends and eos_mean:
            own = max(self.min_tokens, geometric(eos_mean, uniform))
            if own < self.max_tokens:
                return own, "stop"
        return self.max_tokens, "length" if self.bounded else "stop"


# ---------------------------------------------------------------------- in
def parse_ask(body: bytes, *, chat: bool, rules: Rules) -> Ask:
    """The request that a body is. Raises Refusal for what can be refused before tokenising."""
    fields = json_object(body)
    model = fields.get("model")
    if model is not None and model != rules.model:
        raise Refusal(404, f"The model `{str(model)[:100]}` does not exist.", "model")
    prompt = _messages(fields.get("messages")) if chat else _prompt(fields.get("prompt"))
    options = fields.get("stream_options") or {}
    if not isinstance(options, dict):
        raise Refusal(400, "stream_options is an object", "stream_options")
    if _whole(fields, "n", 1) != 1:
        raise Refusal(400, "this server gives one choice: n is 1", "n")
    limit = _whole(fields, "max_tokens", None)
    if chat:
        limit = _whole(fields, "max_completion_tokens", limit)
    left = max(1, rules.max_model_len - len(prompt))
    free = min(left, _DEFAULT_OSL if not chat else UNBOUNDED_OSL if not rules.eos_mean else left)
    temperature = _number(fields, "temperature", 1.0)
    min_tokens = _whole(fields, "min_tokens", 0) or 0
    ask = Ask(
        chat=chat,
        prompt=prompt,
        max_tokens=free if limit is None else limit,
        min_tokens=min_tokens,
        bounded=limit is not None or not chat,
        ends=not fields.get("ignore_eos"),
        stream=bool(fields.get("stream")),
        usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        token_ids=bool(fields.get("return_token_ids")),
        temperature=temperature,
        refusal=None,
    )
    named = {name for name, value in fields.items() if value is not None}
    if ask.continuous_usage:
        named.add("continuous_usage")
    return replace(ask, refusal=_refusal(ask, named & rules.refuses, rules.max_model_len))


def _refusal(ask: Ask, unknown: set[str], max_model_len: int) -> Refusal | None:
    """What a server answers with 400 once it has tokenised the prompt. ``unknown``: fields of
    the body that it does not take."""
    if unknown:
        name = min(unknown)
        return Refusal(400, f"this server does not know the field {name}", name)
    if ask.temperature < 0:
        return Refusal(400, f"temperature is {ask.temperature}, below 0", "temperature")
    if not ask.prompt:
        return Refusal(400, "the prompt is empty", "prompt")
    if ask.max_tokens < 1:
        return Refusal(400, f"max_tokens is {ask.max_tokens}, below 1", "max_tokens")
    if not 0 <= ask.min_tokens <= ask.max_tokens:
        text = f"min_tokens is {ask.min_tokens}, not within 0 and {ask.max_tokens} (max_tokens)"
        return Refusal(400, text, "min_tokens")
    if ask.isl + ask.max_tokens > max_model_len:
        text = (
            f"the context of this model is {max_model_len} tokens long, but the prompt has"
            f" {ask.isl} and max_tokens is {ask.max_tokens}"
        )
        return Refusal(400, text, "max_tokens")
    return None


def _whole(fields: Mapping[str, object], name: str, default: int | None) -> int | None:
    value = fields.get(name)
    if value is None:
        return default
    if type(value) is not int or abs(value) >= 1 << 31:
        raise Refusal(400, f"{name} is a whole number", name)
    return value


def _number(fields: Mapping[str, object], name: str, default: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if (type(value) is not int and type(value) is not float) or not abs(value) < 1e9:
        raise Refusal(400, f"{name} is a number", name)
    return float(value)


def _messages(given: object) -> list[int]:
    if not isinstance(given, list) or not all(isinstance(m, dict) for m in given):
        raise Refusal(400, "messages is a list of objects", "messages")
    words = [number for message in given for number in _tokenised(_text(message.get("content")))]
    return [*TEMPLATE_BEFORE, *words, *TEMPLATE_AFTER]


def _text(content: object) -> str:
    """A message's content: a text, a list of parts with texts, or nothing."""
    if content is None:
        return ""
    if isinstance(content, list):
        texts = [part.get("text", "") for part in content if isinstance(part, dict)]
        content = " ".join([text for text in texts if isinstance(text, str)])
    if not isinstance(content, str):
        raise Refusal(400, "content is a text or a list of parts", "messages")
    return content


def _prompt(given: object) -> list[int]:
    """A prompt's token ids: of a text, of ids, or of a list with one of these in it."""
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], list | str):
        given = given[0]
    if isinstance(given, str):
        return _tokenised(given)
    if not isinstance(given, list) or not set(map(type, given)) <= {int}:
        raise Refusal(400, "prompt is one text or one list of token ids", "prompt")
    if given and not 0 <= min(given) <= max(given) < 1 << 31:
        raise Refusal(400, "prompt has token ids that are out of range", "prompt")
    return given


def _tokenised(text: str) -> list[int]:
    """A token a word; the same word is the same id everywhere."""
    crc = zlib.crc32
    return [crc(word) % _VOCABULARY for word in text.encode("utf-8", "surrogatepass").split()]


# ---------------------------------------------------------------------- out
class Reply:
    """The bytes of one reply. Events are framed as chunks of HTTP unless ``chunks`` is false.

    ``response_id``: ASCII, without quotes. ``finish``: the finish reason.
    """

    __slots__ = ("_after", "_ask", "_before", "_chunks", "_created", "_finish", "_model", "id")

    def __init__(
        self, ask: Ask, response_id: str, created: int, model: str, finish: str, chunks: bool
    ) -> None:
        self.id = response_id
        self._ask, self._created, self._model = ask, created, model
        self._finish = finish
        self._chunks = chunks
        frame = f'data: {json.dumps(self._frame(True), separators=(",", ":"))[:-1]},"choices":['
        said = '"delta":{"content":' if ask.chat else '"text":'
        self._before = f'{frame}{{"index":0,{said}'.encode()
        self._after = b"}" if ask.chat else b""

    def _frame(self, stream: bool) -> dict[str, object]:
        plain = "chat.completion" if self._ask.chat else "text_completion"
        kind = "chat.completion.chunk" if self._ask.chat and stream else plain
        return {"id": self.id, "object": kind, "created": self._created, "model": self._model}

    def token(self, index: int, last: bool) -> bytes:
        """What leaves with token ``index``, counted from 0; a role before the first."""
        ask, place = self._ask, index % len(_TEXTS)
        finish = b'"%b"' % self._finish.encode() if last else b"null"
        ids = b"[%d]" % place if ask.token_ids else b"null"
        if not ask.chat:
            prompt = json.dumps(ask.prompt).encode() if ask.token_ids and not index else b"null"
            reason = b'%b,"stop_reason":null,"prompt_token_ids":%b' % (finish, prompt)
        else:
            reason = b'%b,"stop_reason":null' % finish if last else finish
        event = b'%b%b%b,"logprobs":null,"finish_reason":%b,"token_ids":%b}]%b}\n\n' % (
            self._before,
            _TEXTS[place],
            self._after,
            reason,
            ids,
            self._usage_so_far(index + 1),
        )
        framed = chunk(event) if self._chunks else event
        return framed if index or not ask.chat else self._role() + framed

    def _usage_so_far(self, osl: int) -> bytes:
        ask = self._ask
        if not (ask.usage and ask.continuous_usage):
            return b""
        return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (
            ask.isl,
            ask.isl + osl,
            osl,
        )

    def _role(self) -> bytes:
        ask = self._ask
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        fields = {
            **self._frame(True),
            "choices": [choice],
            "prompt_token_ids": ask.prompt if ask.token_ids else None,
            "prompt_text": None,
        }
        if ask.usage and ask.continuous_usage:
            fields["usage"] = self._usage(0, None)
        return self._event(fields)

    def end(self, osl: int, cached: int | None, times: Mapping[str, float] | None = None) -> bytes:
        """What follows the last token: usage if asked for, with the request's ``times`` (ms, by
        vLLM's names) where the server states them, and the end."""
        last = b""
        if self._ask.usage:
            usage = self._usage(osl, cached)
            own = {} if times is None else {"metrics": times}
            last = self._event({**self._frame(True), "choices": [], "usage": usage, **own})
        done = b"data: [DONE]\n\n"
        return last + (chunk(done) + LAST_CHUNK if self._chunks else done)

    def _event(self, fields: Mapping[str, object]) -> bytes:
        data = f"data: {json.dumps(fields, separators=(',', ':'))}\n\n".encode()
        return chunk(data) if self._chunks else data

    def _usage(self, osl: int, cached: int | None) -> dict[str, object]:
        isl = self._ask.isl
        usage: dict[str, object] = {
            "prompt_tokens": isl,
            "total_tokens": isl + osl,
            "completion_tokens": osl,
        }
        if cached is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        return usage

    def whole(
        self, osl: int, cached: int | None, times: Mapping[str, float] | None = None
    ) -> bytes:
        """The body of a reply that is not streamed; ``times`` as in ``end``."""
        ask = self._ask
        places = [index % len(_WORDS) for index in range(osl)]
        text = "".join([f" {_WORDS[place]}" for place in places])
        message = {"role": "assistant", "content": text}
        output: dict[str, object] = {"message": message} if ask.chat else {"text": text}
        choice = {
            "index": 0,
            **output,
            "logprobs": None,
            "finish_reason": self._finish,
            "stop_reason": None,
            "token_ids": places if ask.token_ids else None,
        }
        usage = self._usage(osl, cached)
        body = {**self._frame(False), "choices": [choice], "usage": usage}
        return json.dumps(body if times is None else {**body, "metrics": times}).encode()


def models(rules: Rules, created: int) -> bytes:
    """The body of ``GET /v1/models``."""
    model = {
        "id": rules.model,
        "object": "model",
        "created": created,
        "owned_by": "latdiag",
        "root": rules.model,
        "parent": None,
        "max_model_len": rules.max_model_len,
    }
    return json.dumps({"object": "list", "data": [model]}).encode()


def geometric(mean: int, uniform: float) -> int:
    """A length from 1 on with the given mean, out of a uniform draw from [0, 1)."""
    if mean <= 1:
        return 1
    return 1 + int(math.log1p(-uniform) / math.log1p(-1 / mean))
