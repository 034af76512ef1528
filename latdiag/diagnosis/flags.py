"""Flags of stacks in what people are advised to do."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence

from latdiag.diagnosis.result import Breakdown, Verdict
from latdiag.stacks import catalogue
from latdiag.stacks.detect import tells
from latdiag.stacks.reach import CHANNELS, channel
from latdiag.stacks.signal import Stack, Switch, of

#: What has to be done here as well, so that what the servers say is heard.
_HERE = {
    "spans": "; then measure with --otlp",
    "replies": "; then measure again",
    "metrics": "; then measure with --metrics URL",
}
_KNOB = re.compile(r"\{(\w+)\}")
#: What is asked after where no component leads.
_UNKNOWN = ("queue", "prefill")


def with_flags(text: str) -> str:
    """``text`` with the flags of every stack where it names what they turn (``{admitted}``)."""

    def flags(knob: re.Match[str]) -> str:
        named = catalogue.flags_of(knob[1])
        return f" ({named})" if named else ""

    return _KNOB.sub(flags, text)


def to_measure(
    stacks: Sequence[str],
    verdict: Verdict,
    breakdowns: Mapping[str, Breakdown],
    given: Container[str] = (),
    listened: Container[str] = (),
) -> str:
    """One sentence; empty where none of ``stacks``, by name, is known or can say more. ``given``:
    the channels that the run has evidence of; ``listened``: those that it was open to."""
    found = [stack for stack in catalogue.stacks() if stack.name in stacks]
    leaves = of(*_asked_after(verdict, breakdowns))
    for stack in sorted(found, key=lambda each: each.layer != "engine"):
        more = [each for each in tells(stack, leaves) if _channel(stack, each) not in given]
        switches = sorted(more, key=lambda each: _rank(stack, each))
        if switches:
            flag, by = switches[0].flag, _channel(stack, switches[0])
            here = _HERE["replies" if by in listened else by]
            # Some flags say themselves what to give here.
            here = "" if flag.endswith(" here") or flag.startswith("--body-json") else here
            return f"Let {stack.title} report it ({switches[0].what}): {flag}{here}."
    return ""


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
