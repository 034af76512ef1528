"""End-to-end latency in components, from what the client alone can prove.

Every row is partitioned in integer nanoseconds, so the sums are exact; a share is a ratio of
sums, never a mean of ratios. What lies behind the first hop until the first token cannot be told
apart from outside: it is one merged class under ``queue``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latdiag.attribute.ttft_split import first_output, split
from latdiag.model.records import Outcome
from latdiag.stats.dependence import sum_variance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latdiag.store.batch import Batch

#: What the client cannot tell apart: everything behind the first hop until the first token.
BEHIND_THE_HOP = ("queue", "prefill", "frontend", "gateway")
_PARTS = ("client", "network", "queue", "decode", "unattributed")
#: Fewer rows than this bear no interval of a share.
TAIL_ROWS = 30


@dataclass(frozen=True, slots=True)
class Parts:
    """One entry per row that could be partitioned, in the order of ``sent_ns``; int64 ns.

    ``begin``: due in open loop, sent in closed. ``total = done - begin`` is the sum of the parts.
    ``network_lo/hi``: what the stamps prove of network; the rest moves to and from ``queue``.
    """

    total: NDArray[np.int64]
    ttft: NDArray[np.int64]
    parts: dict[str, NDArray[np.int64]]
    network_lo: NDArray[np.int64]
    network_hi: NDArray[np.int64]
    delayed: NDArray[np.bool_]
    left_out: int


def partition(batches: Iterable[Batch]) -> Parts:
    """Partition every successful row; the others, and those without exact stamps, are counted."""
    import numpy as np

    found: list[dict[str, NDArray[Any]]] = []
    left_out = 0
    for batch in batches:
        piece = _partition(batch)
        left_out += int((batch.texts["outcome"] == Outcome.OK.value).sum()) - len(piece["total"])
        found.append(piece)
    if not found:
        found.append({name: np.zeros(0, dtype=np.int64) for name in _COLUMNS})
    joined = {name: np.concatenate([piece[name] for piece in found]) for name in _COLUMNS}
    # Equal instants are told apart too: the order of the batches must not matter.
    order = np.lexsort((joined["queue"], joined["total"], joined["sent"]))
    joined = {name: values[order] for name, values in joined.items()}
    return Parts(
        total=joined["total"],
        ttft=joined["ttft"],
        parts={name: joined[name] for name in _PARTS},
        network_lo=joined["network_lo"],
        network_hi=joined["network_hi"],
        delayed=joined["delayed"].astype(bool),
        left_out=left_out,
    )


_COLUMNS = ("sent", "total", "ttft", *_PARTS, "network_lo", "network_hi", "delayed")


def _partition(batch: Batch) -> dict[str, NDArray[Any]]:
    import numpy as np

    ttft = split(batch)
    _, _, last = first_output(batch)
    good = batch.texts["outcome"][ttft.row] == Outcome.OK.value
    row = ttft.row[good]
    sent = batch.ints["sent_ns"].values[row]
    due = batch.ints["due_ns"]
    lag = np.where(due.valid[row], np.maximum(sent - due.values[row], 0), 0)
    done = batch.ints["done_ns"]
    ended = np.where(done.valid[row], done.values[row], last[row])
    total = ended - sent + lag
    decode = np.maximum(last[row] - (sent + ttft.ttft[good]), 0)
    client, network, server = ttft.client[good] + lag, ttft.network[good], ttft.server[good]
    return {
        "sent": sent,
        "total": total,
        "ttft": ttft.ttft[good] + lag,
        "client": client,
        "network": network,
        "queue": server,
        "decode": decode,
        # What follows the last token (usage, end mark) belongs to no component known here.
        "unattributed": total - client - network - server - decode,
        "network_lo": ttft.network_lo[good],
        "network_hi": ttft.network_hi[good],
        "delayed": ttft.delayed[good].astype(np.int64),
    }


def breakdown(parts: Parts, interval: str, population: str) -> dict[str, Any] | None:
    """One entry of the ``--json`` breakdown; None where there is no row.

    ``interval``: client_e2e, client_ttft or decode. ``population``: mean (all rows) or p95_tail
    (rows at or above the 95th percentile of the interval).
    """
    import numpy as np

    inside = {
        "client_e2e": _PARTS,
        "client_ttft": ("client", "network", "queue"),
        "decode": ("decode",),
    }[interval]
    columns = {name: parts.parts[name] for name in inside}
    total = np.sum(list(columns.values()), axis=0)
    rows = np.arange(len(total))
    if not len(rows):
        return None
    if population == "p95_tail":
        rows = np.flatnonzero(total >= np.quantile(total, 0.95, method="higher"))
    chosen = {name: values[rows] for name, values in columns.items()}
    whole = int(total[rows].sum())
    entry: dict[str, Any] = {"interval": interval, "total_ns": whole, "n": len(rows)}
    bounds = _intervals(chosen, total[rows])
    slack_lo = int((parts.parts["network"] - parts.network_lo)[rows].sum())
    slack_hi = int((parts.network_hi - parts.parts["network"])[rows].sum())
    for name in ("client", "network", "queue", "decode", "unattributed"):
        if name not in chosen:
            continue
        value = int(chosen[name].sum())
        share = value / whole if whole > 0 else None
        lo, hi = bounds.get(name, (None, None))
        if share is not None and lo is not None and hi is not None:
            # What the stamps leave open between network and the server widens both.
            down, up = {"network": (slack_lo, slack_hi), "queue": (slack_hi, slack_lo)}.get(
                name, (0, 0)
            )
            least = -1.0 if name == "unattributed" else 0.0
            lo = min(share, max(least, lo - down / whole))
            hi = max(share, min(1.0, hi + up / whole))
        entry[name] = {
            "share": share,
            "lo": lo,
            "hi": hi,
            "sum_ns": value,
            "grade": _grade(name, parts.delayed[rows]),
            "evidence": _evidence(name, parts.delayed[rows]),
        }
    if "queue" in entry:
        entry["queue"]["members"] = list(BEHIND_THE_HOP)
    return entry


def _intervals(
    columns: dict[str, NDArray[np.int64]], total: NDArray[np.int64]
) -> dict[str, tuple[float, float]]:
    """95 % intervals of the ratios of sums; none for fewer rows than ``TAIL_ROWS``.

    The ratio is linearised (Cochran, Sampling Techniques, 3rd ed., section 6.4): its variance is
    that of the sum of ``part - ratio * total`` over the rows, which depend on each other in time
    (``stats.dependence``). Measured coverage is in the tests.
    """
    import math

    from scipy.special import stdtrit

    whole = float(total.sum())
    if len(total) < TAIL_ROWS or whole <= 0:
        return {}
    found = {}
    for name, values in columns.items():
        ratio = float(values.sum()) / whole
        spread = sum_variance(values - ratio * total)
        half = float(stdtrit(spread.freedom, 0.975)) * math.sqrt(spread.variance) / whole
        found[name] = (ratio - half, ratio + half)
    return found


def _grade(name: str, delayed: NDArray[np.bool_]) -> str:
    if name == "queue":
        return "E"
    if name == "network" and bool(delayed.any()):
        return "D"
    return "A"


def _evidence(name: str, delayed: NDArray[np.bool_]) -> str:
    late = int(delayed.sum())
    return {
        "client": "user and kernel transmit stamps of this client",
        "network": "transmit and ACK stamps, TCP_INFO min_rtt"
        + (f"; ACK delayed in {late} of {len(delayed)}: bounded" if late else ""),
        "queue": "kernel receive stamp of the first token minus the ACK: everything behind the"
        " first hop",
        "decode": "kernel receive stamps, first to last token; time on links between steps is"
        " inside",
        "unattributed": "from the last token to the last byte that counts",
    }[name]
