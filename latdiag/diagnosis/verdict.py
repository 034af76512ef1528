"""One sentence on where the time goes, from breakdowns; "I cannot tell" is an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from latdiag.attribution.parts import Parts
from latdiag.diagnosis.breakdown import TAIL_ROWS, UNEXPLAINED, leads, unattributed
from latdiag.diagnosis.flags import with_flags
from latdiag.diagnosis.health import Health
from latdiag.diagnosis.result import Breakdown, Share, Verdict

_MIN_ROWS = TAIL_ROWS
#: A leader leads beyond doubt where 95 of 100 repetitions would say so.
_BEYOND_DOUBT = 0.95
#: And holds at least this share at the lower end of its interval.
_LEAST = 0.2
#: With more requests failed nothing is called healthy.
_FAILED = 0.01

_WORDS = {
    "client": "this client itself",
    "network": "the network",
    "gateway": "a gateway or a way behind the first hop",
    "frontend": "the server's frontend (parse, template, tokenise)",
    "queue": "waiting behind other requests until the first token (queue and contention)",
    "prefill": "computing the prompts (prefill)",
    "interconnect": "moving the KV cache between servers (interconnect)",
    "decode": "decode, the stream of tokens after the first",
    "unattributed": "time that no evidence covers",
}
_BEHIND = (
    "whatever lies behind the first hop until the first token (queue, prefill, frontend and"
    " gateway together)"
)
_LEAVES = {
    "queue.admission": "admission to the batch",
    "decode.base": "the model's own step",
    "decode.batch": "steps made longer by other streams in the batch",
    "decode.interference": "steps stretched by others' prefills",
    "decode.stall": "pauses that no step explains",
}
#: In braces: what a knob of a stack turns; its flags stand there.
_NEXT = {
    "client": "Run latdiag nearer to the server, or on a machine with a free core.",
    "network": "Measure from a host nearer to the server: what remains there is not network.",
    "gateway": "Probe the server behind the gateway directly: what goes away is the gateway's.",
    "frontend": "Give the frontend more processes{frontends}, or look at its spans.",
    "queue": "Raise what the engine lets in at once{admitted}, or add a replica.",
    "prefill": "Shorten the prompts or share their prefixes (prefix caching), or give prefill"
    " more compute.",
    "interconnect": "Look at the KV link: its bandwidth, its set-up time, and whether the transfer"
    " overlaps with prefill.",
    "decode": "Run `latdiag load URL --concurrency 1`: if TPOT falls, the batch or others'"
    " prefills stretch it; if it stays, it is the model's own step time.",
    "unattributed": "Run again with more requests; report it if it stays.",
}
_NEXT_LEAF = {
    "queue.admission": _NEXT["queue"],
    "decode.base": "The step itself is slow: a smaller or quantised model, more tensor"
    " parallelism, or speculative decoding.",
    "decode.batch": "Let in fewer streams at once{admitted}, or add a replica.",
    "decode.interference": "Cut prefills smaller{chunk}, or disaggregate prefill from decode.",
    "decode.stall": "Look at the server while it pauses: garbage collection, collectives,"
    " throttling.",
}
_NEXT_CONTENTION = (
    "All streams that were tried were let in at once, so what they wait for is compute or KV"
    " memory: smaller prefill chunks, more KV cache, or another replica."
)
_NEXT_PACE = (
    "The model's own pace, and within what readers notice: shorter replies, or a faster model,"
    " are all that would help."
)
_NEXT_MERGED = {
    "queue": "Run `latdiag probe URL`, whose designed stages split queue, prefill and frontend;"
    " the server's own times split them per request.",
    "network": "Probe once more from the gateway's own host: what goes away is network, what"
    " stays is the gateway or the way behind it.",
    "prefill": "The server's own spans (OTLP) split prefill from what is merged with it.",
}


@dataclass(frozen=True, slots=True)
class Case:
    """What a verdict is made from. ``leaves``: the leaves of each population."""

    breakdowns: Mapping[str, Breakdown]
    parts: Parts
    valid: bool
    leaves: Mapping[str, Mapping[str, Share]]
    health: Health | None = None
    #: share of the requests that failed
    failed: float = 0.0
    #: streams that a burst was let in with; None: all
    admitted: int | None = None


def verdict(case: Case) -> Verdict:
    """Where the time goes. The tail speaks where it holds enough rows."""
    mean, tail = case.breakdowns.get("mean"), case.breakdowns.get("p95_tail")
    if mean is None or mean.n < _MIN_ROWS or mean.total_ns <= 0:
        told = 0 if mean is None or mean.total_ns <= 0 else mean.n
        return _too_few(told, case.parts.interval == "server")
    speaking = tail if tail is not None and tail.insufficient is None else None
    population = "p95_tail" if speaking else "mean"
    if not case.valid:
        return Verdict(
            None,
            population,
            "insufficient",
            "client_limited",
            "This client broke a rule of its self-audit, so its figures may describe itself.",
            "Mend what is named above and measure again.",
        )
    chosen = (speaking or mean).shares
    first, second, *_ = sorted(chosen, key=lambda name: -chosen[name].sum_ns)
    who = "the slowest 5 % of requests" if speaking else "all requests"
    whole = unattributed(chosen) < UNEXPLAINED and case.failed <= _FAILED
    if whole and case.health is not None and first == "decode" and case.health.good(chosen):
        return _healthy(case.health, population, _confidence(chosen[first]))
    ahead = leads(case.parts, first, population)
    low = chosen[first].lo
    clear = ahead is not None and ahead >= _BEYOND_DOUBT and low is not None and low >= _LEAST
    if not clear or first == "unattributed":
        return _ambiguous(chosen, population, who, first, second)
    return _bottleneck(case, chosen, population, who, first)


def _bottleneck(
    case: Case, chosen: Mapping[str, Share], population: str, who: str, first: str
) -> Verdict:
    fine = case.leaves.get(population) or {}
    leaf = _top_leaf(fine, first, chosen[first].sum_ns)
    sentence = f"{_share(chosen[first])} of the time of {who} goes to {_words(first, chosen)}"
    confidence = _confidence(chosen[first])
    unknown = unattributed(chosen)
    if unknown > UNEXPLAINED:
        sentence += f"; {100 * unknown:.0f} % of it is unattributed"
        confidence = "bounded"
    if leaf is not None:
        sentence += f", most of it to {_LEAVES[leaf]}"
        weaker = confidence == "measured" and fine[leaf].grade not in ("A", "B")
        if weaker and leaf in case.parts.borrowed:
            sentence += " (inferred)"
        elif weaker:
            # A sentence is as sure as the weakest of what it says.
            confidence = "inferred"
    if case.failed > _FAILED:
        sentence += f"; {100 * case.failed:.0f} % of the requests failed, which it leaves out"
    kind = "client_limited" if first == "client" else "bottleneck"
    following = _following(first, chosen, leaf)
    contended = first == "queue" and not chosen[first].members and leaf is None
    if contended and case.admitted is None:
        following = _NEXT_CONTENTION
    if leaf == "decode.base" and case.health is not None and case.health.keeps_tpot:
        following = _NEXT_PACE
    return Verdict(first, population, confidence, kind, f"{sentence}.", following)


def _too_few(n: int, listening: bool) -> Verdict:
    longer = (
        "See the failures and caveats above, if any; a longer measurement (--budget standard, more"
        " --max-tokens-total, or `latdiag load URL --duration 60s`) brings more of them."
    )
    if listening:
        longer = "Listen for longer (`latdiag collect --duration`), and see that spans arrive."
    return Verdict(
        None,
        "mean",
        "insufficient",
        "insufficient",
        f"{n} requests could be taken apart; {_MIN_ROWS} are needed for a verdict.",
        longer,
    )


def _healthy(health: Health, population: str, confidence: str) -> Verdict:
    return Verdict(
        None,
        population,
        "inferred" if confidence == "measured" else confidence,
        "healthy",
        f"No bottleneck at this load: {health.sentence()}.",
        "Raise --rate or --concurrency to find where that ends.",
    )


def _ambiguous(
    chosen: Mapping[str, Share], population: str, who: str, first: str, second: str
) -> Verdict:
    return Verdict(
        None,
        population,
        _confidence(chosen[first]),
        "ambiguous",
        f"Of {who}, {_share(chosen[first])} of the time is {_words(first, chosen)} and"
        f" {_share(chosen[second])} is {_words(second, chosen)}: neither leads beyond doubt.",
        f"{_following(first, chosen, None)} Or probe longer: --budget standard.",
    )


def _top_leaf(leaves: Mapping[str, Share], component: str, whole: int) -> str | None:
    """The leaf that holds more than half of a component, of those that advice differs by."""
    mine = {name: leaves[name].sum_ns for name in _LEAVES if name in leaves}
    mine = {name: ns for name, ns in mine.items() if name.startswith(f"{component}.")}
    top = max(mine, key=lambda name: mine[name], default=None)
    return top if top is not None and whole > 0 and mine[top] > whole / 2 else None


def _words(name: str, chosen: Mapping[str, Share]) -> str:
    members = chosen[name].members
    if name == "queue" and not members and chosen[name].grade in ("A", "B"):
        return "waiting in the server's queue"
    if name == "queue" and members:
        return _BEHIND
    rest = [_WORDS[member] for member in members if member != name]
    return _WORDS[name] + (f", not told apart from {' or '.join(rest)}" if rest else "")


def _following(name: str, chosen: Mapping[str, Share], leaf: str | None) -> str:
    if chosen[name].members:
        return with_flags(_NEXT_MERGED.get(name, _NEXT[name]))
    return with_flags(_NEXT_LEAF[leaf] if leaf in _NEXT_LEAF else _NEXT[name])


def _confidence(share: Share) -> str:
    if share.members:
        return "bounded"
    return {"A": "measured", "B": "measured", "C": "inferred"}.get(share.grade, "bounded")


def _share(share: Share) -> str:
    return f"{100 * (share.share or 0.0):.0f} %"
