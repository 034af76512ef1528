"""The workload of an earlier probe, read from its run to be offered once more (``--like``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from latdiag.measurement.stages import WORKLOAD, Shot, Stage
from latdiag.model.errors import UsageFault
from latdiag.probe.budget import BUDGETS
from latdiag.runtime.channel import message

if TYPE_CHECKING:
    from latdiag.store.run import Run

_REMEDY = "name a run of `latdiag probe` that sent its workload (S10)"
#: Requests of a workload: more than any budget allows.
_MOST = 50_000
#: What is read of each request, and what of it is a number.
_NUMBERS = ("attempt", "due_ns", "sent_ns", "done_ns", "isl_wanted", "osl_wanted")
_COLUMNS = ("request_id", "stage", "scenario", *_NUMBERS)


@message
class Earlier(NamedTuple):
    """What an earlier probe offered: the segments of S10, each with its lengths and moments, and
    what its user asked for. ``seed``: of its prompts."""

    segments: tuple[Stage, ...]
    budget: str
    max_tokens: int
    seed: int
    isl: str | None
    osl: str | None
    rate: float | None
    concurrency: int | None


class _Asked(NamedTuple):
    """A request as it was asked for. ``due_ns``: None in a closed loop."""

    due_ns: int | None
    sent_ns: int
    done_ns: int
    isl: int
    osl: int


def earlier(path: str) -> Earlier:
    """The workload of the run at ``path``.

    UsageFault where it is several runs, or none of a probe, or has no workload; RunFault where it
    cannot be read.
    """
    from latdiag.store.run import Run  # reads by numpy and pyarrow

    run = Run.open(path)
    if len(run.paths) > 1:
        raise UsageFault(f"--like {path} is {len(run.paths)} runs", "name one of them")
    plan = run.header.get("plan")
    limits = plan.get("limits") if isinstance(plan, dict) else None
    if not isinstance(plan, dict) or not limits or plan.get("budget") not in BUDGETS:
        raise UsageFault(f"{run.paths[0]} is not a run of probe", _REMEDY)
    segments = _segments(run)
    if sum(map(len, segments.values())) > _MOST:
        raise UsageFault(f"{run.paths[0]} holds more requests than a probe sends", _REMEDY)
    places = limits["concurrency"]
    found = [_stage(rows, segment, places) for segment, rows in sorted(segments.items())]
    if not found:
        raise UsageFault(f"{run.paths[0]} holds no request of its workload", _REMEDY)
    return Earlier(
        tuple(found),
        *(plan["budget"], limits["max_tokens"], plan["seed"]),
        *(limits["isl"], limits["osl"], limits["rate"], places),
    )


def _segments(run: Run) -> dict[int, list[_Asked]]:
    """The workload's requests by segment. Of each its first attempt."""
    found: dict[int, dict[str, tuple[int, _Asked]]] = {}
    for batch in run.batches(_COLUMNS):
        texts = [batch.texts[name].tolist() for name in ("stage", "scenario", "request_id")]
        columns = [batch.ints[name].values.tolist() for name in _NUMBERS]
        open_loop = batch.ints["due_ns"].valid.tolist()
        for stage, scenario, name, attempt, due, *rest, open_ in zip(
            *texts, *columns, open_loop, strict=True
        ):
            number = scenario.rpartition("-")[2] if scenario else ""
            asked = _Asked(due if open_ else None, *rest)
            if stage != WORKLOAD or not number.isdecimal() or asked.isl < 1 or asked.osl < 1:
                continue
            rows = found.setdefault(int(number), {})
            if name not in rows or attempt < rows[name][0]:
                rows[name] = attempt, asked
    return {number: [each for _, each in rows.values()] for number, rows in found.items()}


def _stage(rows: list[_Asked], segment: int, concurrency: int | None) -> Stage:
    """A segment to be sent again: at the moments at which it was due, or as a closed loop."""
    due = [each.due_ns for each in rows if each.due_ns is not None]
    if len(due) == len(rows):
        first = min(due)
        shots = (Shot(e.isl, e.osl, at - first) for e, at in zip(rows, due, strict=True))
        return Stage(WORKLOAD, tuple(sorted(shots, key=lambda shot: shot.at_ns)), 0, "", segment)
    in_turn = sorted(rows, key=lambda each: each.sent_ns)
    slots = concurrency or _most(rows)
    return Stage(WORKLOAD, tuple(Shot(e.isl, e.osl, -1) for e in in_turn), slots, "", segment)


def _most(rows: list[_Asked]) -> int:
    """Requests under way at once: the slots of a closed loop that a server's limit made of an
    open one."""
    moments = [(each.sent_ns, 1) for each in rows]
    moments += [(each.done_ns, -1) for each in rows if each.done_ns > each.sent_ns]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most
