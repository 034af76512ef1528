"""What a stack can tell of each component, and through which channel."""

from __future__ import annotations

from latdiag.model.components import COMPONENTS
from latdiag.stacks.catalogue import METRIC_KINDS
from latdiag.stacks.signal import Signal, Stack

#: The best first: the first two are of a request, the last is of all requests of a time.
CHANNELS = ("spans", "replies", "metrics")

#: What servers can speak of; the client sees the others itself.
SERVER_COMPONENTS = tuple(
    name for name in COMPONENTS if name not in ("client", "network", "unattributed")
)


def channel(signal: Signal) -> str:
    """``spans``, ``replies`` (body or header) or ``metrics``."""
    if signal.kind in METRIC_KINDS:
        return "metrics"
    return "replies" if signal.kind in ("reply", "header") else "spans"


def reach(stack: Stack) -> dict[str, dict[str, bool]]:
    """By component, then by channel: whether a recording shows it (else documents alone say so).

    A signal tells of the component that its ``rest`` is of: what is left when everything narrower
    has been taken away.
    """
    found: dict[str, dict[str, bool]] = {name: {} for name in SERVER_COMPONENTS}
    for signal in stack.signals:
        component = signal.rest.partition(".")[0]
        if component in found:
            shown = stack.provenance == "captured" and not signal.documented
            by = found[component]
            by[channel(signal)] = by.get(channel(signal), False) or shown
    return {
        name: {each: by[each] for each in CHANNELS if each in by} for name, by in found.items()
    }
