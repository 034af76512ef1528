"""A run that claims more designed requests than probes make is refused before a law is sought."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from latdiag.diagnosis.diagnose import result_of
from latdiag.measurement import observations
from latdiag.model.errors import RunFault
from latdiag.store.run import Run

PROBE = Path(__file__).parents[1] / "goldens" / "runs" / "probe-queue.run.tar.gz"


def test_more_designed_requests_than_probes_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(PROBE) as packed:
        packed.extractall(tmp_path, filter="data")
    run = str(next(tmp_path.glob("*.run")))
    assert result_of(Run.open(run), "diagnose", ()).learned is not None
    monkeypatch.setattr(observations, "MOST_DESIGNED", 40)
    with pytest.raises(RunFault, match=r"claims \d+ designed requests, and probes make 40"):
        result_of(Run.open(run), "diagnose", ())
