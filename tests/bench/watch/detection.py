"""How often ``watch`` tells a change that is none, and how soon it finds one that is there.

``python -m tests.bench.watch.detection`` prints both; hours and repetitions are options.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np

from latdiag.attribution.parts import Parts, Source
from latdiag.model.components import COMPONENTS
from latdiag.watch.bins import BIN_NS, Bins
from latdiag.watch.change import Change
from latdiag.watch.changes import Changes
from latdiag.watch.requests import Requests
from tests.bench.watch.traffic import LAWS, Fault, S, World

_OF = ("frontend", "queue", "prefill", "decode")


def requests_of(table: dict[str, np.ndarray], rows: np.ndarray) -> Requests:
    """Simulated requests as the attribution would hand them on."""
    n = len(rows)
    parts = {name: (table[name][rows] * S).astype(np.int64) for name in _OF}
    parts["unattributed"] = np.zeros(n, np.int64)
    early = {name: parts[name] for name in _OF[:3]}
    ttft, total = sum(early.values()), sum(parts.values())
    who = np.array([f"m{m:.0f}-r{r:.0f}" for m, r in zip(
        table["model"][rows], table["replica"][rows], strict=True)], dtype=object)  # fmt: skip
    none = np.full(n, "", dtype=object)
    return Requests(
        parts=Parts(
            total, ttft, parts, np.zeros(n, bool), 0,
            dict.fromkeys(parts, Source("A", "simulated")),
            within={"client_ttft": early | {"unattributed": parts["unattributed"]}},
            interval="server",
        ),
        trace=none, at_ns=(table["end"][rows] * S).astype(np.int64), timed=np.ones(n, bool),
        tokens=np.rint(table["output"][rows]).astype(np.int64),
        prompt=np.rint(table["prompt"][rows]).astype(np.int64),
        replica=who, by={c: who if c in _OF else none for c in COMPONENTS[2:-1]},
        labels={"model": np.array([f"m{m:.0f}" for m in table["model"][rows]], dtype=object)},
        left={}, left_ns=0,
    )  # fmt: skip


def looks(world: World, seconds: float) -> Iterator[tuple[int, Changes, list[Change]]]:
    """(bin after the look, all changes, what this look told) of a world, bin by bin."""
    table = world.requests(seconds)
    bins = Bins()
    changes = Changes(bins)
    numbers = (table["end"] * S).astype(np.int64) // BIN_NS
    for number in range(int(seconds * S // BIN_NS)):
        rows = np.flatnonzero(numbers == number)
        if len(rows):
            bins.add(requests_of(table, rows))
        bins.at(number)
        yield number + 1, changes, changes.look(number + 1)


def told(world: World, seconds: float) -> list[tuple[int, Change]]:
    """(bin of the look, change) of everything that is told of a world."""
    return [(at, change) for at, _, found in looks(world, seconds) for change in found]


def false_changes(hours: float, seed: int) -> list[tuple[int, Change]]:
    """Of a world whose laws do not change."""
    return told(World(LAWS, seed=seed), hours * 3600)


def detected(fault: Fault, seed: int, until_s: float) -> tuple[float | None, list[Change]]:
    """(Seconds until the right component is told, all that was told from the fault on)."""
    world = World(LAWS, seed=seed, wave=0.0, rate=20.0, faults=[fault])
    found = told(world, until_s)
    after = [(n, c) for n, c in found if n * BIN_NS / S > fault.at_s]
    right = [
        n * BIN_NS / S - fault.at_s
        for n, c in after
        if c.component == fault.component and c.model == f"m{fault.model}" and c.until is None
    ]
    return (min(right) if right else None), [c for _, c in after]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--faults", type=int, default=10)
    given = parser.parse_args()
    for seed in range(given.seeds):
        begun = time.process_time()
        all_ = false_changes(given.hours, 100 + seed) if given.hours else []
        false = [(n, c) for n, c in all_ if c.cause != "load" and c.until is None]
        by_load = sum(c.cause == "load" for _, c in all_)
        print(f"seed {seed}: {given.hours} h, {len(false)} false, {by_load} told as load,"
              f" {time.process_time() - begun:.0f} CPU s")  # fmt: skip
        for number, c in false:
            print("  ", number, c.metric, c.component, c.model, c.replica, c.cause,
                  f"{c.delta_ns / 1e6:.2f} of {c.before_ns / 1e6:.2f} ms")  # fmt: skip
    rng = np.random.default_rng(7)
    for component, model in (("prefill", 0), ("prefill", 1), ("decode", 0), ("decode", 2)):
        times, others = [], 0
        for seed in range(given.faults):
            fault = Fault(1500 + float(rng.uniform(0, 60)), component, 1.2, model)
            took, everything = detected(fault, 1000 + seed, fault.at_s + 420)
            times.append(took)
            others += sum(c.component != component and c.cause == "component" for c in everything)
        good = [t for t in times if t is not None and t <= 300]
        middle = f"{np.median(good):.0f} s" if good else "-"
        print(f"{component} of m{model} +20 %: {len(good)} of {len(times)} within 300 s,"
              f" median {middle}, {others} others told")  # fmt: skip


if __name__ == "__main__":
    main()
