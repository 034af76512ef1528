"""What a server says, without the credentials and prompts that it may echo."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, unquote_plus

from latdiag.model.text import shown

#: A passage of a prompt of this length is the prompt speaking.
_WINDOW = 12
_LIMIT = 200
#: Characters of a text that are looked at: secrets must be taken out before a text is cut.
_SCANNED = 16_384
#: Of a secret that a cut has halved, so many characters are no chance.
_PIECE = 4
#: A header's value of fewer characters is no secret, nor is a token within it, nor a query's
#: value: to take each out would make every sentence unreadable.
_SHORTEST, _SHORTEST_TOKEN = 4, 6
#: Fields of a request whose texts are no secret, and which errors rightly speak of.
_PLAIN = frozenset({"model", "role", "type", "object"})


def secrets_of(
    headers: Iterable[tuple[str, str]], url: str, more: Iterable[str] = ()
) -> tuple[str, ...]:
    """What must never be stored or shown, longest first: header values, the longer tokens within
    them, the values of the URL's query, as written and decoded, and what else is long enough.
    """
    found = set(more)
    for _, value in headers:
        found.update(part for part in value.split() if part.lower() != "bearer")
    # Not urlsplit: this URL may be one that nobody could split.
    for part in url.partition("?")[2].partition("#")[0].split("&"):
        written = part.partition("=")[2] or part
        found |= {written, unquote(written), unquote_plus(written)}
    found = {part for part in found if len(part) >= _SHORTEST_TOKEN}
    found.update(value for _, value in headers if len(value) >= _SHORTEST)
    return tuple(sorted(found, key=len, reverse=True))


def error_text(reply: bytes, body: bytes, secrets: tuple[str, ...]) -> str:
    """One bounded sentence from an error reply; empty where it says nothing fit to be kept."""
    return clean(_message(reply), body, secrets)


def clean(text: str, body: bytes, secrets: tuple[str, ...]) -> str:
    """``text`` with every secret and every longer passage of the request's prompt taken out."""
    # Harmless first: an invisible character within a secret would hide it from the search.
    text = shown(text, _SCANNED)
    for secret in secrets:
        text = text.replace(" ".join(secret.split()), "***")
    if text.endswith("…"):
        text = _without_piece(text.removesuffix("…"), secrets) + "…"
    return shown(_without_passages(text, _said(body)), _LIMIT)


def repeats(text: str, body: bytes, secrets: tuple[str, ...]) -> bool:
    """Whether a name or an id from a reply holds a secret or a passage of the prompt."""
    if any(secret in text for secret in secrets):
        return True
    if len(text) < _WINDOW:
        return False
    said = _said(body)
    return any(text[i : i + _WINDOW] in said for i in range(len(text) - _WINDOW + 1))


def _without_piece(text: str, secrets: tuple[str, ...]) -> str:
    """``text`` without what a cut left of a secret at its end."""
    for secret in secrets:
        for size in range(len(secret) - 1, _PIECE - 1, -1):
            if text.endswith(secret[:size]):
                return text[:-size] + "***"
    return text


def _message(reply: bytes) -> str:
    """The human sentence of an error document; nothing of one that has none."""
    try:
        document: Any = json.loads(reply)
    except (ValueError, RecursionError):
        text = reply.decode("utf-8", "replace").strip()
        return "" if text.startswith(("<", "{", "[")) else text
    for _ in range(4):
        if isinstance(document, str):
            return document
        if isinstance(document, list) and document:
            document = document[0]
        if not isinstance(document, dict):
            return ""
        document = next(
            (document[k] for k in ("error", "message", "detail", "msg") if document.get(k)), None
        )
    return document if isinstance(document, str) else ""


@lru_cache(maxsize=8)
def _said(body: bytes) -> str:
    """The prompt's texts in each form in which a server may echo them."""
    try:
        rest: list[Any] = [json.loads(body)]
    except (ValueError, RecursionError):
        return " ".join(body.decode("utf-8", "replace").split())
    found: list[str] = []
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            found += [item, json.dumps(item)[1:-1], repr(item)[1:-1]]
        elif isinstance(item, dict):
            rest.extend(value for key, value in item.items() if key not in _PLAIN)
        elif isinstance(item, list) and item and isinstance(item[0], int):
            found += [json.dumps(item), json.dumps(item, separators=(",", ":"))]
        elif isinstance(item, list):
            rest.extend(item)
    # Whitespace as ``shown`` leaves it; the separator occurs in no text that it has passed.
    return "\x00".join(" ".join(text.split()) for text in found)


def _without_passages(text: str, said: str) -> str:
    """Replace passages of at least ``_WINDOW`` characters that ``said`` contains. What is past
    the limit of a sentence is left out.
    """
    kept: list[str] = []
    place = 0
    while place < len(text) and len(kept) <= _LIMIT:
        end = place + _WINDOW
        if len(text) - place >= _WINDOW and text[place:end] in said:
            while end < len(text) and text[place : end + 1] in said:
                end += 1
            kept.append("[request]")
            place = end
        else:
            kept.append(text[place])
            place += 1
    return "".join(kept)
