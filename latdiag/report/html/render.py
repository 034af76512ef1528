"""From a template and what it shows to a whole file: everything inline, nothing loaded.

Every value that a template prints passes ``_shown``: what came from outside has no control or bidi
characters, a bounded length, and no meaning as HTML.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from latdiag import __version__
from latdiag.model.text import shown
from latdiag.report.html.svg import COLOURS
from latdiag.report.page import glued

_HERE = Path(__file__).parent
#: Characters of one text from outside.
_MOST = 2_000


def page(template: str, given: Mapping[str, object], data: object = None) -> str:
    """The file. ``data``: what its script draws; without any there is no script."""
    style = _style()
    script = _script() if data is not None else ""
    hashes = f"script-src {_hash(script)}; " if script else ""
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; {hashes}base-uri 'none';"
        " form-action 'none'"
    )
    held = _json(data) if data is not None else ""
    text = _environment().get_template(template).render(
        **given, policy=policy, style=Markup(style), script=Markup(script), data=Markup(held),
        version=__version__,
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def fragment(template: str, given: Mapping[str, object]) -> str:
    """A part of a page of others."""
    return _environment().get_template(template).render(**given)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: object) -> object:
    """Text that is shown; markup is ours."""
    if isinstance(value, Markup):
        return value
    return glued(shown("" if value is None else value, _MOST))


@cache
def _style() -> str:
    """Without line breaks at its ends: a hash covers every character."""
    colours = "".join(f"svg .k-{name}{{fill:{colour}}}" for name, colour in COLOURS.items())
    own = (_HERE / "templates" / "style.css").read_text(encoding="utf-8")
    vendored = (_HERE / "vendor" / "uPlot.min.css").read_text(encoding="utf-8")
    return f"{vendored.strip()}{colours}{_packed(own)}"


@cache
def _script() -> str:
    vendored = (_HERE / "vendor" / "uPlot.iife.min.js").read_text(encoding="utf-8")
    own = (_HERE / "templates" / "charts.js").read_text(encoding="utf-8")
    return f"{_packed(vendored)}\n{_packed(own)}"


def _packed(text: str) -> str:
    """As ``page`` leaves it: no empty lines, no space at an end."""
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _json(data: object) -> str:
    """JSON that no HTML parser takes for more than text."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
