"""A hosted API that refuses what is beyond its limit: load and probe name it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run
from tests.schema import validate

Captured = pytest.CaptureFixture[str]


@contextmanager
def limited(kind: str, value: float) -> Iterator[str]:
    """The URL of such a server."""
    command = [sys.executable, "-m", "tests.loopback.limited_peer", kind, str(value)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/counts", timeout=10) as reply:
        found: dict[str, int] = json.load(reply)
    return found


def said(capsys: Captured, *args: str) -> dict[str, Any]:
    code = run([*args, "--json", "--quiet"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    validate(result)
    assert code in (0, 12)
    return result


@pytest.mark.parametrize(
    ("kind", "value", "load"),
    [("in_flight", 3, ["-c", "6", "-n", "120"]), ("rate", 6.0, ["--rate", "12", "-n", "150"])],
)
def test_a_load_names_the_limit(
    tmp_path: Path, capsys: Captured, kind: str, value: float, load: list[str]
) -> None:
    with limited(kind, value) as url:
        result = said(
            *(capsys, "load", url, "-o", str(tmp_path / "it.run")),
            *("--osl", "12", "--isl", "40", "--warmup", "0", *load),
        )
        truth = counts(url)
    assert truth["refused"] > 5
    assert result["load"]["failed"] == {"rate_limited": truth["refused"]}
    (named,) = (each for each in result["limits"] if each.get("refused"))
    assert named["refused"] == truth["refused"]
    # On a busy machine requests may come too unevenly for the rule to show; never for another one.
    assert named["kind"] in (kind, "refusals")
    assert named["value"] == (pytest.approx(value, rel=0.1) if named["kind"] == kind else None)


def test_a_probe_goes_on_below_the_limit(tmp_path: Path, capsys: Captured) -> None:
    with limited("in_flight", 4) as url:
        result = said(
            *(capsys, "probe", url, "-o", str(tmp_path / "it.run"), "--rate", "10"),
            *("--osl", "12", "--isl", "40"),
        )
        truth = counts(url)
    assert truth["most"] == 4 and truth["refused"]
    (named,) = (each for each in result["limits"] if each.get("refused"))
    assert (named["kind"], named["value"]) == ("in_flight", 4)
    # What was found out is heeded: the workload is served.
    assert result["load"]["ok"] >= 0.97 * result["load"]["requests"] > 30
