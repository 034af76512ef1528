"""Two loads of two simulated servers over real sockets, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latdiag.cli import run
from tests.schema import validate

from .invoke import loaded

_WORK = ("--requests", "120", "--concurrency", "8", "--isl", "64", "--osl", "16", "--quiet")


def test_a_server_with_longer_steps_takes_more_decode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same work for a healthy server and for one whose steps take long: decode, by all of
    its intervals; what the client proves of itself is next to nothing on either side."""
    ended = [
        loaded(tmp_path / fault, f"demo:{fault}", *_WORK, "--seed", str(seed))
        for seed, fault in enumerate(("healthy", "decode"))
    ]
    # A busy machine may make a run invalid (12); its rows are compared all the same, and said.
    assert {each.code for each in ended} <= {0, 12}
    capsys.readouterr()
    code = run(["compare", *(str(each.run) for each in ended), "--json"])
    assert code == max(each.code for each in ended)
    document = json.loads(capsys.readouterr().out)
    validate(document)
    compared = document["compared"]
    assert not compared["same_run"]
    assert {"seed", "target"} <= {e["what"] for e in compared["differs"]}
    assert not any(e["unlike"] for e in compared["differs"])
    tpot = compared["metrics"]["tpot"]["mean"]["difference"]
    decode = compared["components"]["mean"]["decode"]["difference"]
    if code == 12 and tpot["lo"] is None:
        return  # this machine was too busy for an interval, which is said
    assert tpot["lo"] > 0 and tpot["contains_zero"] is False
    assert decode["lo"] > 0 and decode["value"] == pytest.approx(15 * tpot["value"], rel=0.2)
    assert code == run(["compare", *(str(each.run) for each in ended), "--full"])
    text = capsys.readouterr().out
    assert all(len(line) <= 79 for line in text.splitlines()) and "What differs" in text
