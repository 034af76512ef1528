"""What became of evidence: how many requests it was joined to, and which are told by it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Findings:
    """What became of the evidence: counts of requests, by what they were joined, and why others
    are left out. ``medians``: ns per component, of the requests that are told."""

    requests: int = 0
    joined: int = 0
    told: int = 0
    by: dict[str, int] = field(default_factory=dict)
    contradicted: int = 0
    partial: int = 0
    all_kept: bool = False
    duplicates: int = 0
    spans: int = 0
    senders: dict[str, dict[str, object]] = field(default_factory=dict)
    stacks: tuple[str, ...] = ()
    user_stamps: bool = False
    way: bool = False
    medians: dict[str, float] = field(default_factory=dict)
    #: median end to end of those told and of those left out, ns; 0 where there are too few
    told_ns: float = 0.0
    left_ns: float = 0.0
