"""Head sampling leaves spans for some of a probe's requests: then nothing is less known than from
the probe alone, and no interval excludes what all spans show.

``tests/bench/whitebox/test_sampled.py`` asks the same of more runs and seeds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sampled_spans import diagnosed, faults, sampled

from .golden import RUNS, SHARED, unpack

ARCHIVES = (RUNS / "probe-kv-spans.run.tar.gz", SHARED / "A-long.run.tar.gz")
WHOLE, NONE = 1.0, 0.0


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name.partition(".")[0])
def test_sampled_spans_tell_no_less_than_the_probe_alone(archive: Path, tmp_path: Path) -> None:
    if not archive.exists():
        pytest.skip("the recording is not here")
    run = tmp_path / unpack(archive, tmp_path)
    whole, alone = (diagnosed(sampled(run, share, 0, tmp_path)) for share in (WHOLE, NONE))
    assert whole["evidence"] and "evidence" not in alone
    for share in (0.1, 0.7):
        found = diagnosed(sampled(run, share, 1, tmp_path))
        told = found["evidence"]["joined"]
        assert 0 < told < whole["evidence"]["joined"]
        assert found["verdict"]["kind"] != "insufficient"
        assert faults(found, alone, whole) == []


def test_what_is_less_known_is_seen(tmp_path: Path) -> None:
    """``faults`` itself: a class less parted, another that leads, an interval beside the truth."""
    run = tmp_path / unpack(ARCHIVES[0], tmp_path)
    whole, alone = (diagnosed(sampled(run, share, 0, tmp_path)) for share in (WHOLE, NONE))
    shares = alone["breakdown"]["mean"]
    shares["interconnect"] |= {"members": ["queue", "interconnect"], "lo": 0.1, "hi": 0.2}
    assert len(faults(alone, diagnosed(sampled(run, NONE, 1, tmp_path)), whole)) == 2
    alone["verdict"] |= {"dominant": "decode", "kind": "insufficient"}
    assert len(faults(alone, whole, whole)) == 4
