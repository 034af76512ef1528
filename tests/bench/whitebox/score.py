"""Scores what a run with spans is said to be against the books of its servers.

Nothing here knows how the shares came about: it compares sums over the same requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Every component is to be within so much of the truth, as a share of end to end.
CLOSE = 0.01
POPULATIONS = ("mean", "p95_tail")


@dataclass(frozen=True, slots=True)
class Books:
    """One request: end to end as the client saw it, and where it went, in ns."""

    total: int
    components: Mapping[str, int]


def books_of(total: int, client: int, rest: int, leaves: Mapping[str, int]) -> Books:
    """``client``: its own work; ``rest``: what followed the last token. The server's books begin
    where it had read the request and end with its last token: the way there and back is left."""
    found: dict[str, int] = {"client": client, "unattributed": rest}
    for name, value in leaves.items():
        component = name.partition(".")[0]
        found[component] = found.get(component, 0) + value
    found["network"] = total - client - rest - sum(leaves.values())
    return Books(total, found)


def tail(requests: Sequence[Books]) -> list[Books]:
    """Those at or above the 95th percentile of end to end, which is one of them."""
    ordered = sorted(one.total for one in requests)
    place = -(-95 * (len(ordered) - 1) // 100)
    return [one for one in requests if one.total >= ordered[place]]


@dataclass(frozen=True, slots=True)
class Error:
    """A class in a population: what is said, what is true, whether the interval covers it (None:
    there is none)."""

    name: str
    population: str
    said: float
    true: float
    covers: bool | None

    @property
    def points(self) -> float:
        return 100 * abs(self.said - self.true)


def errors(result: Mapping[str, Any], requests: Sequence[Books]) -> list[Error]:
    """Every class of the breakdown, and every component that it does not name.

    Raises AssertionError where the breakdown is not of these very requests.
    """
    found = []
    for population in POPULATIONS:
        entries = result["breakdown"][population]
        mine = list(requests) if population == "mean" else tail(requests)
        whole = sum(one.total for one in mine)
        assert (entries["n"], entries["total_ns"]) == (len(mine), whole), population
        missing = {name for one in mine for name in one.components}
        for name, entry in entries.items():
            if not isinstance(entry, Mapping) or "share" not in entry:
                continue
            members = entry.get("members") or [name]
            missing -= set(members)
            true = _share(mine, members, whole)
            bounds = entry["lo"], entry["hi"]
            covers = None if None in bounds else bounds[0] <= true <= bounds[1]
            label = "+".join(members)
            found.append(Error(label, population, entry["share"], true, covers))
        for name in sorted(missing):
            found.append(Error(name, population, 0.0, _share(mine, [name], whole), None))
    return found


def _share(requests: Iterable[Books], members: Sequence[str], whole: int) -> float:
    return sum(one.components.get(name, 0) for one in requests for name in members) / whole


def table(found: Sequence[Error]) -> str:
    """A line a class and population."""
    lines = [
        f"{'class':<26}{'population':<11}{'n':>5}{'median':>8}{'p95':>7}{'worst':>7}{'covered':>10}"
    ]
    names = sorted({(one.population, one.name) for one in found})
    for population, name in names:
        mine = [one for one in found if (one.population, one.name) == (population, name)]
        apart = sorted(one.points for one in mine)
        covers = [one.covers for one in mine if one.covers is not None]
        covered = f"{sum(covers)}/{len(covers)}" if covers else "-"
        at95 = apart[min(len(apart) - 1, int(0.95 * len(apart)))]
        lines.append(
            f"{name:<26}{population:<11}{len(mine):>5}{apart[len(apart) // 2]:>8.3f}"
            f"{at95:>7.3f}{apart[-1]:>7.3f}{covered:>10}"
        )
    return "\n".join(lines)
