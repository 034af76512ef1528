"""A run read once: its rows, and whatever any source of evidence needs to be set against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latdiag.attribution.metrics import deltas
from latdiag.attribution.metrics.deltas import Sample
from latdiag.attribution.metrics.source import Scraped, scraped
from latdiag.attribution.replies import columns as replies
from latdiag.attribution.replies.source import Stated, stated
from latdiag.attribution.replies.source import reader as replies_reader
from latdiag.attribution.spans import columns as spans
from latdiag.attribution.spans.columns import Spans
from latdiag.attribution.spans.source import Spoken, spoken
from latdiag.measurement import digest
from latdiag.measurement.digest import Digest
from latdiag.measurement.slo import Slo
from latdiag.stacks import catalogue
from latdiag.store.run import Reader, Run


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reading of the requests and one of the evidence brought."""

    digest: Digest
    spans: Spans
    samples: Sequence[Sample]
    replies: replies.Reader
    writers: Sequence[Mapping[str, object]]

    def spoken(self) -> Spoken | None:
        """What spans say of the requests."""
        return spoken(
            self.spans, self.digest.frame, self.digest.chunks, self.replies, self.writers
        )

    def stated(self) -> Stated | None:
        """What replies state of the requests that bore them."""
        return stated(self.replies, self.digest.frame.answered())

    def scraped(self) -> Scraped | None:
        """What metrics say of all requests together."""
        return scraped(self.samples, self.digest.frame, bool(self.digest.designed))


def read(run: Run, slos: Sequence[Slo] = (), *also: Reader) -> Reading:
    """Read ``run``; ``also``: who else takes its rows as they go by."""
    said = spans.Reader(catalogue.stacks())
    metrics = deltas.Reader(catalogue.families())
    run.read_evidence(said, metrics)
    found = said.spans()
    rows = digest.Reader(slos, evidence=bool(found.n or metrics.samples))
    answers = replies_reader()
    run.read(rows, answers, *also)
    return Reading(rows.result(), found, metrics.samples, answers, run.writers)
