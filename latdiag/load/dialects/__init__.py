"""Ways to speak to a server: a dialect turns an Ask into a body and an event's data into an Event.

A new one is a file with a class that has the members of ``Dialect``, and a line below.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from latdiag.load.dialects.event import EXTRAS, Ask, Dialect, Event
from latdiag.load.dialects.openai_chat import OpenAIChat
from latdiag.load.dialects.openai_completions import OpenAICompletions

__all__ = ["DIALECTS", "EXTRAS", "Ask", "Dialect", "Event", "dialect_of_path"]

_ALL: tuple[Dialect, ...] = (OpenAIChat(), OpenAICompletions())

#: By name.
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in _ALL}


def dialect_of_path(path: str) -> Dialect | None:
    """The dialect spoken at a path or URL: the longest known ending wins; None: unknown."""
    asked = urlsplit(path).path.rstrip("/")
    fitting = [d for d in _ALL if asked.endswith(d.path.removeprefix("/v1"))]
    return max(fitting, key=lambda dialect: len(dialect.path), default=None)
