"""What must hold between the signals of a stack in any recording of it.

``covers`` says what an interval contains, so recordings can contradict it: parts are no longer
than the whole that contains them, an attribute with the covers of its span is as long as the
span, an idle server has no queue, and under load most of a request is explained. All is read
from the stack as data; names of stacks appear nowhere.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from latdiag.stacks.catalogue import selector
from latdiag.stacks.signal import HIDDEN, Role, Signal, Stack

from .stack_recordings import Exposition, Span, at_path, recording

NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}

#: Two clocks of one machine meet in some spans: their difference is no contradiction.
_SLACK_NS, _SLACK = 3e6, 0.03
#: Sums that hold in every recording beside those that ``covers`` implies: parts, whole.
EQUAL = (
    (("dynamo.reply.before", "dynamo.reply.prefill"), "dynamo.reply.ttft"),
    (("vllm.metrics.itl",), "vllm.metrics.decode"),
    (("sglang.metrics.ttft", "sglang.metrics.itl"), "sglang.metrics.e2e"),
)
#: Scenarios of the recordings, as their requests' ids begin.
_SCENARIO = re.compile(r"(warm|idle_short|idle_long|c16|c64|overload|mix|prof)-\d")


@dataclass(frozen=True, slots=True)
class Stated:
    """The length that a signal states of one request (or, of a histogram, of all)."""

    signal: Signal
    ns: float


@dataclass(frozen=True, slots=True)
class Request:
    """What one server said of one request."""

    role: str
    scenario: str
    stated: tuple[Stated, ...]


def contradictions(stack: Stack) -> list[str]:
    """Every way in which the recordings of ``stack`` contradict what it declares."""
    spans = [span for folder in stack.captures for span in recording(folder).spans]
    requests = list(_requests(stack, spans))
    found = [f"{r.scenario}: {why}" for r in requests for why in _within(r.stated)]
    found += list(_idle(requests)) + list(_explained(requests))
    for folder in stack.captures:
        for exposition in recording(folder).expositions:
            why = (*_sums(stack, exposition), *_equal_totals(stack, exposition))
            found += [f"{exposition.path.name}: {each}" for each in why]
        found += [
            why for reply in recording(folder).replies for why in _equal_fields(stack, reply)
        ]
    return found


# ------------------------------------------------------------------ rules


def _is_whole(signal: Signal) -> bool:
    """Whether the signal is of a request, or of what leads to its first token."""
    seen = {leaf.partition(".")[0] for leaf in signal.covers - HIDDEN}
    return len(seen - {"interconnect"}) >= 3 and not signal.rest.startswith("interconnect.")


def _parts(whole: Stated, stated: Iterable[Stated]) -> list[Stated]:
    """Of what lies in ``whole`` the longest that share no leaf but the hidden ones."""
    taken: frozenset[str] = frozenset()
    parts = []
    for each in sorted(stated, key=lambda one: -one.ns):
        covers = each.signal.covers
        inside = covers and covers < whole.signal.covers and not _is_whole(each.signal)
        if inside and not (covers - HIDDEN) & taken:
            taken |= covers - HIDDEN
            parts.append(each)
    return parts


def _within(stated: tuple[Stated, ...]) -> Iterator[str]:
    by_name = {each.signal.name: each for each in stated}
    for each in stated:
        signal = each.signal
        if _is_whole(signal):
            parts = _parts(each, stated)
            total = sum(part.ns for part in parts)
            if _over(total, each.ns):
                names = " + ".join(part.signal.name for part in parts)
                yield f"{names} = {total / 1e6:.1f} ms > {signal.name} = {each.ns / 1e6:.1f} ms"
            for wider in stated:
                if _over(each.ns, wider.ns) and signal.covers < wider.signal.covers:
                    yield f"{signal.name} is longer than {wider.signal.name}"
        bearer = by_name.get(signal.bearer)
        if bearer is None:
            continue
        if _over(each.ns, bearer.ns):
            yield f"{signal.name} is longer than its span"
        if signal.covers == bearer.signal.covers and each.ns < bearer.ns * 0.9 - _SLACK_NS:
            yield f"{signal.name} covers what its span covers and is shorter"


def _over(part_ns: float, whole_ns: float) -> bool:
    return part_ns > whole_ns * (1 + _SLACK) + _SLACK_NS


def _idle(requests: list[Request]) -> Iterator[str]:
    """Nobody waits for a seat on an idle server that does all itself."""
    for request in requests:
        if not request.scenario.startswith("idle") or request.role != "unified":
            continue
        queue = _only(request.stated, "queue")
        prefill = _only(request.stated, "prefill")
        if queue > 0.1 * prefill + 1e6:
            yield f"{request.scenario}: a queue of {queue / 1e6:.1f} ms on an idle server"


def _only(stated: Iterable[Stated], component: str) -> float:
    """The time of signals whose ``rest`` is of ``component`` and that are no wholes."""
    return sum(
        each.ns
        for each in stated
        if each.signal.rest.startswith(f"{component}.") and not _is_whole(each.signal)
    )


def _explained(requests: list[Request]) -> Iterator[str]:
    """Of a typical request on a busy server the parts explain most."""
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    for request in requests:
        wholes = [each for each in request.stated if _is_whole(each.signal) and each.ns > 0]
        if not wholes or request.scenario not in ("c64", "overload", "idle_long", "c16"):
            continue
        whole = max(wholes, key=lambda each: (len(each.signal.covers), each.ns))
        parts = sum(part.ns for part in _parts(whole, request.stated))
        shares[request.scenario, request.role].append(parts / whole.ns)
    for (scenario, role), each in shares.items():
        if median(each) < 0.5:
            yield f"{scenario}, {role}: {100 * median(each):.0f} % explained"


# ------------------------------------------------------------------ spans into requests


def _requests(stack: Stack, spans: list[Span]) -> Iterator[Request]:
    by_id = {span.span: span for span in spans}
    by_trace: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_trace[span.trace].append(span)
    for trace in by_trace.values():
        by_role: dict[str, list[Span]] = defaultdict(list)
        for span in trace:
            by_role[role_of(stack, span, trace, by_id)].append(span)
        ids = [
            str(s.attributes[k.attribute])
            for s in trace
            for k in stack.keys
            if k.attribute in s.attributes
        ]
        match = _SCENARIO.search(" ".join(ids))
        common = [span for span in by_role.get("unified", []) if _roleless(stack, span)]
        for role, own in by_role.items():
            own = own if role == "unified" else own + common
            yield Request(role, match[1] if match else "?", tuple(_stated(stack, role, own)))


def _roleless(stack: Stack, span: Span) -> bool:
    """Whether ``span`` is of a server that stands before all roles."""
    return any(s.kind == "span" and not s.roles and named(s, span) for s in stack.signals)


def role_of(stack: Stack, span: Span, trace: list[Span], by_id: dict[str, Span]) -> str:
    """The role of the server that sent ``span``: by it or by the nearest span above it."""
    at: Span | None = span
    while at is not None:
        for role in stack.roles:
            if _has_role(role, at, trace):
                return role.role
        at = by_id.get(at.parent)
    return "unified"


def _has_role(role: Role, span: Span, trace: list[Span]) -> bool:
    if not role.span or not span.name.startswith(role.span):
        return False
    matches = _matches(role, span)
    if not role.leg:
        return matches
    others = [s for s in trace if s.name == span.name and s.span != span.span]
    if role.leg == "first":
        return matches and any(not _matches(role, other) for other in others)
    return any(str(o.attributes.get("gen_ai.usage.completion_tokens")) == "1" for o in others)


def _matches(role: Role, span: Span) -> bool:
    if role.attribute is None:
        return True
    name, value = role.attribute
    return str(span.attributes.get(name)) == value


def _stated(stack: Stack, role: str, spans: list[Span]) -> Iterator[Stated]:
    bearers = {s.name: s for s in stack.signals if s.kind == "span"}
    for signal in stack.signals:
        if signal.roles and role not in signal.roles:
            continue
        if signal.kind == "span":
            own = [span.duration_ns for span in spans if named(signal, span)]
            if own:
                yield Stated(signal, float(sum(own)))
        elif signal.kind == "attribute":
            for span in spans:
                value = span.attributes.get(signal.foreign)
                if isinstance(value, int | float) and named(bearers[signal.bearer], span):
                    yield Stated(signal, value * NS[signal.unit])


def named(signal: Signal, span: Span) -> bool:
    """Whether ``span`` goes by the name of a span signal."""
    return span.name.startswith(signal.foreign) if signal.prefix else span.name == signal.foreign


# ------------------------------------------------------------------ metrics


def _sums(stack: Stack, exposition: Exposition) -> Iterator[str]:
    """The same of the sums of histograms that count the same requests."""
    stated: list[tuple[float, Stated]] = []
    for signal in stack.signals:
        if signal.kind != "histogram" or not signal.covers:
            continue
        if signal.roles and exposition.role not in signal.roles:
            continue
        total, count = exposition.sums(*selector(signal.foreign))
        if count:
            stated.append((count, Stated(signal, total / count * NS[signal.unit])))
    # As many as the requests, within 2 %: a health check or a cold start counts in some.
    counts = sorted(count for count, each in stated if _is_whole(each.signal))
    usual = counts[len(counts) // 2] if counts else 0.0
    mean = tuple(each for count, each in stated if abs(count - usual) <= 0.02 * usual)
    yield from _within(mean)
    if exposition.role != "unified" or usual < 50:
        return
    for whole in (each for each in mean if each.signal.first_token):
        parts = _parts(whole, mean)
        if parts and sum(part.ns for part in parts) < 0.2 * whole.ns:
            yield f"{whole.signal.name}: the parts explain under 20 %"


def _equal_totals(stack: Stack, exposition: Exposition) -> Iterator[str]:
    named = {
        signal.name: exposition.sums(*selector(signal.foreign))[0] * NS[signal.unit]
        for signal in stack.signals
        if signal.kind == "histogram"
        and signal.covers
        and (not signal.roles or exposition.role in signal.roles)
    }
    yield from _unequal(named)


def _equal_fields(stack: Stack, reply: dict[str, object]) -> Iterator[str]:
    named = {
        signal.name: value * NS[signal.unit]
        for signal in stack.signals
        if signal.kind == "reply"
        and isinstance(value := at_path(reply, signal.foreign), int | float)
    }
    yield from _unequal(named)
    yield from _within(tuple(Stated(s, named[s.name]) for s in stack.signals if s.name in named))


def _unequal(named: dict[str, float]) -> Iterator[str]:
    for parts, whole in EQUAL:
        if whole in named and all(part in named for part in parts):
            total = sum(named[part] for part in parts)
            if abs(total - named[whole]) > 0.01 * named[whole] + 1:
                yield f"{' + '.join(parts)} is not {whole}"
