"""The gate's verdict for people and for CI, each face a pure function of it.

``text`` is for a terminal, ``markdown`` and ``github`` for pull requests, ``junit`` and ``gitlab``
for CI servers.
"""

from __future__ import annotations

from pathlib import Path


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of gate.json."""
    return (Path(__file__).parent / "schema.json").read_text(encoding="utf-8")
