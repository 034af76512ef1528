"""Real servers, where their installation is on this machine: run with ``pytest -m live``.

The scripts that install and start them are found by LATDIAG_LIVE_TOOLS, or beside the checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("LATDIAG_LIVE_TOOLS", _ROOT.parent / "shared" / "tools" / "live"))
LIVE = Path(os.environ.get("LATDIAG_LIVE", Path.home() / ".cache" / "latdiag-live"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "live" in config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="needs a real server: run it with pytest -m live")
    for item in items:
        if item.get_closest_marker("live"):
            item.add_marker(skip)


class Stack:
    """Starts components by the scripts, each once, and stops what it started."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def up(self, component: str, name: str, *options: str) -> dict[str, str]:
        if not (LIVE / "installed" / component).exists() or not TOOLS.is_dir():
            pytest.skip(f"{component} is not installed")
        if name not in self._names:
            self._names.append(name)
        done = subprocess.run(
            [TOOLS / "up.sh", component, "--as", name, *options],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            # The engine's threads spin: without a core of their own they starve the very
            # processes whose times are compared.
            env={**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0"},
        )
        pairs = (line.partition("=") for line in done.stdout.splitlines() if "=" in line)
        return {key: value for key, _, value in pairs}

    def stop(self, name: str) -> None:
        self._names.remove(name)
        subprocess.run([TOOLS / "down.sh", name], capture_output=True, timeout=60, check=True)

    def down(self) -> None:
        for name in reversed(dict.fromkeys(self._names)):
            subprocess.run([TOOLS / "down.sh", name], capture_output=True, timeout=60, check=True)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    started = Stack()
    yield started
    started.down()


def latdiag(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """(exit code, the JSON result, stderr) of the installed command line."""
    done = subprocess.run(
        [sys.executable, "-m", "latdiag", *arguments, "--json", "--quiet"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=_ROOT,
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def spans(path: Path, name: str) -> dict[str, dict[str, Any]]:
    """Attributes of all spans of that name in a file of OTLP/JSON lines, by trace id."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        for resource in json.loads(line)["body"].get("resourceSpans", []):
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    if span["name"] == name:
                        found[span["traceId"]] = {
                            a["key"]: next(iter(a["value"].values()))
                            for a in span.get("attributes", [])
                        }
    return found
