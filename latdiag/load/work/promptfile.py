"""The user's own prompts: a JSON Lines file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from latdiag.model.errors import LocalFault, UsageFault

LINE_LIMIT = 8 * 1024 * 1024
FILE_LIMIT = 256 * 1024 * 1024

_FORMS = 'a line is {"prompt": ...}, {"messages": [...]} or a JSON string'


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line of the file. Exactly one of ``prompt`` and ``messages`` is given; neither is in
    the repr, because a traceback must not show them.
    """

    line: int
    prompt: str | Sequence[int] | None = field(default=None, repr=False)
    messages: Sequence[Mapping[str, object]] | None = field(default=None, repr=False)
    max_tokens: int | None = None


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """All prompts of the file in order; blank lines are skipped.

    UsageFault with the number of the first bad line (never with its text).
    """
    try:
        with path.open("rb") as file:
            prompts = _read(file, path)
    except PermissionError:
        raise LocalFault(f"{path} may not be read", "check its permissions") from None
    except OSError as fault:
        raise UsageFault(f"{path} cannot be read: {fault.strerror}", "check the path") from None
    if not prompts:
        raise UsageFault(f"{path} holds no prompt", _FORMS)
    return prompts


def _read(file: BinaryIO, path: Path) -> tuple[Prompt, ...]:
    prompts = []
    size = number = 0
    while line := file.readline(LINE_LIMIT + 1):
        number += 1
        size += len(line)
        problem: str | None = None
        if len(line) > LINE_LIMIT:
            problem = f"is longer than {LINE_LIMIT >> 20} MiB"
        elif size > FILE_LIMIT:
            problem = f"is past {FILE_LIMIT >> 20} MiB, the most that is read"
        elif line.strip():
            made = _prompt(line, number)
            if isinstance(made, Prompt):
                prompts.append(made)
            else:
                problem = made
        if problem:
            raise UsageFault(f"line {number} of {path} {problem}", _FORMS)
    return tuple(prompts)


def _prompt(line: bytes, number: int) -> Prompt | str:
    """The prompt of a line, or what is wrong with the line."""
    try:
        found = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        return "is not UTF-8"
    except (ValueError, RecursionError):
        return "is not JSON"
    if isinstance(found, str):
        found = {"prompt": found}
    if not isinstance(found, dict):
        return "is neither an object nor a string"
    limit = found.get("max_tokens")
    if limit is not None and (type(limit) is not int or limit < 1):
        return "has a max_tokens that is not a whole number from 1 up"
    prompt, messages = found.get("prompt"), found.get("messages")
    if (prompt is None) == (messages is None):
        return "needs either a prompt or messages"
    problem = _problem_of_messages(messages) if prompt is None else _problem_of_prompt(prompt)
    return problem or Prompt(number, prompt, messages, limit)


def _problem_of_prompt(prompt: object) -> str | None:
    if isinstance(prompt, str):
        return None if prompt else "has an empty prompt"
    if isinstance(prompt, list) and prompt and all(type(i) is int and i >= 0 for i in prompt):
        return None
    return "has a prompt that is neither text nor a list of token ids"


def _problem_of_messages(messages: object) -> str | None:
    if isinstance(messages, list) and messages:
        if all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
            return None
        return "has a message without a role"
    return "has messages that are not a list with something in it"
