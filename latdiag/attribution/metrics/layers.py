"""Whose metrics may be set against whose, where several layers of one target are scraped.

A server that hands requests on to others has waited for them, and what they say is taken away from
what it says. Which part of a request they did, their role tells: the time to the first token of a
server that only decodes lies after that of the one that prefilled.
"""

from __future__ import annotations

from collections.abc import Sequence

from latdiag.attribution.metrics.deltas import Sample
from latdiag.stacks.catalogue import selector
from latdiag.stacks.signal import Signal, Stack

#: What a server is inside of its own, and what one that hands requests on has beside that.
_ROUTES, _DECODES = "gateway.proc", "decode.base"
_PARTS = frozenset({"prefill", "decode"})

_Layer = tuple[Stack, list[Signal]]


def placed(there: Sequence[_Layer], rows: Sequence[Sample]) -> tuple[list[_Layer], list[str]]:
    """The stacks whose metrics can be set against each other, and sentences on the others.

    ``there``: each stack with its metric signals; ``rows``: with the roles that are known.
    """
    front = [stack.title for stack, mine in there if stack.layer == "engine" and _hands_on(mine)]
    if not front:
        return list(there), []
    kept, left = [], []
    for stack, mine in there:
        if stack.layer != "engine" or _hands_on(mine) or _is_known(mine, rows):
            kept.append((stack, mine))
        else:
            left.append(
                f"the metrics of {stack.title} are not set against those of {front[0]}: nothing"
                " shows which part of a request its servers did"
            )
    return kept, left


def is_engine(stack: Stack, mine: Sequence[Signal]) -> bool:
    """Whether a stack computes itself what it is asked for."""
    return stack.layer == "engine" and not _hands_on(mine)


def _hands_on(mine: Sequence[Signal]) -> bool:
    """Whether a stack routes requests to servers, and waits for all that these do."""
    return any({_ROUTES, _DECODES} <= signal.covers for signal in mine)


def _is_known(mine: Sequence[Signal], rows: Sequence[Sample]) -> bool:
    """Whether the role of every server is known, and all parts of a request are there."""
    timed = {selector(signal.foreign)[0] for signal in mine if signal.covers}
    roles = {row.role for row in rows if row.name in timed}
    return not roles or roles == {"unified"} or ("" not in roles and roles >= _PARTS)
