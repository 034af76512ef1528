"""All stacks: those of this package, found by themselves, and those of other packages.

A third party adds a stack by an entry point of the group ``latdiag.stacks`` that loads to a
``Stack``. One that does not load, or that clashes with what is there, is left out and said
(``broken``); it never stops a run.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from latdiag import stacks as package
from latdiag.model.units import UNIT_NS
from latdiag.stacks.signal import Knob, ReplyFields, Signal, Stack
from latdiag.stacks.versions import has

GROUP = "latdiag.stacks"

#: The kinds of signals that are read from ``/metrics``.
METRIC_KINDS = ("counter", "histogram", "gauge")

#: Families that say something of the process itself and belong to no stack (a restart).
PROCESS_FAMILIES = frozenset({"process_start_time_seconds"})

#: Headers that state times and belong to no stack (the W3C's Server Timing).
STANDARD_HEADERS = ("server-timing",)

_SELECTOR = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="[^"\\]*",?)*)\})?')
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="([^"\\]*)"')


@dataclass(frozen=True, slots=True)
class Broken:
    """A stack of another package that was left out: the entry point's name, and why (both are
    strings from outside)."""

    entry: str
    why: str


def selector(foreign: str) -> tuple[str, dict[str, str]]:
    """The family and the labels that a metric signal's ``foreign`` asks for.

    ``family`` or ``family{label="value"}``, as a query is written. Raises ValueError for
    anything else.
    """
    match = _SELECTOR.fullmatch(foreign)
    if match is None:
        raise ValueError(f"not a metric family with labels: {foreign!r}")
    return match[1], dict(_LABEL.findall(match[2] or ""))


@cache
def stacks() -> tuple[Stack, ...]:
    """Every stack: the built-in ones by name, then those of entry points by name."""
    return _found()[0]


@cache
def broken() -> tuple[Broken, ...]:
    """The entry points whose stack was left out."""
    return _found()[1]


def stack(name: str) -> Stack:
    """The stack of this name; KeyError where there is none."""
    for known in stacks():
        if known.name == name:
            return known
    raise KeyError(name)


@cache
def signals(kind: str) -> dict[str, tuple[Signal, ...]]:
    """The signals of one kind by what they are called (metrics: by family, labels left out).

    Several signals may go by one name: a family with different labels, an attribute whose
    meaning depends on the role.
    """
    found: dict[str, tuple[Signal, ...]] = {}
    for known in stacks():
        for signal in known.signals:
            if signal.kind == kind:
                name = selector(signal.foreign)[0] if kind in METRIC_KINDS else signal.foreign
                found[name] = (*found.get(name, ()), signal)
    return found


@cache
def families() -> frozenset[str]:
    """The metric families that scrapes keep, as the signals name them."""
    return PROCESS_FAMILIES.union(*(signals(kind) for kind in METRIC_KINDS))


@cache
def reply_fields() -> ReplyFields:
    """What a load keeps of replies: the objects that hold the signals, and the headers."""
    objects = {tuple(path.split(".")[:-1]) for path in signals("reply")}
    named = {name.partition(";")[0].lower() for name in signals("header")}
    more = {name.lower() for known in stacks() for name in known.headers}
    return ReplyFields(tuple(sorted(objects)), tuple(sorted({*STANDARD_HEADERS, *named, *more})))


def is_refused_by_an_engine(texts: Iterable[str]) -> bool:
    """Whether all of these refusals have the words of one engine; False where there are none, or
    one lacks them: then nobody knows how far a refused request went."""
    given = [text or "" for text in texts]
    patterns = (re.compile(words) for known in stacks() for words in known.refusals)
    return bool(given) and any(all(map(each.search, given)) for each in patterns)


#: Stacks whose options are named where none showed itself.
EXAMPLES = 2

#: (name, version) of a stack that showed itself; None: of no version that it stated.
Shown = tuple[str, str | None]


def flags_of(turns: str, found: Iterable[Shown] = (), most: int = EXAMPLES) -> str:
    """What turns it: of those ``found`` that have such an option in their version, ``vLLM:
    --max-num-seqs``; empty where the stacks of that layer that are there have none. Where no
    stack of the layer showed itself: of the ``most`` that are known best."""
    known = sorted(stacks(), key=lambda each: (-len(each.captures), each.name))
    versions = dict(reversed(list(found)))
    having = [each for each in known if any(knob.turns == turns for knob in each.knobs)]
    layers = {each.layer for each in having}
    there = [each for each in known if each.name in versions and each.layer in layers]
    if not there:
        named = [each for each in having if not _is_passed_on(each, turns)]
        return "; ".join(f"{s.title}: {_flag(s, turns, None)}" for s in named[:most])
    words = [(s.title, _flag(s, turns, versions[s.name]), _is_passed_on(s, turns)) for s in there]
    # What a stack passes on to its workers is theirs, where these are known.
    own = any(flag and not passed for _, flag, passed in words)
    return "; ".join(f"{t}: {flag}" for t, flag, passed in words if flag and not (own and passed))


def gateways_of(found: Iterable[Shown]) -> str:
    """The titles of those ``found`` that stand before a server, ``LiteLLM and Envoy``; empty where
    none showed itself."""
    names = {name for name, _ in found}
    return " and ".join(
        each.title for each in stacks() if each.layer == "gateway" and each.name in names
    )


def _is_passed_on(stack: Stack, turns: str) -> bool:
    return any(knob.of_workers for knob in stack.knobs if knob.turns == turns)


def _flag(stack: Stack, turns: str, version: str | None) -> str:
    """The option of a version, with the version that it came with where that is not known."""
    for knob in stack.knobs:
        if knob.turns != turns:
            continue
        there = has(version, knob.since, knob.until)
        if there:
            return knob.flag
        if there is None:
            limits = [f"from {knob.since} on"] if knob.since else []
            limits += [f"before {knob.until}"] if knob.until else []
            return f"{knob.flag} ({', '.join(limits)})"
    return ""


def are_hosted(found: Iterable[Shown]) -> bool:
    """Whether all engines that showed themselves are a provider's, and one did."""
    names = {name for name, _ in found}
    engines = [each for each in stacks() if each.name in names and each.layer == "engine"]
    return bool(engines) and all(each.hosted for each in engines)


def clashes(known: Iterable[Stack], new: Stack) -> str:
    """Why ``new`` cannot stand beside ``known`` (a name that is taken), or an empty string.

    Within a stack a name may stand for several signals if their roles differ.
    """
    meanings: dict[str, set[str]] = {}
    for signal in new.signals:
        roles, known_roles = set(signal.roles), meanings.setdefault(signal.name, set())
        if known_roles & roles or (known_roles and not roles) or "" in known_roles:
            return f"its signal {signal.name} means two things in one role"
        known_roles |= roles or {""}
    names = set(meanings)
    for old in known:
        if old.name == new.name:
            return f"there is a stack {old.name} already"
        taken = names & {signal.name for signal in old.signals}
        if taken:
            return f"{old.name} has a signal {min(taken)} already"
    return ""


def unfit(new: Stack) -> str:
    """Why a stack that another package brings cannot be used, or an empty string.

    A pattern that does not compile or a family that cannot be read would stop a run much later.
    """
    try:
        for mark in new.marks:
            re.compile(mark.pattern)
        for key in new.keys:
            re.compile(key.ending)
        for words in new.refusals:
            re.compile(words)
        for signal in new.signals:
            if not isinstance(signal, Signal):
                return "one of its signals is none"
            if signal.kind in METRIC_KINDS:
                selector(signal.foreign)
            if signal.kind == "header" and not _HEADER.fullmatch(signal.foreign.partition(";")[0]):
                return f"{signal.name}: no name of a header"
            if signal.kind == "reply" and (why := _unfit_reply(signal)):
                return f"{signal.name}: {why}"
        if not all(_HEADER.fullmatch(name) for name in new.headers):
            return "one of its headers is no name of a header"
        if not all(isinstance(knob, Knob) for knob in new.knobs):
            return "one of its knobs is none"
    except (re.error, ValueError, TypeError, AttributeError) as exc:
        return str(exc)
    return ""


def _unfit_reply(signal: Signal) -> str:
    """Why a time in a reply cannot be used, or an empty string."""
    if "." not in signal.foreign:
        return "no object of a reply holds it, and of the others only numbers in objects are kept"
    if signal.covers and not set(signal.unit.split("|")) <= UNIT_NS.keys():
        return f"it covers time, and its unit is {signal.unit!r}"
    if signal.rest and signal.rest not in signal.covers:
        return f"it does not cover its own rest, {signal.rest!r}"
    if signal.bearer and "|" in signal.unit:
        return "its unit is open, and a span bears it"
    return ""


def gather(
    own: Iterable[Stack], points: Iterable[EntryPoint]
) -> tuple[tuple[Stack, ...], tuple[Broken, ...]]:
    """``own`` and what the entry points load to, and the entry points that were left out.

    Raises ValueError if two of ``own`` clash: that is a fault of this package.
    """
    found: list[Stack] = []
    for mine in own:
        why = unfit(mine) or clashes(found, mine)
        if why:
            raise ValueError(f"stack {mine.name}: {why}")
        found.append(mine)
    left_out: list[Broken] = []
    for point in sorted(points, key=lambda each: (each.name, each.value)):
        try:
            theirs = point.load()
        except Exception as exc:  # whatever another package does on import, the run goes on
            left_out.append(Broken(point.name, f"{type(exc).__name__}: {exc}"))
            continue
        if not isinstance(theirs, Stack):
            left_out.append(Broken(point.name, "it loads to something that is not a Stack"))
            continue
        why = unfit(theirs) or clashes(found, theirs)
        if why:
            left_out.append(Broken(point.name, why))
        else:
            found.append(theirs)
    return tuple(found), tuple(left_out)


def built_in() -> tuple[Stack, ...]:
    """``STACK`` of every module of this package that has one, by module name."""
    found = []
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda each: each.name):
        loaded = importlib.import_module(f"{package.__name__}.{module.name}")
        known = getattr(loaded, "STACK", None)
        if isinstance(known, Stack):
            found.append(known)
    return tuple(found)


@cache
def _found() -> tuple[tuple[Stack, ...], tuple[Broken, ...]]:
    return gather(built_in(), entry_points(group=GROUP))
