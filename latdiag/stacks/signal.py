"""How a timing signal of a serving stack is described.

A signal states the length of an interval. ``covers`` is the set of leaves that the interval
contains; from that alone one rule (``latdiag.attribution.nest``) knows what is inside what, and
what is left when the inner ones are taken away.
"""

from __future__ import annotations

from dataclasses import dataclass

from latdiag.model.components import LEAVES

#: The leaves by component, as ``covers`` is written: ``of("queue", "prefill")``.
_BY_COMPONENT: dict[str, frozenset[str]] = {}
for _leaf in LEAVES:
    _BY_COMPONENT[_leaf.component] = _BY_COMPONENT.get(_leaf.component, frozenset()) | {_leaf.name}

#: What can only be inside another interval in the stacks known here, never be seen alone: waits
#: after a preemption, recompute, collectives in a step, KV reloaded in a step.
HIDDEN = frozenset(
    {
        "queue.preempted",
        "prefill.recompute",
        "interconnect.collective",
        "interconnect.offload",
    }
)


def of(*names: str) -> frozenset[str]:
    """The leaves of components (``queue``) and single leaves (``decode.interference``)."""
    found: frozenset[str] = frozenset()
    for name in names:
        found |= _BY_COMPONENT.get(name, frozenset({name}))
    unknown = found - {leaf.name for leaf in LEAVES}
    if unknown:
        raise ValueError(f"no leaf {', '.join(sorted(unknown))}")
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """An end of an interval: ``edge`` (start or end) of the interval of another ``signal``; of
    the span that bears the attribute where that is empty."""

    edge: str
    signal: str = ""


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal. ``name``: ours, unique over all stacks (``vllm.queue``).

    ``kind``: span, attribute (of a span), reply (a JSON path in the body), header, counter,
    histogram or gauge. ``foreign``: what the stack calls it; of a span whose name has a changing
    end, the beginning (``prefix``). ``unit``: of its value (s, ms, us, ns; 1 for none; B).
    ``rest``: the leaf that has what is left of the interval when everything narrower is taken
    away; what remains of ``covers`` where that is empty. ``roles``: in which role of the server
    it means this; empty for any. Of an attribute: ``bearer`` is the signal of its span, and one
    of ``starts`` and ``ends`` says where the interval lies (``ends_by``: and ends no later than
    there). ``first_token``: its end is the first token that the client sees. ``until_headers``: of
    a gateway's header, what it waited for the headers of the server behind, which it passes on at
    once. ``outlasts``: of a span that ends when its sender's books are done, which may be long
    after the reply: of what it is longer than the request, nobody waited. ``documented``: known
    from documents alone, though the stack is captured (off by default, or another set-up): it
    counts one rung lower.
    """

    name: str
    kind: str
    foreign: str
    unit: str = "ns"
    covers: frozenset[str] = frozenset()
    rest: str = ""
    roles: tuple[str, ...] = ()
    bearer: str = ""
    starts: Place | None = None
    ends: Place | None = None
    ends_by: Place | None = None
    prefix: bool = False
    first_token: bool = False
    until_headers: bool = False
    outlasts: bool = False
    documented: bool = False
    versions: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Role:
    """How the role of a server in a trace is known. All that is given must hold.

    ``span``: a span whose name begins so is of that role, and what hangs below it too.
    ``attribute``: (name, value) on the span. ``leg``: ``first`` where another server's span of
    the same kind in the trace does not match, ``second`` where another is a first leg, and
    ``alone`` for a server that is a second leg elsewhere; ``same``: an attribute that is equal on
    both legs.
    """

    role: str
    span: str = ""
    attribute: tuple[str, str] | None = None
    leg: str = ""
    same: str = ""


@dataclass(frozen=True, slots=True)
class MetricRole:
    """How the role of a server is known by what it has counted since it started: families, with
    labels where those matter, that are ``above`` zero, and that are exposed and ``zero``."""

    role: str
    above: tuple[str, ...]
    zero: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute that names the request. ``holds``: request_id (the x-request-id that was sent)
    or response_id (the reply's id); ``ending``: a regular expression for what the stack adds."""

    attribute: str
    holds: str
    ending: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A sign that a stack is there. ``where``: models (owned_by), header (``name: value`` with
    the name in lower case), metric (family), scope or service (of spans), span (name), reply (a
    JSON path in a body); version only tells which version. ``pattern``: a regular expression that
    must match it whole."""

    where: str
    pattern: str
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Switch:
    """A signal that may be off: how one knows, and what turns it on. ``since``: the first version
    that is known to have the flag; empty where all have it."""

    what: str
    signals: tuple[str, ...]
    flag: str
    since: str = ""


#: What options turn. admitted: requests that run at once; frontends: processes that parse and
#: tokenise; chunk: tokens of prompts in a step; apart: prefill on servers of its own; memory: of
#: the KV cache; parallel: GPUs that share a step; speculation: tokens guessed ahead; workers:
#: processes of a gateway; flush: events that a gateway passes on at once; transfer: how the KV
#: cache goes from server to server.
TURNS = frozenset(
    {
        *("admitted", "frontends", "chunk", "apart", "memory", "parallel", "speculation"),
        *("workers", "flush", "transfer"),
    }
)


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting that advice names. ``turns``: what it turns (``TURNS``); ``flag``: what to set,
    as a reader of the stack's manual would look for it; ``since`` and ``until``: the first version
    known to have it, and the first that has it no longer; ``source``: where that is written;
    ``of_workers``: it is an option of the engines behind."""

    turns: str
    flag: str
    since: str = ""
    until: str = ""
    source: str = ""
    of_workers: bool = False


@dataclass(frozen=True, slots=True)
class ReplyFields:
    """Where replies state times, in the words of all stacks. ``objects``: paths of the objects in
    a body whose numbers a run keeps; ``headers``: names, in lower case, of those it keeps."""

    objects: tuple[tuple[str, ...], ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stack:
    """A serving stack. ``layer``: gateway or engine. ``provenance``: ``captured`` (``captures``:
    folders of recordings of it) or ``documented``, which counts one rung lower. ``ranks``:
    attributes that number the ranks of one server: of spans that differ in these alone, one is
    as good as all. ``texts`` and ``headers``: text attributes of its spans, and times in headers
    of its replies, that are kept beside its signals and keys. ``refusals``: patterns of the words
    by which it refuses a temperature below 0, and no gateway does: a reply that has them comes
    from it, whoever stands before it. ``metric_roles``: how its metrics show the role of a server
    that no label names. ``hosted``: a provider runs it, and nobody else can set its options."""

    name: str
    title: str
    layer: str
    provenance: str
    versions: str
    signals: tuple[Signal, ...]
    marks: tuple[Mark, ...]
    roles: tuple[Role, ...] = ()
    keys: tuple[Key, ...] = ()
    switches: tuple[Switch, ...] = ()
    captures: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    ranks: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    knobs: tuple[Knob, ...] = ()
    refusals: tuple[str, ...] = ()
    metric_roles: tuple[MetricRole, ...] = ()
    hosted: bool = False
