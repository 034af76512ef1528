"""Scores what a probe said against the books of the server that it probed.

Nothing here knows how a probe comes to its shares: it compares two sets of sums over the same
requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Leaves that from outside belong to another component than their name says: a prompt that waits
#: for others' work in its steps is a prompt that waits.
MOVED = {"prefill.contention": "queue"}
#: What a merge may hold and still be an answer: the pairs that nothing outside tells apart.
ALLOWED = (
    frozenset({"network", "gateway"}),
    frozenset({"prefill", "interconnect"}),
    #: a prompt that waits for another, or shares its steps; a link that is set up before
    frozenset({"queue", "prefill"}),
    frozenset({"queue", "prefill", "interconnect"}),
    #: behind a way that may be a gateway, whose limit looks like an engine's
    frozenset({"network", "gateway", "queue"}),
    #: a pace that neither prompts nor other streams change
    frozenset({"gateway", "frontend", "decode"}),
)
FAULT_IN = {
    "queue": "queue",
    "prefill": "prefill",
    "decode": "decode",
    "interference": "decode",
    "kv-transfer": "interconnect",
    "network": "network",
    "healthy": None,
}
#: Components closer than this in truth are both right, and so is not to choose.
CLOSE = 0.05


@dataclass(frozen=True, slots=True)
class Truth:
    """Sums over the workload's requests, ns. ``total``: end to end as the client saw it."""

    total: int
    components: Mapping[str, int]
    leaves: Mapping[str, int]

    def share(self, members: Iterable[str]) -> float:
        return sum(self.components.get(name, 0) for name in members) / self.total


def truth_of(total: int, client: int, rest: int, books: Sequence[Mapping[str, Any]]) -> Truth:
    """From end to end, the client's own part, what followed the last token, and the books.

    The books begin where the server had read a request and end with its last token, so what is
    left is the way there and back.
    """
    leaves: dict[str, int] = {}
    for entry in books:
        for name, value in entry["leaves"].items():
            leaves[name] = leaves.get(name, 0) + value
    components: dict[str, int] = {"client": client, "unattributed": rest}
    for name, value in leaves.items():
        component = MOVED.get(name, name.partition(".")[0])
        components[component] = components.get(component, 0) + value
    components["network"] = total - client - rest - sum(leaves.values())
    return Truth(total, components, leaves)


@dataclass(frozen=True, slots=True)
class Score:
    """``errors``: class -> (stated share, true share, whether the interval covers; None: none).

    ``verdict``: right, wrong, or ambiguous.
    """

    faults: tuple[str, ...]
    errors: Mapping[str, tuple[float, float, bool | None]]
    verdict: str
    said: str
    merged: tuple[str, ...]
    why: str

    @property
    def worst(self) -> float:
        return max((abs(a - b) for a, b, _ in self.errors.values()), default=1.0)


def score(faults: tuple[str, ...], result: Mapping[str, Any], truth: Truth) -> Score:
    shares = result["breakdown"].get("mean") or {}
    errors, merged = {}, []
    for name, entry in shares.items():
        # What the client stamps of itself has no other book to be judged by.
        if not isinstance(entry, Mapping) or name in ("client", "unattributed"):
            continue
        members = entry.get("members") or [name]
        true = truth.share(members)
        known = entry["lo"] is not None
        covers = entry["lo"] <= true <= entry["hi"] if known else None
        errors["+".join(members)] = (entry["share"], true, covers)
        if len(members) > 1:
            merged.append("+".join(members))
    verdict, why = _verdict(faults, result, truth)
    said = result["verdict"]
    return Score(faults, errors, verdict, said["dominant"] or said["kind"], tuple(merged), why)


def _verdict(faults: tuple[str, ...], result: Mapping[str, Any], truth: Truth) -> tuple[str, str]:
    said = result["verdict"]
    kind, dominant = said["kind"], said["dominant"]
    if set(faults) == {"healthy"}:
        return ("right" if kind == "healthy" else "wrong"), f"healthy was called {kind}"
    ranked = sorted(truth.components, key=lambda name: -truth.components[name])
    top, second = ranked[0], ranked[1]
    close = truth.share([top]) - truth.share([second]) < CLOSE
    if kind in ("ambiguous", "insufficient"):
        return ("right" if close else "ambiguous"), f"{top} {truth.share([top]):.0%}"
    if kind != "bottleneck":
        return "wrong", f"{top} leads, called {kind}"
    entry = result["breakdown"][said["population"]][dominant]
    members = frozenset(entry.get("members") or [dominant])
    meant = {top, second} if close else {top}
    if not members & meant:
        return "wrong", f"{top} leads, called {dominant}"
    if len(members) > 1 and members not in ALLOWED:
        return "wrong", f"{'+'.join(sorted(members))} is a merge that says too little"
    if members == ALLOWED[1] and "interconnect" not in meant:
        return "wrong", "prefill leads, called prefill or interconnect"
    return "right", ""


def unmet(scores: Sequence[Score]) -> list[str]:
    """The requirements that these scores miss, in words; [] where all hold."""
    n = len(scores)
    wrong = sum(s.verdict == "wrong" for s in scores) / n
    ambiguous = sum(s.verdict == "ambiguous" for s in scores) / n
    errors = sorted(abs(a - b) for s in scores for a, b, _ in s.errors.values())
    covers = [c for s in scores for _, _, c in s.errors.values() if c is not None]
    p95 = errors[min(len(errors) - 1, int(0.95 * len(errors)))] if errors else 1.0
    covered = sum(covers) / len(covers) if covers else 0.0
    found = []
    if wrong > 0.05:
        found.append(f"wrong verdicts {wrong:.1%}, at most 5 %")
    if ambiguous > 0.20:
        found.append(f"ambiguous {ambiguous:.1%}, at most 20 %")
    if p95 > 0.05:
        found.append(f"error p95 {100 * p95:.1f} points, at most 5")
    if covered < 0.85:
        found.append(f"intervals cover {covered:.1%}, at least 85 %")
    return found


def table(scores: Sequence[Score], seeds: Sequence[int]) -> str:
    """A line a server, then a line a class."""
    lines = [f"{'seed':>4} {'faults':<22}{'verdict':<10}{'said':<13}{'worst':>6}  shares"]
    for seed, s in zip(seeds, scores, strict=True):
        shown = " ".join(
            f"{name} {100 * a:.0f}/{100 * b:.0f}{'' if c in (True, None) else '!'}"
            for name, (a, b, c) in s.errors.items()
            if max(a, b) >= 0.01
        )
        lines.append(
            f"{seed:>4} {'+'.join(s.faults):<22}{s.verdict:<10}{s.said:<13}"
            f"{100 * s.worst:>6.1f}  {shown} {s.why if s.verdict != 'right' else ''}"
        )
    lines.append("")
    lines.append(f"{'class':<30}{'n':>4}{'median':>8}{'p95':>7}{'worst':>7}{'covered':>9}")
    names = sorted({name for s in scores for name in s.errors})
    for name in names:
        mine = [s.errors[name] for s in scores if name in s.errors]
        apart = sorted(100 * abs(a - b) for a, b, _ in mine)
        covers = [c for _, _, c in mine if c is not None]
        covered = f"{sum(covers)}/{len(covers)}" if covers else "-"
        at95 = apart[min(len(apart) - 1, int(0.95 * len(apart)))]
        lines.append(
            f"{name:<30}{len(mine):>4}{apart[len(apart) // 2]:>8.2f}{at95:>7.2f}"
            f"{apart[-1]:>7.2f}{covered:>9}"
        )
    every = sorted(100 * abs(a - b) for s in scores for a, b, _ in s.errors.values())
    at95 = every[min(len(every) - 1, int(0.95 * len(every)))]
    counts = {w: sum(s.verdict == w for s in scores) for w in ("right", "wrong", "ambiguous")}
    lines.append(
        f"all: n {len(every)}, median {every[len(every) // 2]:.2f}, p95 {at95:.2f} points"
    )
    lines.append(f"verdicts: {counts}")
    return "\n".join(lines)
