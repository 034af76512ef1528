"""docs/api.md and the example: each piece of code runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import latdiag
from latdiag import api

from .golden import CAPTURES, RUNS, unpack

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the page speaks of, and no traffic but to a port where nobody listens."""
    monkeypatch.chdir(tmp_path)
    saved = unpack(RUNS / "load-metrics.run.tar.gz", tmp_path)
    (tmp_path / "latdiag-runs").mkdir()
    (tmp_path / saved).rename("latdiag-runs/NAME.run")
    for name in ("before.run", "after.run", "sweep-1.run"):
        (tmp_path / name).symlink_to("latdiag-runs/NAME.run")
    other = unpack(RUNS / "load-replies-metrics.run.tar.gz", tmp_path)
    (tmp_path / other).rename("sweep-2.run")
    (tmp_path / "capture").symlink_to(CAPTURES / "vllm-0.24.0-h200" / "tp1")

    def measured(verb: str, words: list[str], *given: Any) -> Any:
        if verb == "import" or "localhost:1/" in words[0]:
            return whole(verb, words, *given)
        api._options({**given[0], **given[1]})
        return Ended()

    class Ended:
        code, run, caveats = 0, "latdiag-runs/NAME.run", ()

    whole = api._measured
    monkeypatch.setattr(api, "_measured", measured)


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=[s.split("\n")[0][:40] for s in SNIPPETS])
def test_each_snippet_runs(snippet: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(SNIPPETS) == 6
    exec(compile(snippet, "docs/api.md", "exec"), {"latdiag": latdiag})
    out, err = capsys.readouterr()
    assert err == "" and ("print(" in snippet) == bool(out)


def test_every_public_name_is_on_the_page() -> None:
    said = set(re.findall(r"`(\w+)`", PAGE.partition("## Names")[2]))
    assert said == set(latdiag.__all__)
    assert set(re.findall(r"\blatdiag\.(\w+)", "".join(SNIPPETS))) <= set(latdiag.__all__)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> latdiag.Result:
    folder = tmp_path_factory.mktemp("probed")
    return latdiag.diagnose_run(folder / unpack(RUNS / "probe-kv-spans.run.tar.gz", folder))


def test_the_columns_are_those_of_the_table(probed: latdiag.Result) -> None:
    table = probed.requests()
    rows = re.findall(r"^\| (`.*?`) \|", PAGE.partition("## Requests")[2], re.M)
    named = re.findall(r"`(\w+)`", " ".join(rows))
    components = {"interconnect_ms", *table.attrs["grades"]}
    assert [name for name in table.columns if name not in components] == [
        name for name in named if name not in components
    ]


def test_the_example_ttft_over_time(probed: latdiag.Result) -> None:
    path = ROOT / "examples" / "ttft_over_time.py"
    assert len(path.read_text().splitlines()) <= 17
    done = subprocess.run(
        [sys.executable, str(path), str(probed.run)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    first, head, _, *rows = done.stdout.splitlines()
    verdict = probed.verdict
    assert verdict is not None and first == verdict.sentence and done.stderr == ""
    assert head.split()[:3] == ["ttft_ms", "client_ms", "network_ms"] and len(rows) > 5
    for row in rows:
        whole, *parts = map(float, row.split()[2:])
        assert sum(parts) == pytest.approx(whole, abs=0.05 * (len(parts) + 1))
