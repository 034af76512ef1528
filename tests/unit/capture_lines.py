"""Lines of ``client.jsonl`` made up for tests, and a call of ``latdiag import``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run

NS0 = 1_795_417_400_000_000_000


def imported(
    capsys: pytest.CaptureFixture[str], *args: str | Path, code: int = 0
) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["import", "--json", *map(str, args)]) == code
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def line(i: int, **changed: Any) -> dict[str, Any]:
    """A sound line of client.jsonl, but for what is changed (None: left out)."""
    sent = NS0 + i * 1_000_000
    sound = {
        "scenario": "c1",
        "trace_id": f"{i + 1:032x}",
        "span_id": f"{i + 1:016x}",
        "send_ns": sent,
        "headers_ns": sent + 10,
        "chunks": [[sent + 20, 3], [sent + 30, 4]],
        "done_ns": sent + 40,
        "status": 200,
        "id": f"cmpl-r{i}",
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    return {name: value for name, value in (sound | changed).items() if value is not None}


def make(folder: Path, lines: list[Any]) -> Path:
    folder.mkdir()
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    (folder / "client.jsonl").write_text(text, encoding="utf-8")
    return folder
