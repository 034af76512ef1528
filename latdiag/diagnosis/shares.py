"""The time of requests in components, as shares of their sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from latdiag.model.components import in_time_order
from latdiag.model.document import OPTIONAL
from latdiag.model.units import NS_PER_MS

if TYPE_CHECKING:
    import pandas as pd

#: What a breakdown may be of: all requests of the workload, or the slowest 5 % of them.
POPULATIONS = ("mean", "p95_tail")


@dataclass(frozen=True, slots=True)
class Share:
    """What one component, or one leaf of it, has of a population's time.

    ``sum_ns``: over all its requests. ``grade``: A to E, of the evidence. ``members``: where the
    evidence cannot tell components apart, all that are in it, its own name first.
    """

    share: float | None
    lo: float | None
    hi: float | None
    sum_ns: int
    grade: str
    evidence: str
    members: tuple[str, ...] = field(default=(), metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The time of ``n`` requests, in components that add up to ``total_ns``.

    ``segments``: independent repetitions that the requests come in. ``left_out``: requests that
    could not be taken apart. ``insufficient``: why no share has an interval.
    """

    interval: str
    total_ns: int
    n: int
    segments: int
    left_out: int
    insufficient: str | None
    shares: Mapping[str, Share]

    @property
    def unknown(self) -> tuple[str, ...]:
        """Components that nobody was there to know of: inside a server, the client's."""
        return ("client", "network") if self.interval == "server" else ()

    def frame(self) -> pd.DataFrame:
        """A row for each component, in time order: ``share``, ``lo`` and ``hi`` (its 95 %
        interval), ``sum_ms`` over all requests, ``grade``, ``evidence``, ``members``. The index
        is the component; of several that no evidence tells apart, the first."""
        import pandas as pd

        shares = in_time_order(self.shares)
        columns = {
            name: [getattr(share, name) for share in shares.values()]
            for name in ("share", "lo", "hi", "sum_ns", "grade", "evidence")
        }
        columns["members"] = [share.members or (name,) for name, share in shares.items()]
        found = pd.DataFrame(columns, index=pd.Index(list(shares), name="component"))
        found.insert(3, "sum_ms", found.pop("sum_ns") / NS_PER_MS)
        return found.astype(dict.fromkeys(("share", "lo", "hi"), float))

    def to_json(self) -> dict[str, object]:
        return {
            "interval": self.interval,
            "total_ns": self.total_ns,
            "n": self.n,
            "segments": self.segments,
            "left_out": self.left_out,
            "insufficient": self.insufficient,
            **in_time_order({**dict.fromkeys(self.unknown), **self.shares}),
        }
