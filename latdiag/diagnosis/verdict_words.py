"""The words and figures of a verdict's sentences."""

from __future__ import annotations

from collections.abc import Mapping

from latdiag.diagnosis.result import Breakdown, Share
from latdiag.model.units import GLUE, quantity

_WORDS = {
    "client": "latdiag's own client",
    "network": "the network",
    "gateway": "a gateway or proxy in front of the server",
    "frontend": "the server's frontend (parsing, chat template, tokenising)",
    "queue": "waiting behind other requests before the first token",
    "prefill": "computing the prompt (prefill)",
    "interconnect": "moving the KV cache between servers (interconnect)",
    "decode": "generating the tokens after the first (decode)",
    "unattributed": "time that no evidence explains",
}


def subject(name: str, chosen: Mapping[str, Share]) -> str:
    """What takes the time, as a sentence begins."""
    words = noun(name, chosen)
    return words[0].upper() + words[1:]


def noun(name: str, chosen: Mapping[str, Share]) -> str:
    members = chosen[name].members
    if members:
        named = f"{', '.join(members[:-1])} and {members[-1]}" if len(members) > 1 else name
        return f"{named} together (nothing in this run separates them)"
    if name == "queue" and chosen[name].grade in ("A", "B"):
        return "waiting in the server's queue"
    return _WORDS[name]


def takes(share: Share) -> str:
    return "take" if share.members else "takes"


def who(population: str) -> str:
    return "the slowest 5 % of requests" if population == "p95_tail" else "all requests"


def whole_of(about: Breakdown) -> str:
    return "time inside the server" if about.interval == "server" else "end-to-end time"


def amount(share: Share, about: Breakdown) -> str:
    """``62 % [55, 69]``."""
    text = f"{_percent(share.share or 0.0)} %"
    if share.lo is None or share.hi is None:
        return text
    return f"{text} [{_percent(max(0.0, share.lo))}, {_percent(share.hi)}]"


def _percent(share: float) -> str:
    return f"{round(100 * share) or 0}"


def mean_of(share: Share, about: Breakdown) -> str:
    """``mean 412 ms of 664 ms``."""
    return f"mean {ms(share.sum_ns, about)} of {ms(about.total_ns, about)}"


def ms(sum_ns: int, about: Breakdown) -> str:
    return quantity(sum_ns / about.n / 1e6, "ms").replace(GLUE, " ")


def confidence_of(share: Share) -> str:
    if share.members:
        return "bounded"
    return {"A": "measured", "B": "measured", "C": "inferred"}.get(share.grade, "bounded")
