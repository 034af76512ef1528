"""What each kind of evidence makes of the same run, and which of them is to be believed first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from latdiag.attribution.evidence import MetricEvidence, ReplyEvidence, SpanEvidence
from latdiag.attribution.parts import Parts
from latdiag.model.caveat import Caveat


class Rank(IntEnum):
    """The order in which accounts are believed.

    Servers come before a probe, and a probe before the client alone. Metrics come after a probe,
    since those that were scraped around one are not of the workload; and so do replies that do
    not tell queue from prefill.
    """

    SPANS = 0
    REPLIES = 1
    LAWS = 2
    METRICS = 3
    MERGED_REPLIES = 4
    CLIENT = 5


@dataclass(frozen=True)
class Account:
    """One kind of evidence on a run. ``parts``: None where it does not divide the requests' time.
    ``evidence``: what became of it. ``caveats``: on how far it holds. ``stacks``: those that it
    comes from, by name."""

    rank: Rank
    parts: Parts | None
    evidence: SpanEvidence | ReplyEvidence | MetricEvidence | None = None
    caveats: tuple[Caveat, ...] = ()
    stacks: tuple[str, ...] = ()

    @property
    def is_of_single_requests(self) -> bool:
        """Whether servers speak of each request, or of all in a way that divides each."""
        return self.parts is not None or not isinstance(self.evidence, MetricEvidence)


def ranked(accounts: Iterable[Account]) -> list[Parts]:
    """The parts of all accounts that have some, the first to be believed first."""
    order = sorted(accounts, key=lambda account: account.rank)
    return [account.parts for account in order if account.parts is not None]
