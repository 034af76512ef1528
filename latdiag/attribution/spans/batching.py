"""Whether something between a server and the client holds its stream back and sends it in batches.

A server writes a chunk for each step of its engine, and states how long its decode took: so it
made one every so many milliseconds. A proxy that gathers small writes passes the same chunks on,
several at once and then none for long::

    server    |  |  |  |  |  |  |  |  |  |  |  |      its decode / its chunks
    client             ||||           ||||       |||| chunks together, far from the next

Chunks are events of the stream, which no proxy joins: one with several tokens (speculative
decoding) is one step of the server. Chunks that this client read too late to stamp apart
(censored) prove nothing, nor do chunks behind a lost segment, nor stamps in user space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import HIDDEN_BITS, MASK
from latdiag.attribution.spans import claims as claiming
from latdiag.attribution.spans.columns import NEVER

if TYPE_CHECKING:
    from latdiag.attribution.spans.columns import Spans
    from latdiag.measurement.chunks import Chunks
    from latdiag.measurement.frame import Frame

#: A server that needs less for a chunk may have sent them so itself. (It is also the width of a
#: read within which stamps are not told apart.)
_STEP_NS = 1_000_000
#: From batch to batch at least: what lasts less is the lateness of some event loop.
_PERIOD_NS = 20_000_000
#: Chunks at a time, on average over a stream that is held back. An event loop that is late for a
#: moment joins two or three, now and then.
_SIZE = 4
#: Of the gaps of a stream so many must be known; those that are not count as breaks.
_KNOWN = 0.9
#: Fewer chunks show no pattern, and fewer requests no habit.
_CHUNKS, _REQUESTS = 8, 5
#: A period is read off between at least so many batches of one reply.
_BATCHES = 3


@dataclass(frozen=True, slots=True)
class Batching:
    """A stream that is held back: of ``requests`` that can be judged ``held`` show it.

    ``share``: of the gaps of all that are next to nothing. Medians of those that show it:
    ``tokens`` that come at a time, ``every_ns`` from batch to batch (of a reply that came whole,
    the server's decode), ``step_ns`` in which the server makes one token."""

    requests: int
    held: int
    share: float
    tokens: float
    every_ns: float
    step_ns: float


def held_back(chunks: Chunks, spans: Spans, seen: Frame) -> Batching | None:
    """What holds back the streams of the requests ``seen``, whose servers said ``spans``.

    ``chunks``: one entry a row of the whole frame. None where nothing is seen to, or no server
    says how long it decoded.
    """
    came = chunks.select(seen.row)
    if not (came.judged & (_sizes(came) >= _SIZE)).any():
        return None
    return batching(came, stated_decode(spans, seen))


def batching(came: Chunks, decode_ns: NDArray[np.int64]) -> Batching | None:
    """What holds the streams back, None where nothing is seen to in most requests.

    ``decode_ns``: how long the server says that it decoded each of them, 0 where it does not.
    """
    step = decode_ns / np.maximum(came.chunks - 1, 1)
    judged = came.judged & (step >= _STEP_NS) & (came.chunks >= _CHUNKS)
    judged &= came.known >= _KNOWN * (came.chunks - 1)
    sizes = _sizes(came)
    breaks = came.known - came.together
    every = np.where(breaks >= _BATCHES - 1, came.apart / np.maximum(breaks, 1), step * sizes)
    held = judged & (sizes >= _SIZE) & (every >= _PERIOD_NS)
    requests, count = int(judged.sum()), int(held.sum())
    if requests < _REQUESTS or 2 * count <= requests:
        return None
    each = (came.tokens / np.maximum(came.chunks, 1))[held]
    return Batching(
        requests,
        count,
        float(came.together[judged].sum() / came.known[judged].sum()),
        float(np.median(sizes[held] * each)),
        float(np.median(every[held])),
        float(np.median(step[held] / each)),
    )


def gathered(came: Chunks) -> NDArray[np.bool_]:
    """The requests whose output came many events at a time, or all at once."""
    found: NDArray[np.bool_] = (came.chunks > 1) & (_sizes(came) >= np.minimum(_SIZE, came.chunks))
    return found & came.judged


def _sizes(came: Chunks) -> NDArray[np.float64]:
    """Chunks a batch, at least."""
    sizes: NDArray[np.float64] = came.chunks / np.maximum(came.chunks - came.together, 1)
    return sizes


def stated_decode(spans: Spans, seen: Frame) -> NDArray[np.int64]:
    """How long the servers say that they decoded each request, ns; 0: they do not.

    From the first to the last of what an engine claims for decode alone; else from the first
    token, where a server says when that was, to the end of the engine's spans.
    """
    told = claiming.claimed(spans, seen.n)
    claims, decode = told.claims, MASK["decode"]
    alone = (claims.covers & ~decode & ~HIDDEN_BITS == 0) & (claims.covers & decode != 0)
    begin = np.full(seen.n, np.iinfo(np.int64).max)
    end = np.full(seen.n, np.iinfo(np.int64).min)
    mine = alone & told.engine
    np.minimum.at(begin, claims.row[mine], claims.start[mine])
    np.maximum.at(end, claims.row[mine], claims.end[mine])
    whole = np.full(seen.n, np.iinfo(np.int64).min)
    np.maximum.at(whole, claims.row[told.engine], claims.end[told.engine])
    rest = np.where((told.first > NEVER) & (whole > told.first), whole - told.first, 0)
    return np.where(end > begin, end - begin, rest)
