"""What a server says of an error, without the credentials and prompts that it may echo."""

from __future__ import annotations

import json
from typing import Any

from latdiag.model.text import shown

#: A passage of the request of this length in an error text is the prompt speaking.
_WINDOW = 12
_LIMIT = 200


def error_text(reply: bytes, body: bytes, secrets: tuple[str, ...]) -> str:
    """One bounded sentence from an error reply; empty where it says nothing fit to be kept."""
    return clean(_message(reply), body, secrets)


def clean(text: str, body: bytes, secrets: tuple[str, ...]) -> str:
    """``text`` with every secret and every longer passage of the request taken out."""
    text = text[: 8 * _LIMIT]
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return shown(_without_passages(text, _said(body)), _LIMIT)


def _message(reply: bytes) -> str:
    """The human sentence of an error document; nothing of one that has none."""
    try:
        document: Any = json.loads(reply)
    except (ValueError, RecursionError):
        text = reply[:2048].decode("utf-8", "replace").strip()
        return "" if text.startswith(("<", "{", "[")) else text
    for _ in range(3):
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


def _said(body: bytes) -> str:
    """All strings of the request, and its raw text: a server may echo either."""
    raw = body.decode("utf-8", "replace")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return raw
    found: list[str] = [raw]
    rest = [document]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
    return "\x00".join(found)


def _without_passages(text: str, said: str) -> str:
    """Replace every passage of at least ``_WINDOW`` characters that ``said`` contains."""
    kept: list[str] = []
    place = 0
    while place < len(text):
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
