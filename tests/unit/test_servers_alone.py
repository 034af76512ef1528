"""A recorded Dynamo that others sent requests: where its own time went, by what its spans say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latdiag.attribution.spans import explain
from latdiag.attribution.spans.columns import Reader, Spans
from latdiag.stacks import catalogue
from latdiag.store.run import Run

from .golden import COLLECTED, unpack


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("collected")
    unpack(COLLECTED, folder)
    return Run.open(str(next(folder.glob("*.run"))))


@pytest.fixture(scope="module")
def spans(run: Run) -> Spans:
    reader = Reader(catalogue.stacks())
    run.read_evidence(reader)
    return reader.spans()


def test_decode_lasts_from_the_first_token_to_the_end_of_the_request(
    run: Run, spans: Spans
) -> None:
    """Set against the raw attributes, and against the frontend's own metrics."""
    parts, facts = explain.server_only(spans)
    assert parts is not None and facts.told >= 60
    raw = run.evidence(["kind", "foreign_name", "start_ns", "end_ns", "labels"])
    raw = raw[(raw.kind == "span") & (raw.foreign_name == "http-request")]
    first = raw.labels.map(lambda labels: float(labels.get("ttft_ms", "nan")))
    stream = ((raw.end_ns - raw.start_ns) / 1e6 - first)[first.notna()]
    assert len(stream) == facts.told
    assert parts.parts["decode"].sum() / 1e6 == pytest.approx(stream.sum(), rel=0.001)
    # By the frontend's metrics of that run: 350 ms of decode, 120 ms until the first token.
    assert parts.parts["decode"].mean() / 1e6 == pytest.approx(350, rel=0.05)
    early = (parts.total - parts.parts["decode"]).mean() / 1e6
    assert early == pytest.approx(120, rel=0.05)


def test_servers_that_state_no_first_token_merge_decode_and_leave_little_open(
    spans: Spans,
) -> None:
    silent = {**spans.values, "ttft_ms": np.full(spans.n, np.nan)}
    parts, _ = explain.server_only(replace(spans, values=silent))
    assert parts is not None
    assert (sum(parts.parts.values()) == parts.total).all()
    members = [source.members for source in parts.sources.values() if source.members]
    assert ["interconnect" in each and "decode" in each for each in members] == [True]
    left = int(np.abs(parts.parts["unattributed"]).sum())
    assert left < 0.02 * int(parts.total.sum())
