"""What would separate the members of a merged class, and is not in the run."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from latdiag.attribution.accounts import Rank

_SPLIT_BY_PROBE = (
    "Run `latdiag probe URL`: requests of known lengths separate queue, prefill and frontend."
)
_SPLIT_BY_SPANS = (
    "Measure again with the server's own spans (--otlp): they state {} separately for each"
    " request{}."
)
_AND_THE_GATEWAY = ", and the gateway's time is what they leave"
_OR_BEHIND = (
    " If a gateway is in front, --behind URL2 (the server behind it) measures what it takes."
)
_SPLIT_BY_METRICS = (
    "Measure again with the server's metrics (--metrics URL): they state the mean of {}{}."
)
_NO_SPANS = (
    "latdiag listened for spans (--otlp), but none came for these requests: turn on the server's"
    " exporter and point it at this machine (`latdiag stacks URL` names the flag)."
)
_SPLIT_BY_MORE = (
    "The servers' evidence in this run does not separate {}: look for a server on the path"
    " that reports no times.{}"
)
_SPLIT_FROM_NEARBY = (
    "Probe from the gateway's own machine: its path from there takes next to nothing, and what"
    " stays is the gateway's."
)
_SPLIT_NETWORK = (
    "Run `latdiag probe URL --behind URL2` with the URL of the server behind the gateway: the"
    " time that disappears there is the gateway's, with the path behind it."
)


def splitting(
    members: Sequence[str], given: Collection[Rank], listened: Collection[str], to_probe: bool
) -> str:
    """The next measurement. ``given``: evidence that came; ``listened``: what was asked for,
    ``spans`` or ``metrics``; ``to_probe``: whether no probe was made, and one can be."""
    if set(members) <= {"network", "gateway"}:
        return _SPLIT_FROM_NEARBY if Rank.BEHIND in given else _SPLIT_NETWORK
    if to_probe and "queue" in members:
        return _SPLIT_BY_PROBE
    # A server states its own times: what is left of the total is the gateway's.
    own = [name for name in members if name not in ("network", "gateway")]
    rest = _AND_THE_GATEWAY if "gateway" in members else ""
    more = _OR_BEHIND if "gateway" in members and Rank.BEHIND not in given else ""
    if Rank.SPANS not in given:
        spans = _SPLIT_BY_SPANS.format(_listed(own), rest)
        return (_NO_SPANS if "spans" in listened else spans) + more
    metrics = Rank.METRICS in given or Rank.TOTALS in given
    if not metrics and "metrics" not in listened:
        return _SPLIT_BY_METRICS.format(_listed(own), rest) + more
    return _SPLIT_BY_MORE.format(_listed(members), more)


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
