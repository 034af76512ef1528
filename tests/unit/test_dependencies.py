"""What ``latdiag/`` imports is declared in pyproject.toml, and little more is."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, files, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[<>=!~;\[ ]", one)[0]) for one in requirements}


#: Installed always, and only for those who ask for it; what the tests need is neither.
NEEDED = names(PROJECT["dependencies"])
OPTIONAL = names(
    [one for extra, named in PROJECT["optional-dependencies"].items() if extra != "test"
     for one in named]
)  # fmt: skip


def imported(path: Path) -> Iterator[str]:
    """The modules of others that a file imports, wherever in it; no standard library."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # Of ``from google.protobuf import x`` x may be a module, too: the package must do.
            found = [node.module or ""]
        else:
            continue
        yield from (
            name for name in found
            if name.partition(".")[0] not in {"latdiag", *sys.stdlib_module_names}
        )  # fmt: skip


#: What may be an import. Only a file with one of others is parsed: parsing all takes seconds.
_LINE = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)


def others(path: Path) -> bool:
    tops = _LINE.findall(path.read_text(encoding="utf-8"))
    return not {"latdiag", *sys.stdlib_module_names}.issuperset(tops)


MODULES = sorted(
    {n for path in (ROOT / "latdiag").rglob("*.py") if others(path) for n in imported(path)}
)


@cache
def by_top_level() -> dict[str, set[str]]:
    """The distributions of each top-level name. Slow: it reads the list of every file."""
    return {
        top: {canonical(name) for name in found} for top, found in packages_distributions().items()
    }


@cache
def contents(distribution: str) -> frozenset[str]:
    """The paths of a distribution's files; none where it is not installed."""
    try:
        return frozenset(str(path) for path in files(distribution) or ())
    except PackageNotFoundError:
        return frozenset()


def homes(module: str) -> set[str]:
    """The distributions that bring ``module``: several share google and opentelemetry."""
    top = module.partition(".")[0]
    shared = by_top_level().get(top, {canonical(top)})
    if len(shared) == 1:
        return shared
    place = module.replace(".", "/")
    return {
        name for name in shared
        if any(path.startswith((f"{place}/", f"{place}.")) for path in contents(name))
    }  # fmt: skip


def test_several_distributions_in_one_namespace_are_told_apart() -> None:
    assert homes("google.rpc.status_pb2") == {"googleapis-common-protos"}
    assert homes("google.protobuf.message") == {"protobuf"}
    assert "opentelemetry-proto" in homes("opentelemetry.proto.trace.v1.trace_pb2")
    assert homes("opentelemetry.sdk.trace") <= {"opentelemetry-sdk"}


@pytest.mark.parametrize("module", MODULES)
def test_what_is_imported_is_declared(module: str) -> None:
    assert homes(module) & (NEEDED | OPTIONAL), f"{module} is of {homes(module) or 'nobody'}"


#: Part of the project's agreed packages; what sends traces will import them.
AGREED = {"opentelemetry-sdk", "opentelemetry-exporter-otlp"}


def test_what_is_declared_is_imported() -> None:
    used = set().union(*map(homes, MODULES))
    assert NEEDED - used <= AGREED
