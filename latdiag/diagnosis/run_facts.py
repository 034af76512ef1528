"""What a comparison reads of each run: what it was, its parts, its rows; and what is unlike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latdiag.diagnosis.comparison import RunRows
from latdiag.diagnosis.diagnose import result_and_parts
from latdiag.measurement import metric_rows
from latdiag.measurement.metric_rows import Length

if TYPE_CHECKING:
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
    """One run as a comparison sees it. ``facts``: what it was, by what people call it; a fact
    that its header does not state is not there."""

    path: str
    result: dict[str, Any]
    facts: dict[str, Any]
    rows: RunRows


def measured(run: Run) -> Measured:
    """Read ``run`` (one only)."""
    result, parts = result_and_parts(run, "diagnose")
    rows = metric_rows.read_rows(run.batches(list(metric_rows.COLUMNS)))
    return Measured(
        run.paths[0],
        result,
        dict(_facts(run.header, result, rows)),
        RunRows(parts, rows),
    )


# ---------------------------------------------------------------------- what a run was
def _facts(
    header: Mapping[str, Any], result: Mapping[str, Any], rows: metric_rows.Rows
) -> Iterator[tuple[str, Any]]:
    """(what, value): text, a number, a list of texts, or None where it is known to be none."""
    target, preflight = header.get("target") or {}, header.get("preflight") or {}
    client, tool = header.get("client") or {}, header.get("tool") or {}
    yield from _named(target, {"url": "target", "model": "model", "dialect": "dialect"})
    if result["stacks"]:
        yield "stacks", sorted(_stack(each) for each in result["stacks"])
    yield from _named(preflight, {"server": "server header"})
    if preflight.get("extras") is not None:
        yield "request extras", sorted(map(str, preflight["extras"]))
    yield from _plan(header.get("plan") or {})
    if rows.open_loop is not None:
        yield "loop", "open" if rows.open_loop else "closed"
    scenarios = sorted({name for _, name, *_ in rows.sending} - {""})
    if scenarios and not (header.get("plan") or {}).get("designed"):
        yield "scenarios", scenarios
    yield "stamps", result["self_audit"].get("stamp_source")
    names = {"priority": "client priority", "system": "client system", "python": "python"}
    yield from _named(client, names | {"httpx": "httpx"})
    yield from _named(tool, {"verb": "verb", "version": "latdiag"})


def _stack(stack: Mapping[str, Any]) -> str:
    return " ".join(str(stack[key]) for key in ("name", "version") if stack.get(key))


def _plan(plan: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A load's plan; or the user's own workload of a probe."""
    if "designed" in plan or "arrivals" in plan:
        yield "designed probe", bool(plan.get("designed"))
    limits = plan.get("limits") if plan.get("designed") else None
    said = plan if not plan.get("designed") else limits or {}
    names = {"arrivals": "arrivals", "rate": "rate", "concurrency": "concurrency"}
    yield from _named(said, names | {"isl": "ISL", "osl": "OSL"})
    names = {"prompts": "prompts", "shared_prefix": "shared prefix", "isl_source": "prompts as"}
    yield from _named(plan, names)
    for key, name in (("ramp_ns", "ramp"), ("duration_ns", "duration")):
        if plan.get(key) is not None:
            yield name, f"{plan[key] / 1e9:g} s"
    names = {"requests": "requests planned", "warmup": "warm-up", "budget": "budget"}
    yield from _named(plan, names | {"connections": "connections", "workers": "workers"})
    yield from _named(plan, {"seed": "seed"})


def _named(found: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for key, name in names.items():
        if key in found:
            yield name, found[key]


# ---------------------------------------------------------------------- what differs
def differs(a: Sequence[Measured], b: Sequence[Measured]) -> list[dict[str, Any]]:
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
        found.append(_entry(name, _one(sides[0]), _one(sides[1]), unlike))
    return found + list(_as_it_came(a, b))


def alike(a: Sequence[Measured], b: Sequence[Measured]) -> dict[str, Any]:
    """Every fact that is the same in all runs of both sides."""
    names = dict.fromkeys(name for run in (*a, *b) for name in run.facts)
    found = {name: [_distinct(name, side) for side in (a, b)] for name in names}
    return {n: one[0] for n, (one, other) in found.items() if one == other and len(one) == 1}


def _entry(what: str, a: Any, b: Any, unlike: bool) -> dict[str, Any]:
    return {"what": what, "a": a, "b": b, "unlike": unlike}


def _distinct(name: str, side: Sequence[Measured]) -> list[Any]:
    """The values of a fact on a side, each once."""
    found: list[Any] = []
    for run in side:
        if name in run.facts and run.facts[name] not in found:
            found.append(run.facts[name])
    return sorted(found, key=repr)


def _one(values: list[Any]) -> Any:
    """A value; of several all of them as text; None where none is stated."""
    if len(values) < 2:
        return values[0] if values else None
    return [str(value) for value in values]


def _as_it_came(a: Sequence[Measured], b: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    """Lengths and rates that came out otherwise, whatever was planned: any two runs count."""
    for what, key in (("ISL as it came", "isl"), ("OSL as it came", "osl")):
        one, other = ([e for run in side if (e := _length(run, key)).n] for side in (a, b))
        if one and other and _lengths_unlike([*one, *other]):
            yield _entry(what, _mean_of(one), _mean_of(other), True)
    # In closed loop how fast it sends is the server's doing, and no part of the work.
    first, second = ([r for run in side if (r := run.rows.rows.rate)[1]] for side in (a, b))
    if first and second and _rates_unlike([*first, *second]):
        yield _entry("rate as it came", _mean_rate(first), _mean_rate(second), True)


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
