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

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latdiag.store.batch import Batch

#: What the client cannot tell apart: everything behind the first hop until the first token.
BEHIND_THE_HOP = ("queue", "prefill", "frontend", "gateway")
_PARTS = ("client", "network", "queue", "decode", "unattributed")
_RESAMPLES = 400
#: Fewer rows than this bear no interval of a tail's share.
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
    order = np.argsort(joined["sent"], kind="stable")
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
    lag = np.where(due.valid[row], sent - due.values[row], 0)
    done = batch.ints["done_ns"]
    ended = np.where(done.valid[row], done.values[row], last[row])
    total = ended - sent + lag
    decode = last[row] - (sent + ttft.ttft[good])
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


def breakdown(
    parts: Parts, interval: str, population: str, seed: int = 0
) -> dict[str, Any] | None:
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
    tail_is_thin = population != "mean" and len(rows) < TAIL_ROWS
    entry: dict[str, Any] = {"interval": interval, "total_ns": whole, "n": len(rows)}
    bounds = {} if tail_is_thin else _intervals(chosen, total[rows], seed)
    slack_lo = int((parts.parts["network"] - parts.network_lo)[rows].sum())
    slack_hi = int((parts.network_hi - parts.parts["network"])[rows].sum())
    for name in ("client", "network", "queue", "decode", "unattributed"):
        if name not in chosen:
            continue
        lo, hi = bounds.get(name, (None, None))
        if lo is not None and hi is not None and whole:
            # What the stamps leave open between network and the server widens both.
            down, up = {"network": (slack_lo, slack_hi), "queue": (slack_hi, slack_lo)}.get(
                name, (0, 0)
            )
            lo, hi = max(-1.0, lo - down / whole), min(1.0, hi + up / whole)
        value = int(chosen[name].sum())
        entry[name] = {
            "share": value / whole if whole else None,
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
    columns: dict[str, NDArray[np.int64]], total: NDArray[np.int64], seed: int
) -> dict[str, tuple[float, float]]:
    """95 % intervals of the ratios of sums, by a circular block bootstrap over time."""
    import numpy as np

    n = len(total)
    if n < 2:
        return {}
    block = min(n, max(1, round(4 * n ** (1 / 3))))
    random = np.random.default_rng(seed)
    starts = random.integers(0, n, size=(_RESAMPLES, -(-n // block)))
    found = {}
    drawn_totals = _block_sums(total, starts, block)
    for name, values in columns.items():
        ratios = _block_sums(values, starts, block) / np.maximum(drawn_totals, 1.0)
        below, above = np.quantile(ratios, [0.025, 0.975])
        found[name] = (float(below), float(above))
    return found


def _block_sums(
    values: NDArray[np.int64], starts: NDArray[np.int64], block: int
) -> NDArray[np.float64]:
    """Sum over the drawn blocks of each resample, by prefix sums over the circle."""
    import numpy as np

    circle = np.concatenate((values, values[:block])).astype(float)
    prefix = np.concatenate(([0.0], np.cumsum(circle)))
    sums: NDArray[np.float64] = (prefix[starts + block] - prefix[starts]).sum(axis=1)
    return sums


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
