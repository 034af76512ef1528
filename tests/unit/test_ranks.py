"""Several ranks in spans: a caveat says where their collectives are, and else nothing does."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from latdiag.attribution.spans.columns import Spans

from .golden import CAPTURES, said
from .test_whitebox_hard import ROOT, sglang, spans_of


def named(*ranks: int | None) -> Spans:
    threads = [one for rank in ranks for one in sglang(f"s{rank}", rank)]
    return spans_of([[ROOT, *threads]], [0])


def test_ranks_are_those_that_spans_name() -> None:
    assert named(0, 1, 2, 3).ranks == 4
    assert named(0).ranks == 1
    assert named(None).ranks == 0


@pytest.mark.parametrize("several", [True, False])
def test_several_ranks_are_seen_or_nothing_is_said(
    several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording in which every other rank 0 is a rank 1, and as it is."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CAPTURES / "sglang-0.5.16-h200" / "tp1", "capture")
    for cut in Path("capture").glob("cut.*"):
        cut.unlink()
    path = Path("capture/spans.otlp.jsonl.gz")
    if several:
        text, counted = gzip.decompress(path.read_bytes()).decode(), iter(range(10**6))
        rank = re.compile(r'("tp_rank", "value": \{"intValue": ")0"')
        text = rank.sub(lambda found: f'{found[1]}{next(counted) % 2}"', text)
        path.write_bytes(gzip.compress(text.encode()))
    said("import", "capture", "--out", "a.run")
    found = json.loads(said("diagnose", "a.run", "--json").rpartition("exit ")[0])
    texts = [each["text"] for each in found["caveats"] if each["code"] == "LD405"]
    assert len(texts) == several
    if several:
        assert "2 ranks" in texts[0] and "inside prefill and decode" in texts[0]
