"""A client's instants against the truth: how wrong, how much censored, how much delivered.

Definitions. True ITL k = pre-send(k) - pre-send(k-1). True TTFT = pre-send(token 0) - kernel
arrival of the request's last byte at the server. True TPOT = (pre-send(last) - pre-send(0)) over
the tokens after the first chunk's. True E2E = pre-send of the stream's last byte - that arrival.
Error = client - truth, so a client's error holds the path there and back (loopback: some us).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .seen import UNKNOWN, Seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Rates count within this part of a run, so that start and end do not.
MIDDLE = (0.3, 0.7)


class Truth:
    """A server's record, token sends sorted by request and chunk."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.meta: dict[str, Any] = json.loads(str(file["meta"]))
            columns = {name: file[name] for name in file.files if name != "meta"}
        tokens = columns["index"] >= 0
        order = np.lexsort((columns["index"][tokens], columns["request"][tokens]))
        self.request = columns["request"][tokens][order].astype(np.int64)
        self.index = columns["index"][tokens][order].astype(np.int64)
        self.mono = columns["mono"][tokens][order]
        self.real = columns["real"][tokens][order]
        self.tx_real = columns["tx_real"][tokens][order] if "tx_real" in columns else None
        self.requests = {n[2:]: v for n, v in columns.items() if n.startswith("r_")}
        count = len(self.requests["number"])
        self.offsets = np.searchsorted(self.request, np.arange(count + 1))
        self.last_real = np.zeros(count, np.int64)
        np.maximum.at(self.last_real, columns["request"], columns["real"])
        expected = np.arange(len(self.index)) - self.offsets[self.request]
        if not np.array_equal(self.index, expected):
            raise ValueError(f"{path}: the chunks of a stream are not 0, 1, 2, ...")

    @property
    def void_because(self) -> list[str]:
        return list(self.meta["void_because"])

    def rows(self, number: int) -> slice:
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))

    def mono_less_real(self) -> int:
        """CLOCK_MONOTONIC - CLOCK_REALTIME, median over the sends."""
        return int(np.median(self.mono - self.real)) if len(self.mono) else 0


@dataclass(frozen=True, slots=True)
class Spread:
    """|error| in us, and the median of the signed error."""

    n: int
    p50: float
    p90: float
    p99: float
    max: float
    bias: float

    @classmethod
    def of(cls, errors_ns: NDArray[np.float64]) -> Spread | None:
        """None of no errors: a client that states nothing has no accuracy, not a perfect one."""
        if not len(errors_ns):
            return None
        p50, p90, p99, top = np.percentile(np.abs(errors_ns), [50, 90, 99, 100]) / 1000
        bias = float(np.median(errors_ns)) / 1000
        return cls(len(errors_ns), float(p50), float(p90), float(p99), float(top), bias)


@dataclass(frozen=True, slots=True)
class Scores:
    """``raw`` holds all, the others leave out what the client itself marked as censored."""

    itl: Spread | None
    itl_raw: Spread | None
    ttft: Spread | None
    ttft_raw: Spread | None
    ttft_user: Spread | None
    tpot: Spread | None
    e2e: Spread | None
    censored_share: float
    censored_after_ramp: float
    sent_per_s: float
    got_per_s: float
    chunks: int
    matched: int
    unmatched: int
    duplicates: int
    length_mismatches: int
    not_seen: int
    """Requests that the server finished and the client does not report (a warm-up, say)."""


@dataclass(slots=True)
class _Errors:
    """One list an array of each matched request."""

    itl: list[NDArray[np.int64]]
    itl_censored: list[NDArray[np.bool_]]
    itl_at: list[NDArray[np.int64]]
    ttft: list[tuple[int, bool]]
    ttft_user: list[tuple[int, bool]]
    tpot: list[tuple[float, bool]]
    e2e: list[int]


def score(truth: Truth, seen: Seen, ramp_s: float = 0.0) -> Scores:
    """Joins by reply number. ``ramp_s``: start of the run that ``censored_after_ramp`` omits."""
    errors = _Errors([], [], [], [], [], [], [])
    taken: set[int] = set()
    unmatched = duplicates = mismatches = 0
    count = len(truth.requests["number"])
    for i, number in enumerate(seen.number.tolist()):
        if not 0 <= number < count:
            unmatched += 1
        elif number in taken:
            duplicates += 1
        elif not _compare(truth, seen, i, number, errors):
            mismatches += 1
        taken.add(number)
    finished = int(truth.requests["finished"].sum())
    itl, censored = _joined(errors.itl, np.int64), _joined(errors.itl_censored, np.bool_)
    settled = _joined(errors.itl_at, np.int64) >= _start(truth) + round(ramp_s * 1e9)
    sent, got = _rates(truth, seen)
    matched = len(errors.ttft_user)
    return Scores(
        itl=Spread.of(itl[~censored].astype(float)),
        itl_raw=Spread.of(itl.astype(float)),
        ttft=_spread(errors.ttft, exact_only=True),
        ttft_raw=_spread(errors.ttft),
        ttft_user=_spread(errors.ttft_user, exact_only=True),
        tpot=_spread(errors.tpot, exact_only=True),
        e2e=Spread.of(np.array(errors.e2e, float)),
        censored_share=_share(censored),
        censored_after_ramp=_share(censored[settled]),
        sent_per_s=sent,
        got_per_s=got,
        chunks=sum(len(e) + 1 for e in errors.itl),
        matched=matched,
        unmatched=unmatched,
        duplicates=duplicates,
        length_mismatches=mismatches,
        not_seen=finished - matched - mismatches,
    )


def _compare(truth: Truth, seen: Seen, i: int, number: int, errors: _Errors) -> bool:
    """Adds request i's errors; False where the client has another number of chunks."""
    rows = truth.rows(number)
    sent, sent_real = truth.mono[rows], truth.real[rows]
    span = slice(int(seen.offsets[i]), int(seen.offsets[i + 1]))
    got, censored = seen.arrivals[span], seen.censored[span]
    if len(got) != len(sent) or not len(got):
        return False
    errors.itl.append(np.diff(got) - np.diff(sent))
    errors.itl_censored.append(censored[1:] | censored[:-1])
    errors.itl_at.append(sent[1:])
    arrived = int(truth.requests["last_real"][number])
    true_ttft = int(sent_real[0]) - arrived
    first_censored = bool(censored[0])
    user, wire, done = int(seen.user[i]), int(seen.wire[i]), int(seen.done[i])
    errors.ttft_user.append((int(got[0]) - user - true_ttft, first_censored))
    if wire != UNKNOWN:
        errors.ttft.append((int(got[0]) - wire - true_ttft, first_censored))
    begin = user if wire == UNKNOWN else wire
    if done != UNKNOWN:
        errors.e2e.append(done - begin - (int(truth.last_real[number]) - arrived))
    rest = _tokens_after_first(truth, number)
    if rest > 0 and len(got) > 1:
        wrong = (int(got[-1] - got[0]) - int(sent[-1] - sent[0])) / rest
        errors.tpot.append((wrong, first_censored or bool(censored[-1])))
    return True


def _tokens_after_first(truth: Truth, number: int) -> int:
    tokens = int(truth.requests["tokens"][number])
    per_chunk = int(truth.meta["options"]["tokens_per_chunk"])
    return tokens - min(per_chunk, tokens)


def _rates(truth: Truth, seen: Seen) -> tuple[float, float]:
    """(chunks sent, chunks that the client stamps) per second of the middle of the run."""
    if len(truth.mono) < 2:
        return 0.0, 0.0
    begin, end = int(truth.mono.min()), int(truth.mono.max())
    low, high = (begin + (end - begin) * part for part in MIDDLE)
    seconds = (high - low) / 1e9
    sent = np.count_nonzero((truth.mono >= low) & (truth.mono < high)) / seconds
    got = np.count_nonzero((seen.arrivals >= low) & (seen.arrivals < high)) / seconds
    return float(sent), float(got)


def _start(truth: Truth) -> int:
    """The first request's arrival, CLOCK_MONOTONIC."""
    reads = truth.requests["read_mono"]
    return int(reads.min()) if len(reads) else 0


def _share(flags: NDArray[np.bool_]) -> float:
    return float(np.mean(flags)) if len(flags) else 0.0


def _joined(parts: list[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *parts])


def _spread(
    errors: list[tuple[int, bool]] | list[tuple[float, bool]], exact_only: bool = False
) -> Spread | None:
    kept = [e for e, censored in errors if not (exact_only and censored)]
    return Spread.of(np.array(kept, float))
