"""Flags of stacks in what people are advised to do."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence

from latdiag.diagnosis.result import Breakdown, Verdict
from latdiag.stacks import catalogue
from latdiag.stacks.catalogue import Shown
from latdiag.stacks.detect import tells
from latdiag.stacks.reach import CHANNELS, channel
from latdiag.stacks.signal import Stack, Switch, of
from latdiag.stacks.versions import has

#: What has to be done here as well, so that what the servers say is heard.
_HERE = {
    "spans": "; then measure with --otlp",
    "replies": "; then measure again",
    "metrics": "; then measure with --metrics URL",
}
_KNOB = re.compile(r"\{(\w+)\}")
#: What is asked after where no component leads.
_UNKNOWN = ("queue", "prefill")


def with_flags(text: str, found: Iterable[Shown] = ()) -> str:
    """``text`` with the options of the stacks that are there where it names what they turn
    (``{admitted}``); of none that is there, of those that are known best."""
    stacks = tuple(found)
    # Of a long sentence one example of each is enough.
    most = catalogue.EXAMPLES if len(_KNOB.findall(text)) < 3 else 1

    def flags(knob: re.Match[str]) -> str:
        named = catalogue.flags_of(knob[1], stacks, most)
        return f" ({named})" if named else ""

    return _KNOB.sub(flags, text)


def to_measure(
    stacks: Sequence[Shown],
    verdict: Verdict,
    breakdowns: Mapping[str, Breakdown],
    given: Container[str] = (),
    listened: Container[str] = (),
) -> str:
    """One sentence; empty where none of ``stacks`` is known or can say more, in its version.
    ``given``: the channels that the run has evidence of; ``listened``: those that it was open
    to."""
    versions = dict(reversed(list(stacks)))
    found = [stack for stack in catalogue.stacks() if stack.name in versions]
    leaves = of(*_asked_after(verdict, breakdowns))
    for stack in sorted(found, key=lambda each: each.layer != "engine"):
        more = [
            each
            for each in tells(stack, leaves)
            if _channel(stack, each) not in given
            and has(versions[stack.name], each.since) is not False
        ]
        switches = sorted(more, key=lambda each: _rank(stack, each))
        if switches:
            flag, by = flag_in(switches[0], versions[stack.name]), _channel(stack, switches[0])
            here = _HERE["replies" if by in listened else by]
            # Some flags say themselves what to give here.
            here = "" if flag.endswith(" here") or flag.startswith("--body-json") else here
            return f"Let {stack.title} report it ({switches[0].what}): {flag}{here}."
    return ""


def flag_in(switch: Switch, version: str | None) -> str:
    """The flag, with the version that it came with where nobody knows which one is there."""
    known = has(version, switch.since)
    return switch.flag if known is not None else f"{switch.flag} (from {switch.since} on)"


def _asked_after(verdict: Verdict, breakdowns: Mapping[str, Breakdown]) -> Sequence[str]:
    """The components that the verdict is about, as far as a server can tell of them."""
    name, found = verdict.dominant, breakdowns.get(verdict.population)
    members: Sequence[str] = ()
    if name is not None and found is not None and name in found.shares:
        members = found.shares[name].members or (name,)
    told = [name for name in members if name not in ("client", "network", "unattributed")]
    return told or _UNKNOWN


def _channel(stack: Stack, switch: Switch) -> str:
    """The best channel that it opens."""
    opened = {channel(signal) for signal in stack.signals if signal.name in switch.signals}
    return next(each for each in CHANNELS if each in opened)


def _rank(stack: Stack, switch: Switch) -> int:
    return CHANNELS.index(_channel(stack, switch))
