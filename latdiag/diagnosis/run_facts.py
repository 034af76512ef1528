"""What a comparison reads of each run: what it was, its parts, its rows; and what is unlike."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latdiag.diagnosis.diagnose import result_of
from latdiag.diagnosis.difference import RunRows
from latdiag.diagnosis.header import arrivals_of, section
from latdiag.diagnosis.result import InvalidBecause, StackFound
from latdiag.measurement import metric_rows
from latdiag.measurement.metric_rows import Length
from latdiag.model.errors import UnlikeRuns, UsageFault
from latdiag.model.units import seconds

if TYPE_CHECKING:
    from latdiag.model.caveat import Caveat
    from latdiag.store.run import Run

#: A measured length or rate is unlike from here on, if it is also beyond what drawing explains.
_UNLIKE = 0.05
_BEYOND = 3.0
#: What a workload is; if one of these differs, so does the work that was asked for.
WORKLOAD = (
    *("designed probe", "model", "loop", "arrivals", "rate", "concurrency", "ramp"),
    *("ISL", "OSL", "prompts", "shared prefix", "scenarios"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run as a comparison sees it. ``requests``: all, those of designed stages too;
    ``broken``: rules of the self-audit; ``facts``: what it was, by what people call it; a fact
    that its header does not state is not there."""

    path: str
    requests: int
    broken: tuple[InvalidBecause, ...]
    caveats: tuple[Caveat, ...]
    facts: Mapping[str, object]
    rows: RunRows


@dataclass(frozen=True, slots=True)
class FactDifference:
    """A fact that is not the same on both sides; None: not stated, or known to be none.
    ``unlike``: the work that was asked for is not the same."""

    what: str
    a: object
    b: object
    unlike: bool

    def to_json(self) -> dict[str, object]:
        """As it stands in ``--json``."""
        return {"what": self.what, "a": self.a, "b": self.b, "unlike": self.unlike}


def measured(run: Run) -> Measured:
    """Read ``run`` (one only)."""
    reader = metric_rows.Reader()
    result = result_of(run, "diagnose", (), reader)
    assert result.load is not None and result.self_audit is not None and result.parts is not None
    rows = reader.rows()
    stacks = sorted(_stack(each) for each in result.stacks)
    return Measured(
        path=run.paths[0],
        requests=result.load.requests,
        broken=result.invalid_because,
        caveats=result.caveats,
        facts=dict(_facts(run.header, stacks, result.self_audit.stamp_source, rows)),
        rows=RunRows(result.parts, rows),
    )


def side_of(name: str, *runs: Run) -> list[Measured]:
    """The runs of one side of a comparison, read one by one; ``name``: of the side.

    UnlikeRuns for one without requests, UsageFault for one that is named twice.
    """
    each = [one for run in runs for one in run.apart()]
    places = [path if "://" in (path := run.paths[0]) else os.path.realpath(path) for run in each]
    side = [measured(run) for run in each]
    for run in side:
        if not run.requests:
            raise UnlikeRuns(
                f"{run.path} holds no requests",
                "a run of `collect` has no requests to compare; name runs of `load` or `probe`",
            )
    seen: dict[str, str] = {}
    for place, run in zip(places, side, strict=True):
        for key in (place, run.rows.identity):
            if key in seen:
                raise UsageFault(
                    f"{run.path} and {seen[key]} of side {name} are the same run",
                    "name every run once",
                )
            seen[key] = run.path
    return side


# ---------------------------------------------------------------------- what a run was
def _facts(
    header: Mapping[str, object], stacks: list[str], stamps: str | None, rows: metric_rows.Rows
) -> Iterator[tuple[str, object]]:
    """(what, value): text, a number, a list of texts, or None where it is known to be none."""
    plan, preflight = section(header, "plan"), section(header, "preflight")
    named = {"url": "target", "model": "model", "dialect": "dialect"}
    # An import names neither: a target that is null is not known, and no other than any.
    target = {key: value for key, value in section(header, "target").items() if value is not None}
    yield from _named(target, named)
    if stacks:
        yield "stacks", stacks
    yield from _named(preflight, {"server": "server header"})
    if isinstance(extras := preflight.get("extras"), list):
        yield "request extras", sorted(map(str, extras))
    yield from _plan(plan)
    if rows.open_loop is not None:
        yield "loop", "open" if rows.open_loop else "closed"
    scenarios = sorted({name for _, name, *_ in rows.sending} - {""})
    if scenarios and not plan.get("designed"):
        yield "scenarios", scenarios
    yield "stamps", stamps
    names = {"priority": "client priority", "system": "client system", "python": "python"}
    yield from _named(section(header, "client"), names | {"httpx": "httpx"})
    yield from _named(section(header, "tool"), {"verb": "verb", "version": "latdiag"})


def _stack(stack: StackFound) -> str:
    return f"{stack.name} {stack.version}" if stack.version else stack.name


def _plan(plan: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """A load's plan; or the user's own workload of a probe."""
    if "designed" in plan or "arrivals" in plan:
        yield "designed probe", bool(plan.get("designed"))
    asked = section(plan, "limits") if plan.get("designed") else plan
    names = {"arrivals": "arrivals", "rate": "rate", "concurrency": "concurrency"}
    if "arrivals" in asked:
        asked = {**asked, "arrivals": arrivals_of(asked)}
    yield from _named(asked, names | {"isl": "ISL", "osl": "OSL"})
    names = {"prompts": "prompts", "shared_prefix": "shared prefix", "isl_source": "prompts as"}
    yield from _named(plan, names)
    for key, name in (("ramp_ns", "ramp"), ("duration_ns", "duration")):
        if isinstance(ns := plan.get(key), int | float):
            yield name, f"{seconds(ns):g} s"
    names = {"requests": "requests planned", "warmup": "warm-up", "budget": "budget"}
    yield from _named(plan, names | {"connections": "connections", "workers": "workers"})
    yield from _named(plan, {"seed": "seed"})


def _named(of: Mapping[str, object], names: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    for key, name in names.items():
        if key in of:
            yield name, of[key]


# ---------------------------------------------------------------------- what differs
def differs(a: Sequence[Measured], b: Sequence[Measured]) -> list[FactDifference]:
    """Every fact that is not the same on both sides, those of the workload marked ``unlike``.

    What a side does not state (an import) is not known to differ: null, and not unlike.
    """
    names = dict.fromkeys(name for run in (*a, *b) for name in run.facts)
    found = []
    for name in names:
        sides = [_distinct(name, side) for side in (a, b)]
        if sides[0] == sides[1] and len(sides[0]) < 2:
            continue
        unlike = name in WORKLOAD and len({repr(v) for side in sides for v in side}) > 1
        found.append(FactDifference(name, _one(sides[0]), _one(sides[1]), unlike))
    return found + list(_as_it_came(a, b))


def alike(a: Sequence[Measured], b: Sequence[Measured]) -> dict[str, object]:
    """Every fact that is the same in all runs of both sides."""
    names = dict.fromkeys(name for run in (*a, *b) for name in run.facts)
    found = {name: [_distinct(name, side) for side in (a, b)] for name in names}
    return {n: one[0] for n, (one, other) in found.items() if one == other and len(one) == 1}


def _distinct(name: str, side: Sequence[Measured]) -> list[object]:
    """The values of a fact on a side, each once."""
    found: list[object] = []
    for run in side:
        if name in run.facts and run.facts[name] not in found:
            found.append(run.facts[name])
    return sorted(found, key=repr)


def _one(values: list[object]) -> object:
    """A value; of several all of them as text; None where none is stated."""
    if len(values) < 2:
        return values[0] if values else None
    return [str(value) for value in values]


def _as_it_came(a: Sequence[Measured], b: Sequence[Measured]) -> Iterator[FactDifference]:
    """Lengths and rates that came out otherwise, whatever was planned: any two runs count."""
    for what, key in (("ISL (actual)", "isl"), ("OSL (actual)", "osl")):
        one, other = ([e for run in side if (e := _length(run, key)).n] for side in (a, b))
        if one and other and _lengths_unlike([*one, *other]):
            yield FactDifference(what, _mean_of(one), _mean_of(other), True)
    # In closed loop how fast it sends is the server's doing, and no part of the work.
    first, second = ([r for run in side if (r := run.rows.rows.rate)[1]] for side in (a, b))
    if first and second and _rates_unlike([*first, *second]):
        yield FactDifference("rate (actual)", _mean_rate(first), _mean_rate(second), True)


def _mean_rate(rates: Sequence[tuple[float, int]]) -> float:
    return round(sum(rate for rate, _ in rates) / len(rates), 3)


def _length(run: Measured, key: str) -> Length:
    found: Length = getattr(run.rows.rows, key)
    return found


def _mean_of(lengths: Sequence[Length]) -> float:
    n = sum(each.n for each in lengths)
    return round(sum(each.mean * each.n for each in lengths) / n, 1)


def _lengths_unlike(lengths: Sequence[Length]) -> bool:
    least, most = min(lengths, key=lambda e: e.mean), max(lengths, key=lambda e: e.mean)
    apart = most.mean - least.mean
    error = (most.error**2 + least.error**2) ** 0.5
    return apart > _UNLIKE * most.mean and apart > _BEYOND * error


def _rates_unlike(rates: Sequence[tuple[float, int]]) -> bool:
    """As of Poisson arrivals: the number in a given time has its own size as variance."""
    least, most = min(rates), max(rates)
    apart = most[0] - least[0]
    error = most[0] * (1 / most[1] + 1 / least[1]) ** 0.5
    return apart > _UNLIKE * most[0] and apart > _BEYOND * error
