"""What servers counted of a run's requests: parts out of their metrics, whose traffic it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from latdiag.attribution.accounts import Account, Rank
from latdiag.attribution.evidence import MetricEvidence, MetricWindow, TailTime
from latdiag.attribution.metrics import behind_gateway
from latdiag.attribution.metrics import explain as aggregates_parts
from latdiag.attribution.metrics.behind_gateway import Engine, engine_of
from latdiag.attribution.metrics.claims import Aggregates, Claim, aggregates, contradictions
from latdiag.attribution.metrics.deltas import Deltas, Sample, deltas
from latdiag.attribution.metrics.layers import is_engine, placed
from latdiag.attribution.metrics.replicas import (
    LISTED,
    gaps,
    replicas,
    series_left_out,
    stated,
    summed,
)
from latdiag.attribution.metrics.shares import Told, shares
from latdiag.attribution.metrics.state import state_of
from latdiag.attribution.metrics.tail import Tail
from latdiag.attribution.metrics.traffic import Own, totals
from latdiag.attribution.metrics.windows import (
    Attempts,
    Edges,
    Window,
    attempts,
    edges,
    own,
    windows,
    with_roles,
)
from latdiag.attribution.parts import Parts
from latdiag.measurement.frame import Frame
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.units import ms, seconds
from latdiag.stacks import catalogue
from latdiag.stacks.signal import Signal, Stack

#: More scenarios than this are not set against requests.
_MOST_WINDOWS = 1000
#: So many requests have stamps of the kernel for all: a late reader adds to the gateway's time.
_STAMPED = 0.9
#: From what cannot be used at all to what can.
_VERDICTS = ("contradictory", "uncounted", "others", "own")
#: What metrics and spans mean the same by; decode the client's own stamps may take part in.
_COMPARED = ("queue", "prefill", "interconnect")
_CLOCKS = "the requests use several clocks, which cannot be compared with the scrapes"


@dataclass(frozen=True)
class MetricAccount(Account):
    """``claims``: on all requests of all windows together, and how many ``requests`` these are."""

    claims: tuple[Claim, ...] = ()
    requests: int = 0


@dataclass(frozen=True, slots=True)
class _Seen:
    """One window that was scraped at both edges."""

    window: Window
    deltas: Deltas
    at: Edges
    own: Own
    found: Aggregates
    told: Told
    engine: Engine | None


def account(
    rows: Sequence[Sample], frame: Frame, designed: bool, gateways: Sequence[str] = ()
) -> MetricAccount | None:
    """What the samples ``rows`` say of a run; None where no known metric was scraped around any
    request of the client, if there is one.

    ``designed``: it is a probe, whose windows hold its designed stages too. ``gateways``: those
    that showed themselves to the client.
    """
    if not rows:
        return None
    there = _there(rows)
    by_count = [role for stack, _ in there for role in stack.metric_roles]
    rows = with_roles(rows, [signal for _, mine in there for signal in mine], by_count)
    stacks = tuple(stack.name for stack, _ in there)
    engines = [s for stack, mine in there if is_engine(stack, mine) for s in mine]
    there, unplaced = placed(there, rows)
    signals = [signal for _, mine in there for signal in mine]
    servers = [s for stack, mine in there if stack.layer != "gateway" for s in mine]
    ranks = [rank for stack, _ in there for rank in stack.ranks]
    wide = windows(rows)[:_MOST_WINDOWS]
    if not wide or not signals:
        return None
    if not frame.n:
        of_servers = _traffic(wide, signals, ranks, stacks)
        assert isinstance(of_servers.evidence, MetricEvidence)
        state = state_of(rows, engines)
        return replace(of_servers, evidence=replace(of_servers.evidence, state=state))
    sent = attempts(frame)
    if not sent.served.any():
        return None
    if sent.clocks > 1:
        evidence = _evidence([], (), {}, _CLOCKS, designed)
        unlike = caveat("LD416", why=_CLOCKS)
        return MetricAccount(Rank.METRICS, None, evidence, (unlike,), stacks)
    differences = [(each, deltas(each.samples, each.begin, each.end)) for each in wide]
    seen = [
        s for w, d in differences if (s := _seen(w, d, sent, signals, servers, ranks)) is not None
    ]
    left = [one for _, found in differences for one in found.left]
    claims = _merged(seen)
    behind = [name for name in gateways if name not in stacks]
    # A gateway's own metrics, beside those of the servers, change nothing of what these bound.
    bound = _bound(frame, sent, seen, gateways)
    rank = Rank.METRICS if bound is None else Rank.TOTALS
    parts, why, tails = bound or _parts(frame, sent, seen, designed, bool(behind))
    evidence = replace(
        _evidence(seen, claims, tails, why, designed),
        replicas=replicas([d for _, d in differences], signals, ranks),
        left=series_left_out(left),
    )
    doubtful = (*unplaced, *evidence.doubts)[:LISTED]
    evidence = replace(evidence, doubts=doubtful, state=state_of(rows, engines))
    caveats = [caveat("LD416", why=why)] if why and not designed else []
    caveats += [caveat("LD418")] if designed and claims and parts is None else []
    caveats += gaps(left)
    n = sum(each.own.n for each in seen)
    return MetricAccount(rank, parts, evidence, tuple(caveats), stacks, tuple(claims), n)


def _there(rows: Sequence[Sample]) -> list[tuple[Stack, list[Signal]]]:
    """The stacks of whose families there are samples, each with its metric signals."""
    names = {row.name for row in rows} - catalogue.PROCESS_FAMILIES
    known = [
        (stack, [s for s in stack.signals if s.kind in catalogue.METRIC_KINDS])
        for stack in catalogue.stacks()
    ]
    return [each for each in known if any(_family(signal) in names for signal in each[1])]


def _traffic(
    wide: Sequence[Window],
    signals: Sequence[Signal],
    ranks: Iterable[str],
    stacks: tuple[str, ...],
) -> MetricAccount:
    """Of a run without a client: what each server says of all that it finished."""
    differences = [deltas(each.samples, each.begin, each.end) for each in wide]
    left = [one for found in differences for one in found.left]
    servers = replicas(differences, signals, ranks)
    finished: dict[str, int] = {}
    for each in servers:
        role = each.role or "unified"
        finished[role] = finished.get(role, 0) + each.finished
    evidence = replace(
        _evidence([], (), {}, "none of this client's requests lies between the scrapes", False),
        of="traffic",
        finished=finished,
        replicas=servers,
        left=series_left_out(left),
    )
    caveats = gaps(left)
    if not any(finished.values()):
        why = "the servers finished no request between the scrapes"
        caveats.append(caveat("LD416", why=why))
    return MetricAccount(Rank.METRICS, None, evidence, tuple(caveats), stacks)


def doubts(metrics: MetricAccount, others: tuple[Parts, str] | None) -> list[Caveat]:
    """What is doubtful about metrics. ``others``: the parts of each request and whose account
    they are, which the metrics are set against."""
    if others is not None:
        return _against(metrics, *others)
    parts = metrics.parts
    if parts is None or "unattributed" not in parts.within["client_ttft"]:
        return []  # nothing that a client in user space may have made is in there
    total = int(parts.total.sum())
    share = int(parts.parts["unattributed"].sum()) / total if total else 0.0
    return [caveat("LD413", share=share)]


def _against(metrics: MetricAccount, parts: Parts, whose: str) -> list[Caveat]:
    """The caveat where the metrics do not fit what is known of the same requests."""
    evidence = metrics.evidence
    assert isinstance(evidence, MetricEvidence)
    if evidence.verdict != "own" or len(parts.total) != metrics.requests:
        return []  # of other requests, which may be others on the average
    measured = {
        name: (int(parts.parts[name].sum()), len(parts.total))
        for name in _COMPARED
        if name in parts.parts and not parts.sources[name].members
    }
    roles = {claim.role for claim in metrics.claims if claim.components == ("interconnect",)}
    if len(roles) > 1:  # they wait for each other at one time, which spans alone can see
        measured.pop("interconnect", None)
    words = contradictions(metrics.claims, measured)
    return [caveat("LD417", other=whose, what="; ".join(words))] if words else []


def _family(signal: Signal) -> str:
    return catalogue.selector(signal.foreign)[0]


def _seen(
    window: Window,
    found: Deltas,
    sent: Attempts,
    signals: Sequence[Signal],
    servers: Sequence[Signal],
    ranks: Iterable[str],
) -> _Seen | None:
    """``servers``: those of ``signals`` that are of no gateway's."""
    at = edges(found)
    if at is None:
        return None
    mine = own(at, sent)
    said = aggregates(found, signals, mine, ranks)
    sums = totals(found, signals, ranks)
    told = Told(at, mine.n, shares(said, sums))
    behind = totals(found, servers, ranks)
    engine = engine_of(behind, said, mine, *sent.refused(at))
    return _Seen(window, found, at, mine, said, told, engine)


# ---------------------------------------------------------------------- request by request
#: The parts, why there are none, what the slowest requests have of each.
_Explained = tuple[Parts | None, str | None, dict[str, Tail]]


def _bound(
    frame: Frame, sent: Attempts, seen: Sequence[_Seen], gateways: Sequence[str]
) -> _Explained | None:
    """The parts by what servers behind ``gateways`` took in all, of a probe's own requests too;
    None where they do not say it of all requests, or none is in front."""
    rows, others = frame.answered(), frame.answered(workload=False)
    engines = [each.engine for each in seen if each.engine is not None]
    sure = gateways and rows.n and float(rows.kernel.mean()) >= _STAMPED and seen
    if not sure or len(engines) < len(seen):
        return None
    place = aggregates_parts.places(rows, others, [each.told for each in seen])
    if (place[: rows.n] < 0).any():
        return None
    left_out = int((sent.served & sent.workload).sum()) - rows.n
    parts = behind_gateway.explain(rows, others, engines, place, gateways, left_out)
    return (None, parts, {}) if isinstance(parts, str) else (parts, None, {})


def _parts(
    frame: Frame, sent: Attempts, seen: Sequence[_Seen], designed: bool, behind_gateway: bool
) -> _Explained:
    """The parts out of what the servers say of components."""
    why = _why_not(seen)
    if designed or why:
        return None, "they include the designed requests" if designed else why, {}
    rows, others = frame.answered(), frame.answered(workload=False)
    told = [each.told for each in seen]
    left_out = int((sent.served & sent.workload).sum()) - rows.n
    found = aggregates_parts.explain(rows, others, told, left_out, behind_gateway)
    if isinstance(found, str):
        return None, found, {}
    return found, None, aggregates_parts.tails(rows, others, told, found)


def _why_not(seen: Sequence[_Seen]) -> str | None:
    """Why no share of the servers' sums may be claimed; None where it may."""
    if not seen:
        return "no server was scraped both before and after the load"
    worst = min(seen, key=lambda each: _VERDICTS.index(each.found.traffic.verdict))
    if worst.found.traffic.verdict == "own":
        return None
    if worst.found.traffic.verdict == "others" and _in_parts(worst):
        return (
            f"each of {len(worst.deltas.replicas)} servers finished all {worst.own.n} requests:"
            " they share the work (prefill, decode), and nothing shows who does which part"
        )
    return worst.found.traffic.text


def _in_parts(seen: _Seen) -> bool:
    """Whether several servers finished exactly the client's requests, each all of them."""
    n = len(seen.deltas.replicas)
    counts = set(seen.found.traffic.finished.values())
    return n > 1 and counts == {n * seen.own.n}


# ---------------------------------------------------------------------- all windows together
def _merged(seen: Sequence[_Seen]) -> tuple[Claim, ...]:
    """The windows' claims, each kind once; of all own requests, if it had none of some."""
    n = sum(each.own.n for each in seen)
    kinds: dict[tuple[object, ...], list[Claim]] = {}
    for claim in (claim for each in seen for claim in each.found.claims):
        kinds.setdefault((claim.components, claim.leaf, claim.signal, claim.role), []).append(
            claim
        )
    return tuple(summed(claims, n) for claims in kinds.values())


# ---------------------------------------------------------------------- what became of it
def _evidence(
    seen: Sequence[_Seen],
    claims: Sequence[Claim],
    tails: Mapping[str, Tail],
    why: str | None,
    designed: bool,
) -> MetricEvidence:
    verdicts = [each.found.traffic.verdict for each in seen] or ["uncounted"]
    finished: dict[str, int] = {}
    for each in seen:
        for role, n in each.found.traffic.finished.items():
            finished[role] = finished.get(role, 0) + n
    flying = sum(each.found.traffic.in_flight for each in seen)
    doubts = list(dict.fromkeys(text for each in seen for text in each.found.doubts))
    return MetricEvidence(
        of="probe" if designed else "workload",
        verdict=min(verdicts, key=_VERDICTS.index),
        used=why is None,
        why=why,
        own=sum(each.own.n for each in seen),
        finished=finished,
        in_flight=flying,
        bias=max((each.found.traffic.bias for each in seen), default=1.0),
        windows=tuple(_window(each) for each in seen[:LISTED]),
        replicas=(),
        claims=tuple(stated(claim, _tail_of(claim, claims, tails)) for claim in claims),
        left=(),
        doubts=tuple(doubts[:LISTED]),
    )


def _window(seen: _Seen) -> MetricWindow:
    said = seen.found.traffic
    return MetricWindow(
        name=seen.window.name or None,
        seconds=seconds(seen.at.end[1] - seen.at.begin[0]),
        own=seen.own.n,
        finished=dict(said.finished),
        in_flight=said.in_flight,
        bias=said.bias,
        verdict=said.verdict,
        text=said.text,
    )


def _tail_of(claim: Claim, claims: Sequence[Claim], tails: Mapping[str, Tail]) -> TailTime | None:
    """What the slowest 5 % have, where this claim alone is of its component."""
    same = [one for one in claims if one.components == claim.components]
    tail = tails.get(claim.components[0]) if len(claim.components) == 1 == len(same) else None
    if tail is None:
        return None
    return TailTime(
        n=tail.n,
        mean_ms=ms(tail.sum_ns / tail.n),
        lo_ms=ms(tail.lo_ns / tail.n),
        hi_ms=ms(tail.hi_ns / tail.n),
        independent_ms=ms(tail.independent_ns / tail.n),
        comonotone_ms=ms(tail.comonotone_ns / tail.n),
    )
