"""A run read once: its rows, and whatever any source of evidence needs to be set against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latdiag.attribution import exported
from latdiag.attribution.accounts import Account
from latdiag.attribution.metrics import deltas
from latdiag.attribution.metrics import source as metrics_source
from latdiag.attribution.metrics.deltas import Sample
from latdiag.attribution.replies import columns as replies
from latdiag.attribution.replies import overheads as gateways_own
from latdiag.attribution.replies import source as replies_source
from latdiag.attribution.replies.overheads import Overhead, overheads
from latdiag.attribution.spans import columns as spans
from latdiag.attribution.spans import source as spans_source
from latdiag.attribution.spans.columns import Spans
from latdiag.measurement import digest
from latdiag.measurement.digest import Digest
from latdiag.measurement.slo import Slo
from latdiag.stacks import catalogue
from latdiag.stacks.detect import Signs, detect
from latdiag.store.run import Reader, Run

#: A gateway that nothing names.
_HOLDER = "what holds the stream back"
#: Of a header that others may have written.
_TEXT = 200


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reading of the requests and one of the evidence brought. ``gateways``: the stacks
    in front of an engine, by what they showed of themselves."""

    digest: Digest
    spans: Spans
    samples: Sequence[Sample]
    replies: replies.Reader
    writers: Sequence[Mapping[str, object]]
    exported: exported.Reader
    gateways: Sequence[str] = ()

    def overheads(self) -> list[Overhead]:
        """What gateways state of themselves in the headers of the workload's replies."""
        return overheads(self.replies, self.digest.frame.answered())

    @property
    def _in_front(self) -> Sequence[str]:
        """What is known to be in front of the servers, by name or by what it does."""
        bursts = self.digest.bursts
        unnamed = (_HOLDER,) if bursts is not None and bursts.held else ()
        return self.gateways or unnamed

    def accounts(self) -> list[Account]:
        """What spans, replies and metrics make of the requests, as far as there are any."""
        frame, chunks = self.digest.frame, self.digest.chunks
        each = (
            self.exported.account(frame),
            spans_source.account(self.spans, frame, chunks, self.replies, self.writers),
            replies_source.account(self.replies, frame.answered()),
            metrics_source.account(
                self.samples, frame, bool(self.digest.designed), self._in_front
            ),
            gateways_own.account(self.replies, frame.answered()),
        )
        return [account for account in each if account is not None]


def read(run: Run, slos: Sequence[Slo] = (), *also: Reader) -> Reading:
    """Read ``run``; ``also``: who else takes its rows as they go by."""
    said = spans.Reader(catalogue.stacks())
    metrics = deltas.Reader(catalogue.families())
    settled = exported.Reader()
    run.read_evidence(said, metrics, settled)
    found = said.spans()
    rows = digest.Reader(slos, evidence=bool(found.n or metrics.samples))
    answers = replies_source.reader()
    run.read(rows, answers, *also)
    taken = rows.result()
    gateways = _gateways(run.header, answers.headers(max(1, taken.frame.answered().n)))
    return Reading(taken, found, metrics.samples, answers, run.writers, settled, gateways)


def _server(header: Mapping[str, object]) -> list[str]:
    """Who answered the preflight, by its header."""
    found = header.get("preflight")
    server = found.get("server") if isinstance(found, Mapping) else None
    return [f"server: {server[:_TEXT]}"] if isinstance(server, str) else []


def _gateways(header: Mapping[str, object], replied: frozenset[str]) -> list[str]:
    """The stacks in front of an engine: those of run.json, which others may have written, or who
    answered first by its ``server`` header, and those that all replies bear a header of
    (``replied``)."""
    stacks = header.get("stacks")
    names = {
        each.get("name")
        for each in (stacks if isinstance(stacks, list) else ())
        if isinstance(each, Mapping)
    }
    signs = Signs(headers=frozenset({*(f"{name}: " for name in replied), *_server(header)}))
    names |= {found.stack.name for found in detect(signs)}
    return [s.name for s in catalogue.stacks() if s.layer == "gateway" and s.name in names]
