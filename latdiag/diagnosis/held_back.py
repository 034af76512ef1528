"""What is said of streams that something holds back and lets go in bursts.

Such a run is valid: the bursts came as they were stamped. But the gaps between its tokens are
those of whatever makes the bursts, so they are no figures of the server.
"""

from __future__ import annotations

from collections.abc import Sequence

from latdiag.measurement.bursts import Bursts
from latdiag.measurement.validity import GAPS
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.units import show_ms
from latdiag.stacks import catalogue

#: In a share of a stream's tokens: where the first burst holds more, the time from the first to
#: the last is shorter by as much.
_OF_STREAM = 0.1


def refusals(bursts: Bursts | None) -> dict[str, str]:
    """The metrics that bursts leave nothing of, and why."""
    if bursts is None or not bursts.held:
        return {}
    names = (*GAPS, "tpot") if bursts.of_stream > _OF_STREAM else GAPS
    return dict.fromkeys(names, f"tokens arrive {words(bursts)}")


def words(bursts: Bursts) -> str:
    """How it comes: ``in bursts of about 31 every 202 ms``."""
    tokens = round(bursts.tokens)
    if bursts.kind == "whole":
        return f"all at once, {tokens} per reply"
    return f"in bursts of about {tokens} every {show_ms(round(bursts.period_ns))} ms"


def caveats(bursts: Bursts | None, stacks: Sequence[str], known: Sequence[Caveat]) -> list[Caveat]:
    """The caveat on it, with the setting of those gateways of ``stacks`` that showed themselves;
    none where the server's own words (LD415, among ``known``) say it better."""
    if bursts is None or not bursts.held or any(each.code == "LD415" for each in known):
        return []
    return [
        caveat(
            "LD118",
            how=words(bursts),
            share=bursts.share,
            streams=bursts.streams,
            setting=_setting(stacks),
        )
    ]


def _setting(names: Sequence[str]) -> str:
    """What lets chunks through at once: of the gateways that are there, else of all."""
    own = [
        f"{stack.title}: {knob.flag}"
        for stack in catalogue.stacks()
        for knob in stack.knobs
        if knob.turns == "flush" and stack.name in names
    ]
    return "; ".join(own) or catalogue.flags_of("flush", most=len(catalogue.stacks()))
