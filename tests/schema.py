"""The JSON Schema of results, read once: every test that holds a document to it does so here.

``jsonschema.validate`` checks the schema itself again at each call, which costs half a second;
one test (``test_report``) checks it for all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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


class ChangedPart:
    """Whether a result is still valid when one thing in it has changed, quicker than all of it.

    It looks below one key of the top only, and what a definition of the schema took
    before is not looked at again, but for what lies on the way to the change.
    """

    def __init__(self) -> None:
        self._taken: set[tuple[str, int]] = set()
        self._changed: set[int] = set()
        follow = VALIDATOR.VALIDATORS["$ref"]

        def ref(validator: Any, name: str, instance: Any, schema: Any) -> Iterator[Any]:
            key = (name, id(instance))
            if key in self._taken and key[1] not in self._changed:
                return
            errors = list(follow(validator, name, instance, schema))
            if not errors and key[1] not in self._changed:
                self._taken.add(key)
            yield from errors

        kind = jsonschema.validators.extend(type(VALIDATOR), {"$ref": ref})
        parts = SCHEMA["$defs"]["result"]["properties"]
        self._of = {key: kind({**part, "$defs": SCHEMA["$defs"]}) for key, part in parts.items()}

    def valid(self, result: dict[str, Any], path: tuple[Any, ...]) -> bool:
        """Whether ``result``, in which what ``path`` leads to has changed, is."""
        self._changed, node = {id(result)}, result
        for key in path[:-1]:
            node = node[key]
            self._changed.add(id(node))
        return bool(self._of[path[0]].is_valid(result[path[0]]))
