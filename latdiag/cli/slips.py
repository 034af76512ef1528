"""Secrets on a command line: where they belong, and where they are by a slip.

A verb's own errors may repeat what a user wrote. So all of it is looked through before any of it
is parsed: what is secret, or stands where only a secret can, is concealed from then on, and a key
in a place from which it would be stored is refused without being repeated.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, unquote_plus

from latdiag.model.errors import UsageFault
from latdiag.model.secrets import conceal, concealed_values, holds_key, keys_in, looks_secret

#: A shorter value would make every sentence unreadable, and is in it by chance.
_SHORTEST = 4
_SHORTEST_TOKEN = 6
#: A shorter key may be a word of an argument that has nothing to do with it.
_SHORTEST_HELD = 8
#: Names of variables as people choose them. What is none is never repeated: a key is none.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]{0,15}(?:_[A-Z0-9]{0,15})*")
#: Options of other programs that take a secret; latdiag has none of them.
_SECRET_OPTION = re.compile(
    r"--?(?:[a-z-]+-)?(?:key|apikey|token|secret|pass|password|passwd|auth|authorization|bearer"
    r"|credentials?)",
    re.IGNORECASE,
)
_BY_NAME = (
    *("--api-key-env", "--token-env", "--header-env", "--metrics-header-env"),
    "--export-header-env",
)
_HEADERS = ("--header",)
#: What is in these goes out in headers and bodies, and nowhere else.
_MAY_HOLD = ("--header", "--body-json")


#: What takes ids of traces, which look like keys.
_IDS, _ID = ("--trace",), re.compile(r"[0-9a-fA-F]{16}|[0-9a-fA-F]{32}")


def is_variable(text: str) -> bool:
    """Whether this is a variable's name as people choose them, and so may be repeated."""
    return bool(_VARIABLE.fullmatch(text)) and not looks_secret(text) and not keys_in(text)


def conceal_arguments(arguments: Sequence[str]) -> None:
    """Conceal what is secret in ``arguments``, and the values of the variables that they name."""
    for secret in _secrets_in(arguments):
        conceal(secret)


def refuse_keys(arguments: Sequence[str]) -> None:
    """UsageFault for a key where it would be stored or shown. Headers and bodies may hold one,
    and a URL's query."""
    held = [
        secret
        for _, option, value in _values(arguments)
        if option in _BY_NAME
        for secret in _by_name(option, value)
        if len(secret) >= _SHORTEST_HELD
    ]
    for place, option, value in _values(arguments):
        if option in _MAY_HOLD and ":" in value:
            name = value.partition(":")[0] if option in _HEADERS else ""
        else:
            name = value.partition("?")[0] if "://" in value else value
        again = option not in _BY_NAME and any(secret in name for secret in held)
        if holds_key(name) or looks_secret(name.strip()) or again:
            where = f"the value of {option}" if option else f"argument {place}"
            raise UsageFault(
                f"{where} looks like an API key, which would be stored or shown",
                "export the key in an environment variable and give that variable's name"
                " (--api-key-env NAME); write the name of a file as ./NAME",
            )


def mask_in_process_list() -> None:
    """Overwrite what is concealed in the command line that other users of this machine see, as
    curl does with its own; forked processes show the same. Nothing where the system has no /proc.
    """
    try:
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        begin, end = int(stat[45]), int(stat[46])  # arg_start and arg_end of proc(5)
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(begin)
            line = memory.read(end - begin)
            masked = line
            for secret in sorted(concealed_values(), key=len, reverse=True):
                raw = os.fsencode(secret)
                masked = masked.replace(raw, b"*" * len(raw))
            if masked != line:
                memory.seek(begin)
                memory.write(masked)
    except (OSError, ValueError, IndexError):
        pass


# ---------------------------------------------------------------------- what is secret
def _values(arguments: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """(Its place, the option before it or nothing, the word) of each that is no option. What an
    option takes is not known here: a word after one may be its value."""
    option = ""
    for place, word in enumerate(arguments, 1):
        name, equals, value = word.partition("=")
        if word.startswith("--") and len(word) > 2 and not equals:
            option = name if not _looks_odd(name) else ""
            if not option:
                yield place, "", name[2:]
        elif word.startswith("--") and equals:
            if name not in _IDS or not _ID.fullmatch(value):
                yield place, name, value
            option = ""
        else:
            if option not in _IDS or not _ID.fullmatch(word):
                yield place, option, word
            option = ""


def _looks_odd(option: str) -> bool:
    """Whether a word with dashes in front is no option's name: a key may begin with them too."""
    return not re.fullmatch(r"--[a-z][a-z-]{0,30}", option)


def _secrets_in(arguments: Sequence[str]) -> Iterator[str]:
    loose = 0  # words that an unquoted header has spilled
    for _place, option, value in _values(arguments):
        yield from keys_in(value)
        yield from (word for word in re.split(r"[\s:@,'\"]+", value) if looks_secret(word))
        yield from _in_url(value)
        if option in _BY_NAME:
            yield from _by_name(option, value)
        elif option in _HEADERS:
            yield from _long_enough(value.partition(":")[2])
        elif option == "--body-json":
            yield from _in_body(value)
        elif _SECRET_OPTION.fullmatch(option) or (not option and loose and "://" not in value):
            yield from _long_enough(value)
        loose = 2 if option in _HEADERS and value.endswith(":") else max(0, loose - 1)


def _long_enough(value: str) -> Iterator[str]:
    """A value, and the longer tokens in it."""
    value = value.strip()
    if len(value) >= _SHORTEST:
        yield value
    yield from (word for word in value.split() if len(word) >= _SHORTEST_TOKEN)


def _by_name(option: str, value: str) -> Iterator[str]:
    variable = (value.rpartition(":")[2] if "header" in option else value).strip()
    if not is_variable(variable):
        yield from _long_enough(variable)
    yield from _long_enough(os.environ.get(variable, "") if variable else "")


def _in_url(value: str) -> Iterator[str]:
    """User and password, and the values of the query. Not urlsplit: it may be no URL at all."""
    whole = value.partition("://")[2] or value
    whole, _, query = whole.partition("?")
    account, at, _ = whole.rpartition("@")
    if at and (":" in account or "://" in value):
        parts = [account, account.partition(":")[2]]
        yield from (form for part in parts for form in (part, unquote(part)) if len(form) > 3)
    for part in re.split("[&#]", query) if "://" in value or "=" in query else ():
        written = part.partition("=")[2] or part
        for form in (written, unquote(written), unquote_plus(written)):
            if len(form) >= _SHORTEST_TOKEN:
                yield form


def _in_body(value: str) -> Iterator[str]:
    """Fields of a body whose names say that they are secret; all of what is no JSON."""
    try:
        rest: list[object] = [json.loads(value)]
    except (ValueError, RecursionError):
        yield from _long_enough(value)
        return
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            for key, held in item.items():
                if isinstance(held, str) and _SECRET_OPTION.fullmatch(f"-{key}".replace("_", "-")):
                    yield from _long_enough(held)
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
