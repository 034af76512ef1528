"""A change of production traffic: what moved, since when, by how much."""

from __future__ import annotations

from dataclasses import dataclass

from latdiag.model.components import COMPONENTS
from latdiag.watch.bins import Key


@dataclass(frozen=True, slots=True)
class Change:
    """``metric``: ttft or tpot. ``delta_ns``: by how much its mean moved for this component.
    ``since``, ``until``: numbers of bins; ``until`` None while it holds. ``cause``: ``component``
    itself, ``load``, ``prompts`` (longer ones), or the component that it follows.
    ``p95_before``, ``p95_after``: of the metric, ns."""

    metric: str
    component: str
    model: str
    replica: str
    delta_ns: float
    before_ns: float
    since: int
    cause: str
    p95_before: float | None
    p95_after: float | None
    load_ratio: float = 1.0
    until: int | None = None
    #: the figures are of the time of one replica
    of_replica: bool = False

    @property
    def place(self) -> int:
        """Of the component, or of the first of those that cannot be told apart."""
        return COMPONENTS.index(self.component.partition("+")[0])

    @property
    def key(self) -> Key:
        """Of whose time the figures are."""
        if self.of_replica:
            return ("replica", self.model, self.replica)
        return ("model", self.model, "")

    @property
    def middle_ns(self) -> float:
        """Nearer to what it was than this, it is back."""
        return self.before_ns + 0.3 * self.delta_ns
