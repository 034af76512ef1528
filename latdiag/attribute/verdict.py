"""One sentence on where the time goes, from breakdowns; "I cannot tell" is an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latdiag.attribute.breakdown import TAIL_ROWS

_MIN_ROWS = 30

_WORDS = {
    "client": "this client itself",
    "network": "the network",
    "queue": "whatever lies behind the first hop until the first token (queue, prefill, frontend"
    " and gateway together)",
    "decode": "decode, the stream of tokens after the first",
    "unattributed": "time that no evidence covers",
}
_NEXT = {
    "client": "Run latdiag nearer to the server, or on a machine with a free core.",
    "network": "Measure from a host nearer to the server: what remains there is not network.",
    "queue": "Run `latdiag load URL --concurrency 1`: what goes away was queueing and contention,"
    " what stays is prefill and frontend; the server's own times split it per request.",
    "decode": "Run `latdiag load URL --concurrency 1`: if TPOT falls, the batch or others'"
    " prefills stretch it; if it stays, it is the model's own step time.",
    "unattributed": "Run again with more requests; report it if it stays.",
}


def verdict(breakdowns: Mapping[str, Mapping[str, Any]], valid: bool) -> dict[str, Any]:
    """The verdict entry of ``--json``. The tail speaks where it holds enough rows."""
    mean, tail = breakdowns.get("mean"), breakdowns.get("p95_tail")
    if mean is None or mean["n"] < _MIN_ROWS or mean["total_ns"] <= 0:
        n = 0 if mean is None or mean["total_ns"] <= 0 else mean["n"]
        return _entry(
            None,
            "mean",
            "insufficient",
            "insufficient",
            f"{n} requests could be taken apart; {_MIN_ROWS} are needed for a verdict.",
            "See the failures above, if any; `latdiag load URL --duration 60s` measures longer.",
        )
    population = "p95_tail" if tail is not None and tail["n"] >= TAIL_ROWS else "mean"
    chosen = tail if population == "p95_tail" and tail is not None else mean
    ranked = sorted(
        ((name, entry) for name, entry in chosen.items() if isinstance(entry, dict)),
        key=lambda item: -item[1]["sum_ns"],
    )
    (first, top), (second, runner_up) = ranked[0], ranked[1]
    who = "the slowest 5 % of requests" if population == "p95_tail" else "all requests"
    if not valid:
        return _entry(
            None,
            population,
            "insufficient",
            "client_limited",
            "This client broke a rule of its self-audit, so its figures may describe itself.",
            "Mend what is named above and measure again.",
        )
    if first == "client":
        kind = "client_limited"
    elif _apart(top, runner_up):
        kind = "bottleneck"
    else:
        kind = "ambiguous"
    if kind == "ambiguous":
        sentence = (
            f"Of {who}, {_share(top)} of the time is {_WORDS[first]} and {_share(runner_up)} is"
            f" {_WORDS[second]}: neither leads beyond doubt."
        )
    else:
        sentence = f"{_share(top)} of the time of {who} goes to {_WORDS[first]}."
    return _entry(
        None if kind == "ambiguous" else first,
        population,
        "bounded" if "members" in top or top["grade"] != "A" else "measured",
        kind,
        sentence,
        _NEXT[first],
    )


def _apart(top: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the leader leads over its whole interval."""
    if top["lo"] is None or second["hi"] is None:
        return False
    return bool(top["lo"] > second["hi"])


def _share(entry: Mapping[str, Any]) -> str:
    return f"{100 * entry['share']:.0f} %"


def _entry(
    dominant: str | None,
    population: str,
    confidence: str,
    kind: str,
    sentence: str,
    following: str,
) -> dict[str, Any]:
    return {
        "dominant": dominant,
        "population": population,
        "confidence": confidence,
        "kind": kind,
        "sentence": sentence,
        "next": following,
    }
