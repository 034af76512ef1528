"""What to do about the part that takes the time: options of the stack and version that are there,
and what they would bring, as far as it was measured.

Never what the run has just measured, nor an option that the verb, the stack or its version lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from latdiag.attribution.accounts import Rank
from latdiag.diagnosis.flags import with_flags
from latdiag.diagnosis.splitting import splitting
from latdiag.model.units import GLUE, NS_PER_MS, quantity
from latdiag.stacks.catalogue import are_hosted, flags_of

if TYPE_CHECKING:
    from latdiag.diagnosis.case import Case
    from latdiag.diagnosis.result import Breakdown

#: From this share on another component is worth advice of its own; of decode, a leaf.
_NOTABLE, _LEAF = 0.2, 0.25
#: A KV cache that is so full lets no more requests run.
_FULL = 0.9
#: Tokens of a chunk below which steps cost more than they do good.
_LEAST_CHUNK = 256
#: A server that is so many times as slow as it was asked alone has changed.
CHANGED = 1.25

#: In braces: what an option of a stack turns; its options stand there.
_NEXT = {
    "client": "Run latdiag closer to the server, or on a machine with a free CPU core.",
    "network": "Move client and server closer together, and keep connections open: it is the path"
    " that takes the time.",
    "gateway": "Run `latdiag probe URL --behind URL2`, with the URL of the server behind the"
    " gateway: it sends both the same workload, and the difference is the gateway's.",
    "frontend": "Give the server's frontend more processes{frontends}, or a faster CPU.",
    "queue": "Let the engine run more requests at once{admitted}, or add a replica.",
    "prefill": "Shorten the prompts, let them share their beginning (prefix caching), or give"
    " prefill more compute{parallel}.",
    "interconnect": "Check the link that carries the KV cache{transfer}: its bandwidth, its set-up"
    " time, and whether the transfer overlaps with prefill.",
    "decode": "Run `latdiag load URL --concurrency 1`: if TPOT falls, other requests in the batch"
    " slow decode down; if it stays the same, the model's own step takes the time.",
    "unattributed": "Look for a server on the path that reports no times of its own.",
}
_NEXT_LEAF = {
    "decode.base": "Use a smaller or quantised model, more GPUs for a step{parallel}, or"
    " speculative decoding{speculation}: the step itself is slow.",
    "decode.batch": "Add a replica, or let the engine run fewer requests at once{admitted}: the"
    " others then wait.",
    "decode.interference": "Use smaller prefill chunks{chunk}, or run prefill on servers of its"
    " own{apart}.",
    "decode.stall": "Watch the server during a pause: garbage collection, collectives, and"
    " throttling stop all requests at once.",
    "interconnect.wait": "Look at how the servers hand requests over (polling, places that are"
    " taken on the decoding side): a faster link would change little.",
}
#: Where the stack that is there has no option for it.
_NO_PROCESSES = "Give the server's frontend a faster CPU, or add a replica."
_NO_CHUNKS = "Add a replica: prompts then meet fewer running streams."
#: Of servers that somebody else runs.
_HOSTED = (
    "A provider runs these servers: try another model, region or service tier, or ask it for"
    " capacity of your own."
)
_ITS_OWN = ("frontend", "queue", "prefill", "interconnect", "decode")
_FASTER = (
    "Use a smaller or quantised model, or more GPUs for a step{parallel}: the step itself is slow."
)
_NEXT_SHARED_DECODE = (
    "No single cause makes up half of decode: fewer requests at once{admitted} reduce what the"
    " batch adds, a faster model shortens the step itself."
)
_NEXT_ALONE = (
    "One request at a time was in flight, so no other request of this run slowed decode: use a"
    " smaller or quantised model, more GPUs for a step{parallel}, or speculative"
    " decoding{speculation}."
)
_NEXT_SWEEP = (
    "Compare TPOT at concurrency 1 with TPOT at the others: if it is lower, other requests in the"
    " batch slow decode down; if it is the same, the model's own step takes the time."
)
_NEXT_CONTENTION = (
    "The probe's bursts found no limit on concurrent requests. If the workload runs more at"
    " once than the bursts did, raise the engine's limit{admitted}; otherwise use smaller"
    " prefill chunks{chunk}, more KV memory, or another replica."
)
_NEXT_FULL = (
    "The KV cache was {used} full{evicted}: give it more memory{memory}, shorten prompts and"
    " replies, or add a replica. A higher limit on concurrent requests would not help."
)
_NEXT_IN_FRONT = (
    "The server behind takes the rest: look at what the gateway does with each request (keys,"
    " guardrails, logging, limits, buffers), and give it more processes{workers}."
)
_NEXT_PACE = (
    "This is the model's own speed, fast enough for readers: only shorter replies or a faster"
    " model would help."
)
#: Of a class that holds the queue, where a limit was seen.
_NEXT_LIMIT = (
    "The server runs {n} at once and lets others wait: a higher limit{{admitted}} or a"
    " replica shortens that part."
)
_NEXT_CHANGED = (
    "By the end the server took {times} times as long as when it was asked alone at first: look"
    " for what changed meanwhile (clocks, throttling, other load) and probe again;"
)


def advice(case: Case, about: Breakdown, first: str, leaf: str | None) -> str:
    """What to do about the leader, given what is known of it."""
    chosen = about.shares
    share = chosen[first]
    alone = not share.members
    if alone and first in _ITS_OWN and are_hosted(case.stacks):
        return _HOSTED
    if first == "gateway" and alone and (Rank.BEHIND in case.given or share.grade in ("A", "B")):
        return with_flags(_NEXT_IN_FRONT, case.stacks)
    if first == "queue" and alone and (full := _full(case)):
        return full
    if first == "queue" and alone and case.admitted is not None:
        return with_flags(_raised(case), case.stacks)
    own = first == "queue" and alone and leaf is None
    if own and case.probed and share.grade not in ("A", "B"):
        return with_flags(_NEXT_CONTENTION, case.stacks)
    others = [s.share or 0.0 for name, s in chosen.items() if name != first]
    lonely = max(others, default=0.0) < _NOTABLE
    if leaf == "decode.base" and lonely and case.health is not None and case.health.keeps_tpot:
        return _NEXT_PACE
    return following(case, about, first, leaf)


def following(case: Case, about: Breakdown, name: str, leaf: str | None) -> str:
    """What to do about one part, or what would take it apart."""
    members = about.shares[name].members
    if members:
        listening = case.parts.interval == "server"
        probe = not (case.probed or case.of_probe or listening)
        split = splitting(members, case.given, case.listened, to_probe=probe)
        if "queue" not in members or case.admitted is None or are_hosted(case.stacks):
            return split
        return with_flags(
            f"{_NEXT_LIMIT.format(n=_count(case.admitted, 'request'))} {split}", case.stacks
        )
    if name == "decode" and has_changed(case):
        assert case.health is not None
        learned = "how decode divides was learned before that."
        divided = learned if _parts_of_decode(case, about) else "its decode cannot be divided."
        return f"{_NEXT_CHANGED.format(times=f'{case.health.since:.1f}')} {divided}"
    if name == "decode" and (told := _of_decode(case, about, leaf)):
        return with_flags(told, case.stacks)
    if name == "decode" and leaf is None and case.probed:
        return with_flags(_NEXT_SHARED_DECODE, case.stacks)
    if name == "decode" and leaf is None and 1 in case.in_flight:
        return with_flags(_NEXT_ALONE, case.stacks) if case.in_flight == {1} else _NEXT_SWEEP
    if name == "frontend" and not _can(case, "frontends"):
        return _NO_PROCESSES
    if leaf == "decode.interference" and not _can(case, "chunk"):
        return _NO_CHUNKS
    return with_flags(_NEXT_LEAF.get(leaf or "") or _NEXT[name], case.stacks)


def _can(case: Case, turns: str) -> bool:
    """Whether the stack that is there may be told so; of one that is not known, some can."""
    return bool(flags_of(turns, case.stacks))


def has_changed(case: Case) -> bool:
    """Whether the server is slower or faster by now than the laws of its steps were learned: what
    these leave is then nobody's interference."""
    since = case.health.since if case.health is not None else 1.0
    return since >= CHANGED or since <= 1 / CHANGED


# ---------------------------------------------------------------------- the queue
def _full(case: Case) -> str:
    """Where the KV cache is what keeps requests waiting; empty where it is not, or nobody said."""
    state = case.state
    used = state.kv_used if state is not None else None
    evicted = (state.preemptions or 0) if state is not None else 0
    if used is None or used < _FULL:
        return ""
    words = f", with {evicted} preemptions" if evicted else ""
    text = _NEXT_FULL.replace("{used}", f"{100 * used:.0f} %").replace("{evicted}", words)
    return with_flags(text, case.stacks)


def _raised(case: Case) -> str:
    """To raise a limit that was seen, and what that costs."""
    limit = case.admitted or 0
    text = f"Raise the limit of {_count(limit, 'request')} at once{{admitted}}, or add a replica."
    slower = case.costs.stream * limit if case.costs is not None else 0.0
    if slower >= NS_PER_MS / 10:
        text += f" {_count(limit, 'more stream')} make a step about {_ms(slower)} longer."
    return text


# ---------------------------------------------------------------------- decode
def _population(case: Case, about: Breakdown) -> str:
    return next((n for n, each in case.breakdowns.items() if each is about), "mean")


def _parts_of_decode(case: Case, about: Breakdown) -> dict[str, int]:
    """ns of each leaf of decode."""
    fine = case.leaves.get(_population(case, about)) or {}
    return {name: each.sum_ns for name, each in fine.items() if name.startswith("decode.")}


def _of_decode(case: Case, about: Breakdown, leaf: str | None) -> str:
    """TPOT in its parts, and what each of the large ones asks for; empty where no probe has
    learned them."""
    costs = case.costs
    tpot = costs.tpot.get(_population(case, about)) if costs is not None else None
    parts = _parts_of_decode(case, about)
    whole = about.shares["decode"].sum_ns
    if tpot is None or whole <= 0 or not parts:
        return ""
    times = {name: tpot * ns / whole for name, ns in parts.items() if ns > 0}
    ranked = sorted(times, key=lambda name: -times[name])
    large = [leaf] if leaf is not None else [n for n in ranked[:2] if times[n] >= _LEAF * tpot]
    named = [name for name in ranked if name in _SHORT and times[name] >= NS_PER_MS / 100]
    split = " + ".join(f"{_SHORT[name]} {_ms(times[name])}" for name in named)
    words = [_remedy(case, name, times) for name in large if name in _NEXT_LEAF]
    if not words:
        return ""
    return " ".join([f"TPOT {_ms(tpot)} = {split}.", *words])


_SHORT = {
    "decode.base": "own step",
    "decode.batch": "batch",
    "decode.interference": "others' prefills",
    "decode.stall": "pauses",
}


def _remedy(case: Case, leaf: str, times: Mapping[str, float]) -> str:
    """What to do about one leaf of decode, with its effect."""
    assert case.costs is not None
    if leaf == "decode.base" and case.costs.several:
        return _FASTER  # several tokens of a step: it may guess ahead already
    if leaf == "decode.batch":
        return (
            f"Half as many requests at once{{admitted}} save {_ms(times[leaf] / 2)} a token; the"
            " others then wait, or need a replica."
        )
    if leaf == "decode.interference":
        return _smaller_chunks(case, times)
    return _NEXT_LEAF[leaf]


def _smaller_chunks(case: Case, times: Mapping[str, float]) -> str:
    """Chunks that take no longer than a step, where they are larger now; else servers apart."""
    costs = case.costs
    assert costs is not None
    apart = _NO_CHUNKS
    if _can(case, "apart"):
        saved = _ms(times["decode.interference"])
        apart = f"Prefill on servers of its own{{apart}} takes {saved} out of TPOT."
    step = times.get("decode.base", 0.0) + times.get("decode.batch", 0.0)
    if not _can(case, "chunk"):
        return apart
    if costs.token <= 0 or step <= 0:
        return _NEXT_LEAF["decode.interference"]
    chunk = max(_LEAST_CHUNK, 1 << max(0, int(step / costs.token).bit_length() - 1))
    if not costs.pause or chunk >= min(costs.chunk, costs.longest):
        return apart
    shorter = costs.token * chunk
    return (
        f"Prefill in chunks of about {chunk:,} tokens{{chunk}}: a prompt of {costs.thrown:,} now"
        f" stops the others for {_ms(costs.pause)}, then for {_ms(shorter)} at a time."
        f" {apart}"
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _ms(ns: float) -> str:
    return quantity(ns / NS_PER_MS, "ms").replace(GLUE, " ")
