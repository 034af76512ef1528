"""Values that this process must never show: keys, tokens, what headers hold; and what looks so."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator

_secrets: set[str] = set()

#: Of a secret that a cut has halved, so many characters are no chance.
_PIECE = 4
#: A shorter one is a word of some text by chance.
_SHORTEST_ECHO = 6
#: How keys begin that services give out, each as its own documentation shows it.
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-(?=[A-Za-z0-9_-]{20}|[a-zA-Z_-]*[0-9])[A-Za-z0-9_-]{8,}"
    r"|(?:gsk|hf|r8|fw|gh[opsur]|github_pat|pat)_[A-Za-z0-9_]{16,}"
    r"|(?:xai|nvapi|pplx|csk|glpat|tgp_v1|xox[a-z])-[A-Za-z0-9_-]{16,}"
    r"|AKIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{30,}"
    r"|eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+){1,2}"
    r")"
)
#: What a header of credentials holds: the scheme and what belongs to it.
_CREDENTIALS = re.compile(
    r"\b(?i:bearer|basic)\s+((?=[a-z]*[^a-z\s])[A-Za-z0-9+/._~=-]{6,}|[a-z]{20,})"
)
_TOKEN = re.compile(r"[A-Za-z0-9+_=-]{20,}")
#: What nobody can say: as long in hexadecimal, or with so many steps from letters to digits.
_HEX = re.compile(r"(?=.*[0-9])[0-9a-fA-F]{32,}")
_STEPS = 4


def conceal(*secrets: str | None) -> None:
    """Never print these values in an error, a traceback or a log line of this process."""
    for secret in secrets:
        if secret:
            # As it is, and as a message quotes it.
            _secrets.update((secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]))


def concealed(text: str) -> str:
    """``text`` with every concealed value replaced, the longest first, and what a cut has left of
    one before an ellipsis."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "[concealed]")
        if "…" not in text:
            continue
        for size in range(min(len(secret), len(text)) - 1, _PIECE - 1, -1):
            if f"{secret[:size]}…" in text:
                text = text.replace(f"{secret[:size]}…", "[concealed]…")
    return text


def concealed_values() -> frozenset[str]:
    """What is concealed in this process so far."""
    return frozenset(_secrets)


@contextlib.contextmanager
def forgotten_after() -> Iterator[None]:
    """What is concealed in the block is concealed until its end."""
    before = set(_secrets)
    try:
        yield
    finally:
        _secrets.clear()
        _secrets.update(before)


def keys_in(text: str) -> list[str]:
    """The parts of ``text`` that look like keys, and what follows a scheme of credentials."""
    return [*_KEY.findall(text), *_CREDENTIALS.findall(text)]


def holds_key(text: str) -> bool:
    """Whether there is something in ``text`` that begins as keys do."""
    return bool(_KEY.search(text))


def holds_secret(text: str) -> bool:
    """Whether something in ``text`` from outside looks like a key, or is concealed here."""
    if keys_in(text):
        return True
    return any(secret in text for secret in _secrets if len(secret) >= _SHORTEST_ECHO)


def looks_secret(word: str) -> bool:
    """Whether ``word`` as a whole looks like a key: by how it begins, or by its letters and
    digits, which nobody would choose. A path or a sentence does not."""
    if _KEY.fullmatch(word):
        return True
    if not _TOKEN.fullmatch(word):
        return False
    return any(_opaque(part) for part in re.split(r"[_=-]", word))


def _opaque(part: str) -> bool:
    steps = sum(a.isdigit() != b.isdigit() for a, b in itertools.pairwise(part))
    return bool(_HEX.fullmatch(part)) or (len(part) >= 20 and steps >= _STEPS)
