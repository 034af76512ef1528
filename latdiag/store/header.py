"""run.json: what is known of a run before its first request, and nothing that is secret."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from latdiag import __version__
from latdiag.model.secrets import concealed
from latdiag.model.text import without_credentials

_SECRET_OPTIONS = ("--header", "--body-json", "--api-key", "--header-env", "--api-key-env")


def header(
    verb: str,
    *,
    target: Mapping[str, Any],
    plan: Mapping[str, Any],
    facts: Mapping[str, Any],
    stacks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The run.json of any verb that makes a run. ``target``: ``url``, ``model`` and what else is
    known of it; ``facts``: ``client``, and what this verb alone knows."""
    return {
        "tool": {"name": "latdiag", "version": __version__, "verb": verb},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": dict(target),
        "stacks": list(stacks),
        "plan": dict(plan),
        **facts,
        "command": concealed(redacted_command(sys.argv)),
    }


def machine() -> dict[str, str]:
    """What ran it."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def redacted_command(argv: Sequence[str]) -> str:
    """The command line without header values, bodies, and credentials in URLs."""
    shown, hide = ["latdiag"], False
    for word in argv[1:]:
        name, equals, _ = word.partition("=")
        if hide:
            shown.append("***")
            hide = False
        elif name in _SECRET_OPTIONS:
            shown.append(f"{name}=***" if equals else name)
            hide = not equals
        elif "://" in word:
            shown.append(without_credentials(word))
        else:  # a URL may come without its scheme
            shown.append(word.partition("?")[0])
    return " ".join(json.dumps(w) if " " in w else w for w in shown)
