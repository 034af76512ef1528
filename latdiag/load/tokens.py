"""How many tokens each arrival of a stream brought, and how that is known.

A chunk is not a token: speculative decoding, chunked detokenisation and gateways put several into
one event. So counts come from what the server states, best first, and where only the total is
known the counts are refused rather than guessed.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from latdiag.model.records import OUTPUT_KINDS, Kind, TokenSource

Stated = Sequence[int | None]

_BY_VALUE = tuple(sorted(Kind))
_OUTPUT = frozenset(OUTPUT_KINDS)
#: What an arrival that bears tokens but no text may have been read as.
_TEXTLESS = frozenset({Kind.OTHER, Kind.ROLE, Kind.USAGE})


class TokenCounts(NamedTuple):
    """The tokens of one reply.

    ``counts``: tokens of each arrival (0 where it bore none), as long as ``kinds``; None where
    only the total is known. ``osl``: output tokens of the reply, None where nobody said.
    ``kinds``: the arrivals' kinds, with tokens that bore no text given the kind that they belong
    to. ``off_by``: what the arrivals' own statements add up to, minus the server's total; None
    where one of the two is missing. Above 0 the two contradict each other and a lesser source
    was taken; below 0 the server counted tokens that no arrival bore (an unseen end of sequence,
    hidden reasoning).
    """

    counts: list[int] | None
    source: TokenSource
    osl: int | None
    kinds: list[Kind]
    off_by: int | None


def token_counts(
    kinds: Sequence[int],
    ids: Stated,
    cumulative: Stated,
    usage_total: int | None,
    reasoning: int = 0,
) -> TokenCounts:
    """Counts of one reply from its arrivals, all three sequences of equal length.

    ``ids``: token ids (or log probabilities) that came with the arrival. ``cumulative``:
    completion tokens so far, as its usage said. ``usage_total``: the last usage of the reply;
    ``reasoning``: tokens in it of what the model thought, which a server may keep to itself.

    Sources in order: token ids · differences of the continuous usage · the usage total where it
    equals the number of output arrivals (each bears at least one token, so then each bears
    exactly one) · the total alone, without counts · nothing.
    """
    by_ids = settle_kinds(kinds, {i for i, n in enumerate(ids) if n})
    by_usage = settle_kinds(kinds, _growing(kinds, cumulative))
    off_by = None
    for source, settled, counts in (
        (TokenSource.IDS, by_ids, _from_ids(by_ids, ids)),
        (TokenSource.USAGE_CONTINUOUS, by_usage, _from_differences(by_usage, cumulative)),
    ):
        if counts is None:
            continue
        total = sum(counts)
        excess = None if usage_total is None else total - usage_total
        # The first contradiction is kept: it tells about the better source.
        off_by = excess if off_by is None else off_by
        if excess is None or excess <= 0:
            osl = total if usage_total is None else usage_total
            return TokenCounts(counts, source, osl, settled, off_by)
    if usage_total is None:
        return TokenCounts(None, TokenSource.CHUNKS, None, by_ids, off_by)
    ones = [int(kind in _OUTPUT) for kind in by_ids]
    arrived = usage_total - (0 if Kind.REASONING in by_ids else reasoning)
    each_one = ones if sum(ones) == arrived else None
    return TokenCounts(each_one, TokenSource.USAGE, usage_total, by_ids, off_by)


def settle_kinds(kinds: Sequence[int], bearing: Container[int]) -> list[Kind]:
    """Kinds in which the arrivals ``bearing`` tokens (indices) but no text count as output.

    Half of a multi-byte character, a control token or a token that a parser swallowed is output
    all the same. It continues what came before; at the start it belongs to what comes next.
    """
    settled = [_BY_VALUE[kind] for kind in kinds]
    current = next((kind for kind in settled if kind in _OUTPUT), Kind.ANSWER)
    for i, kind in enumerate(settled):
        if kind in _OUTPUT:
            current = kind
        elif kind in _TEXTLESS and i in bearing:
            settled[i] = current
    return settled


def _growing(kinds: Sequence[int], cumulative: Stated) -> set[int]:
    """Arrivals at which the usage grew without any text, as it does for a token without text.

    Not the last that states usage: that is the summary, which may count what was never sent. Not
    a role event: servers make it when the first token is there already, and state that one.
    """
    stating = [i for i, so_far in enumerate(cumulative) if so_far is not None]
    grown = set()
    seen = 0
    for i in stating[:-1]:
        so_far = cumulative[i] or 0
        if so_far > seen and kinds[i] != Kind.ROLE:
            grown.add(i)
            seen = so_far
    return grown


def _from_ids(kinds: list[Kind], ids: Stated) -> list[int] | None:
    """Counts from ids, or None where an output arrival came without."""
    counts = []
    for kind, n in zip(kinds, ids, strict=True):
        if kind not in _OUTPUT:
            counts.append(0)
        elif n is None:
            return None
        else:
            counts.append(n)
    return counts if any(counts) else None


def _from_differences(kinds: list[Kind], cumulative: Stated) -> list[int] | None:
    """Counts from usage so far, or None where it does not grow with every output arrival.

    A server that repeats the final total in each chunk, or states it late, would give the first
    arrival everything.
    """
    counts = []
    seen = 0
    for kind, so_far in zip(kinds, cumulative, strict=True):
        if kind not in _OUTPUT:
            counts.append(0)
            continue
        if so_far is None or so_far <= seen:
            return None
        counts.append(so_far - seen)
        seen = so_far
    return counts if seen else None
