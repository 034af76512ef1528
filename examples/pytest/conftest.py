"""A fixture that fails a test if the candidate is slower than the base. Copy it to your tests.

    pytest --latdiag-base http://127.0.0.1:8001/v1 --latdiag-cand http://127.0.0.1:8002/v1

A test that takes ``latdiag_gate`` is skipped where no servers are named.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("latdiag")
    group.addoption("--latdiag-base", metavar="URL", help="the server as it was")
    group.addoption("--latdiag-cand", metavar="URL", help="the server as it would be")
    group.addoption("--latdiag-budget", metavar="TIME", default="4m", help="how long to measure")


class Verdict:
    """What ``latdiag gate run`` concluded. ``word``: OK, IMPROVED, REGRESSED, INCONCLUSIVE or
    INVALID; ``document``: its gate.json, ``page``: the same for people."""

    def __init__(self, document: dict[str, Any], page: str) -> None:
        self.document = document
        self.page = page
        self.word: str = document["result"]["verdict"]
        self.cause: str | None = document["result"]["cause"]

    def check(self) -> None:
        """Fail the test if the candidate is slower, or if nothing could be compared; skip it if
        more pairs are needed."""
        if self.word in ("REGRESSED", "INVALID"):
            pytest.fail(self.page, pytrace=False)
        if self.word == "INCONCLUSIVE":
            pytest.skip(self.page.partition("\n\n")[0])


@pytest.fixture
def latdiag_gate(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Verdict]:
    """Call it with more options of ``latdiag gate run``, such as ``"--osl", "64"``."""
    base, cand = (request.config.getoption(f"--latdiag-{arm}") for arm in ("base", "cand"))
    if not base or not cand:
        pytest.skip("needs --latdiag-base and --latdiag-cand")
    budget = request.config.getoption("--latdiag-budget")

    def gate(*options: str) -> Verdict:
        words = ("--base", base, "--cand", cand, "--budget", budget, "--quiet", *options)
        done = subprocess.run(
            [sys.executable, "-m", "latdiag", "gate", "run", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        kept = tmp_path / "gate.json"
        if done.returncode not in (0, 10, 11, 12) or not kept.exists():
            pytest.fail(done.stderr or done.stdout, pytrace=False)
        return Verdict(json.loads(kept.read_text(encoding="utf-8")), done.stdout)

    return gate
