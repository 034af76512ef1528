"""A document of ``--json`` as text: stable order, no NaN, nothing that a terminal would act on.

The keys are those of ``schema.json`` in this package (``latdiag explain json-schema``).
"""

from __future__ import annotations

import json
from pathlib import Path

from latdiag.model.document import document


def dump(found: object) -> str:
    """A result, or another document, without a closing newline.

    Text is ASCII (everything else is escaped), numbers are finite.
    """
    return json.dumps(document(found), indent=2, allow_nan=False, ensure_ascii=True)


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of everything that ``--json`` prints."""
    return (Path(__file__).parent / "schema.json").read_text(encoding="utf-8")
