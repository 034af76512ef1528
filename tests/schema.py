"""The JSON Schema of results, read once: every test that holds a document to it does so here.

``jsonschema.validate`` checks the schema itself again at each call, which costs half a second;
one test (``test_report``) checks it for all.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from jsonschema.exceptions import best_match

from latdiag.report.json import schema_text

SCHEMA: dict[str, Any] = json.loads(schema_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def validate(document: Any) -> None:
    """Raises ``jsonschema.ValidationError``, the error that says most, where it is not valid."""
    error = best_match(VALIDATOR.iter_errors(document))
    if error is not None:
        raise error
