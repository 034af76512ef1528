"""Labels of a series without what a server may echo in them: keys, headers, prompts.

Labels tell series apart, and stacks ask for some by name and value. So numbers, short words and
what a stack names stay as they are; for anything longer stands a fingerprint, which is the same
in all scrapes of one process and says nothing about the text.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from functools import cache, lru_cache

from latdiag.model.secrets import concealed_values, keys_in, looks_secret

#: A passage of a prompt or of a key of 12 characters is that speaking (``load.redact``).
_WORD = re.compile(r"[A-Za-z0-9_.:/+-]{0,11}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?(?:e[+-]?[0-9]{1,3})?|Inf|NaN)", re.I)
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,39}")
#: So that nobody can try texts until one has the fingerprint.
_SALT = os.urandom(16)


def kept_labels(labels: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The labels of one series as they are stored; no two that differ become equal."""
    return {_name(name): _value(value) for name, value in labels}


def _name(name: str) -> str:
    plain = _NAME.fullmatch(name) and not (keys_in(name) or looks_secret(name))
    return name if plain and not _concealed(name) else f"withheld_{_fingerprint(name)}"


def _value(value: str) -> str:
    plain = value in _known() or _WORD.fullmatch(value) or _NUMBER.fullmatch(value)
    return value if plain and not _concealed(value) else f"withheld-{_fingerprint(value)}"


@cache
def _known() -> frozenset[str]:
    """The values by which stacks tell series apart."""
    from latdiag.stacks import catalogue

    wanted = (
        catalogue.selector(signal.foreign)[1].values()
        for kind in catalogue.METRIC_KINDS
        for signals in catalogue.signals(kind).values()
        for signal in signals
    )
    return frozenset(value for values in wanted for value in values)


@lru_cache(maxsize=4096)
def _concealed(text: str) -> bool:
    """Whether it holds a secret of this process. Those are all known before the first scrape."""
    return any(secret in text for secret in concealed_values() if len(secret) >= 4)


@lru_cache(maxsize=4096)
def _fingerprint(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8, key=_SALT).hexdigest()
