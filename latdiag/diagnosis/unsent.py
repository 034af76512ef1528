"""What is said where replies count more tokens than are known to have come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latdiag.attribution.accounts import Rank
from latdiag.attribution.laws.delivery import delivery_of
from latdiag.measurement.unsent import Unsent, unsent_of
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.units import GLUE, quantity

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Result
    from latdiag.measurement.digest import Digest
    from latdiag.measurement.frame import Frame

#: The share of all tokens from which on it is said; and from which on the time between two tokens
#: cannot be told, where those of a chunk are not known.
_SOME, _MANY = 0.03, 0.33
_SURE = "these were not sent (hidden reasoning, for example)"
_OPEN = "these were not sent, or came several to a chunk, and nothing says which"
_WITHHELD = "Compare servers by TPOT and ITL, which are of the tokens that came."
_UNCOUNTED = (
    "Let the server state the tokens of each chunk, or its hidden ones"
    " (completion_tokens_details.reasoning_tokens)."
)


def refusals(found: Digest) -> dict[str, str]:
    """TPOT, where nobody knows over how many tokens the time from the first to the last is to be
    shared out: replies count more than come, or chunks are of unknown size."""
    if not found.measurement.counts.tokens_unknown:
        return {}
    seen = found.observations
    if seen is not None and delivery_of(seen).hidden.any():
        return {"tpot": "replies count tokens that were never sent"}
    rows = _answered(found)
    unsent = unsent_of(rows)
    open_ = int((unsent.tokens - unsent.withheld).sum())
    if open_ <= _MANY * int(rows.osl.sum()):
        return {}
    return {"tpot": "replies count more tokens than chunks, and do not say where they went"}


def caveats(result: Result, found: Digest) -> list[Caveat]:
    """One on all of them: what their time may be, and the throughput by what came."""
    rows = _answered(found)
    unsent = unsent_of(rows)
    counted, missing = int(rows.osl.sum()), int(unsent.tokens.sum())
    if missing <= _SOME * counted:
        return []
    some = int((unsent.tokens > 0).sum())
    exact = missing == int(unsent.withheld.sum())
    told = (
        _time(result, rows, unsent),
        _rate(result, 1 - missing / counted, exact),
        _WITHHELD if exact else _UNCOUNTED,
    )
    return [
        caveat(
            "LD144",
            rows=some,
            requests=rows.n,
            each=f"{missing / some:.0f}",
            fate=_SURE if exact else _OPEN,
            more=" ".join(filter(None, told)),
        )
    ]


def _answered(found: Digest) -> Frame:
    frame = found.frame
    return frame.select(np.flatnonzero(frame.ok & frame.workload & (frame.outputs > 0)))


def _time(result: Result, rows: Frame, unsent: Unsent) -> str:
    """What decode may take before the first arrival, where nothing but the client says so."""
    if result.rests_on[:1] not in ((), (Rank.CLIENT,)):
        return ""
    behind = rows.first - rows.begin - rows.client - rows.network
    whole = int((rows.done - rows.begin).sum())
    share = int(unsent.early_ns(behind).sum()) / max(whole, 1)
    return (
        f"If they were made before the first arrival, up to {100 * share:.0f} % of E2E there is"
        " decode."
    )


def _rate(result: Result, came: float, exact: bool) -> str:
    metric = result.metrics.get("output_throughput")
    value = metric.total.value if metric is not None and metric.total is not None else None
    if value is None:
        return ""
    by_count, by_arrival = (
        quantity(each, "tok/s").replace(GLUE, " ") for each in (value, value * came)
    )
    least = "" if exact else "at least "
    return f"Output throughput is {by_count} by count, and {least}{by_arrival} arrived."
