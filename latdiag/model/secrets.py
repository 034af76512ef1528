"""Values that this process must never show: keys, tokens, what headers hold."""

from __future__ import annotations

_secrets: set[str] = set()


def conceal(*secrets: str | None) -> None:
    """Never print these values in an error, a traceback or a log line of this process."""
    _secrets.update(secret for secret in secrets if secret)


def concealed(text: str) -> str:
    """``text`` with every concealed value replaced, the longest first."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "[concealed]")
    return text
