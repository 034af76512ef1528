"""The lock file of what the tests install: whole, hashed, and of what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / ".ci" / "requirements.txt"
#: Environments in which the lock has to answer: systems and Pythons.
ENVIRONMENTS = [
    {"sys_platform": system, "python_version": python, "python_full_version": f"{python}.0"}
    for system in ("linux", "darwin")
    for python in ("3.11", "3.12", "3.14")
]


def locked() -> dict[Requirement, list[str]]:
    """The hashes by pinned requirement."""
    text = LOCK.read_text().replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {
        Requirement(line.partition("--hash")[0]): re.findall(r"--hash=(\S+)", line)
        for line in entries
    }


def pinned(environment: dict[str, str]) -> dict[str, str]:
    """Versions by name in one environment; a name is there once."""
    found: dict[str, str] = {}
    for one in locked():
        if one.marker is None or one.marker.evaluate(environment):
            name = canonicalize_name(one.name)
            assert name not in found, f"{name} is pinned twice for {environment}"
            found[name] = str(one.specifier).removeprefix("==")
    return found


def asked() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return [Requirement(line) for line in lines]


def test_the_lock_satisfies_what_the_project_asks_for() -> None:
    for environment in ENVIRONMENTS:
        versions = pinned(environment)
        for one in asked():
            version = versions.get(canonicalize_name(one.name))
            assert version is not None, f"{one} is not locked: renew .ci/requirements.txt"
            assert one.specifier.contains(version, prereleases=True), f"{one} is locked {version}"


def test_every_file_has_its_hash_and_no_host_is_named() -> None:
    text = LOCK.read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)
    for one, hashes in locked().items():
        assert str(one.specifier).startswith("==") and hashes, one
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes), one
    # Of what is compiled there is a file for each system and Python, not this machine's alone.
    by_name = {one.name: hashes for one, hashes in locked().items()}
    for name in ("numpy", "pyarrow", "scipy", "grpcio", "httptools"):
        assert len(by_name[name]) > 20, name


def test_the_lock_holds_what_its_packages_need() -> None:
    """Checked for those that are installed here in the very version: their own files say it."""
    versions = pinned({})
    checked = 0
    for name, version in versions.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if installed.version != version:
            continue
        checked += 1
        for line in installed.requires or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                has = versions.get(canonicalize_name(need.name))
                assert has is not None, f"{name} needs {need}"
                assert need.specifier.contains(has, prereleases=True), f"{name} needs {need}"
    assert checked or metadata.version("pytest") != versions["pytest"]
