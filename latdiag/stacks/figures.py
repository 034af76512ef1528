"""Short forms for signals that are numbers: of ``/metrics``, of a reply's body, of its headers."""

from __future__ import annotations

from latdiag.stacks.signal import Place, Signal

_NOTHING: frozenset[str] = frozenset()


def histogram(
    name: str,
    foreign: str,
    covers: frozenset[str] = _NOTHING,
    rest: str = "",
    roles: tuple[str, ...] = (),
    *,
    unit: str = "s",
    first_token: bool = False,
    documented: bool = False,
    note: str = "",
) -> Signal:
    """A histogram of durations; one whose values are no durations has no ``covers``."""
    return Signal(
        name,
        "histogram",
        foreign,
        unit,
        covers=covers,
        rest=rest,
        roles=roles,
        first_token=first_token,
        documented=documented,
        note=note,
    )


def counter(
    name: str, foreign: str, unit: str = "1", *, documented: bool = False, note: str = ""
) -> Signal:
    """A count: of requests, tokens, bytes. It covers no time."""
    return Signal(name, "counter", foreign, unit, documented=documented, note=note)


def gauge(
    name: str, foreign: str, unit: str = "1", *, documented: bool = False, note: str = ""
) -> Signal:
    """A level at the instant of the scrape: requests, a fraction. It covers no time."""
    return Signal(name, "gauge", foreign, unit, documented=documented, note=note)


def reply(
    name: str,
    path: str,
    covers: frozenset[str] = _NOTHING,
    rest: str = "",
    roles: tuple[str, ...] = (),
    *,
    unit: str = "ms",
    first_token: bool = False,
    documented: bool = False,
    note: str = "",
    bearer: str = "",
    starts: Place | None = None,
) -> Signal:
    """A duration in the body of a reply, at a JSON path (``metrics.queue_time_ms``)."""
    return Signal(
        name,
        "reply",
        path,
        unit,
        covers=covers,
        rest=rest,
        roles=roles,
        first_token=first_token,
        documented=documented,
        note=note,
        bearer=bearer,
        starts=starts,
    )
