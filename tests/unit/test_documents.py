"""Every place that the documents for contributors name is there: file, folder, name in a file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("CONTRIBUTING.md", "docs/architecture.md")
#: What begins a path of the repository; a place may go on with ``:name``.
_PLACE = re.compile(r"((?:latdiag|tests|docs|examples|\.ci)/[\w./-]*)(?::(\w+))?")


def _places(document: str) -> Iterator[tuple[str, str]]:
    """(path, name or nothing) of every place in a code span of a document."""
    text = re.sub(
        r"^```.*?^```$", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.M | re.S
    )
    for span in re.findall(r"`([^`]+)`", text):
        for word in span.split():
            if match := _PLACE.fullmatch(word):
                yield match[1], match[2] or ""


def _names(path: Path) -> set[str]:
    """What a Python file defines at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_place_that_is_named_exists(document: str) -> None:
    places = set(_places(document))
    assert len(places) > 20
    missing = [path for path, _ in places if not (ROOT / path).exists()]
    assert missing == []
    named = [(path, name) for path, name in places if name]
    assert [each for each in named if each[1] not in _names(ROOT / each[0])] == []


def test_every_room_has_its_sentence() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [path.parent.name for path in (ROOT / "latdiag").glob("*/__init__.py")]
    assert [room for room in rooms if f"| `latdiag/{room}/` |" not in text] == []


@pytest.mark.parametrize(
    "document",
    (
        *DOCUMENTS,
        "README.md",
        "CHANGELOG.md",
        "examples/README.md",
        *(f"docs/{n}.md" for n in ("reading", "servers", "stacks", "api", "gate")),
    ),
)
def test_links_lead_somewhere(document: str) -> None:
    folder = (ROOT / document).parent
    links = re.findall(r"\]\(([^)#\s]+)\)", (ROOT / document).read_text(encoding="utf-8"))
    assert [at for at in links if "://" not in at and not (folder / at).exists()] == []
