"""Command lines of latdiag in the examples for compose and Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
IMAGE = "latdiag"


def containers(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with an image, however deep."""
    if isinstance(node, dict):
        if isinstance(node.get("image"), str):
            yield node
        for below in node.values():
            yield from containers(below)
    elif isinstance(node, list):
        for below in node:
            yield from containers(below)


def command_lines(yaml: Any) -> dict[str, list[str]]:
    """What follows ``latdiag`` in each container of our image, by file and name. ``yaml``: the
    module."""
    found = {}
    for path in sorted((*EXAMPLES.glob("compose/*.yaml"), *EXAMPLES.glob("kubernetes/*.yaml"))):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            for one in containers(document):
                if one["image"].partition(":")[0] == IMAGE:
                    line = [*one.get("command", []), *one.get("args", [])]
                    found[f"{path.name}-{len(found)}"] = line
    return found
