"""Many worlds in two processes, and the table of what the tools said of them."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import baselines
from .judge import Judged, judge
from .kinds import KINDS
from .work import COMMONEST, LATDIAG, Record, Task, worked

_ROOT = Path(__file__).parents[3]
#: Cores of a shared machine that the bench takes.
PROCESSES = 2
OLD = f"latdiag {baselines.OLD}"


def judged_seed() -> str:
    """Of the last commit that touched what is judged: a change of it is judged on new worlds."""
    done = subprocess.run(
        ["git", "-C", str(_ROOT), "log", "-1", "--format=%H", "--", "latdiag/attribution",
         "latdiag/probe"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()[:12]


def tasks(kinds: Iterable[str], worlds: int, seed: str, budget: str, runs: Path) -> list[Task]:
    return [Task(kind, f"{seed}-{n}", budget, runs) for n in range(worlds) for kind in kinds]


def play(
    what: Sequence[Task], processes: int = PROCESSES, seen: Callable[[Record], None] | None = None
) -> list[Record]:
    """All of them, in the order given. ``seen``: told of each as it is there."""
    if processes <= 1:
        found = _collected(map(worked, what), seen)
    else:
        context = multiprocessing.get_context("spawn")
        # An executor raises where a process cannot start; a Pool would start it again for ever.
        with _importable(), ProcessPoolExecutor(processes, context) as pool:
            found = _collected(pool.map(worked, what, chunksize=2), seen)
    answer = baselines.commonest(record.book for record in found)
    for record in found:
        record.judged[COMMONEST] = judge(answer, record.book)
    return found


@contextmanager
def _importable() -> Iterator[None]:
    """New processes import by this one's path, on which pytest puts neither the repository nor
    the folder by which it names this package."""
    named_from = Path(__file__).parents[__name__.count(".")]
    before = list(sys.path)
    sys.path[:0] = [str(_ROOT), str(named_from)]
    try:
        yield
    finally:
        sys.path[:] = before


def _collected(records: Iterable[Record], seen: Callable[[Record], None] | None) -> list[Record]:
    found = []
    for record in records:
        found.append(record)
        if seen is not None:
            seen(record)
    return found


def add_old(records: Sequence[Record], at: Path) -> str:
    """Judges the old estimator on the same runs; why not, where it cannot."""
    tree = baselines.old_tree(at)
    if tree is None:
        return f"{baselines.OLD} is not in this clone"
    return add_another(records, tree, OLD)


def add_another(records: Sequence[Record], tree: Path, name: str) -> str:
    """Judges the estimator in the checkout ``tree`` on the same runs, by the same rules; how many
    of them it cannot read."""
    unread = 0
    runs = [record for record in records if record.task.run.is_dir()]
    answers = baselines.another([record.task.run for record in runs], tree)
    for record, answer in zip(runs, answers, strict=True):
        if answer is None:
            unread += 1
        else:
            record.judged[name] = judge(answer, record.book)
    return f"{name} cannot read {unread} of {len(runs)} runs" if unread else ""


# ---------------------------------------------------------------------- figures
@dataclass(frozen=True, slots=True)
class Figures:
    """Of some runs; shares of 1, None where there is nothing that they could be of."""

    n: int
    right: float | None
    wrong: float | None
    unanswered: float | None
    alarms: float | None
    alone: float | None
    members: float | None
    covered: float | None
    error_p95: float | None
    named: float | None
    right_named: float | None
    falsely: float | None
    #: of the limits that were met: named within 10 %; of the runs: with one that is none
    limits: float | None
    limits_false: float | None

    def line(self) -> str:
        return (
            f"{self.n:>5}{_percent(self.right)}{_percent(self.wrong)}{_percent(self.unanswered)}"
            f"{_percent(self.alarms)}{_percent(self.alone)}{_number(self.members)}"
            f"{_percent(self.covered)}{_points(self.error_p95)}{_percent(self.named)}"
            f"{_percent(self.right_named)}{_percent(self.falsely)}"
            f"{_percent(self.limits)}{_percent(self.limits_false)}"
        )


HEAD = (
    f"{'n':>5}{'right':>8}{'wrong':>8}{'none':>8}{'alarm':>8}{'alone':>8}{'members':>8}"
    f"{'covered':>8}{'err p95':>8}{'named':>8}{'so':>8}{'falsely':>8}{'limits':>8}{'false':>8}"
)


def figures(records: Sequence[Record], tool: str = LATDIAG) -> Figures:
    """``wrong`` and ``unanswered`` of all runs, ``alarms`` of the healthy ones, ``alone`` of those
    whose dominant can be parted. Of what happens on the way, of latdiag alone: ``named`` of what
    the requests bear, ``right_named`` in kind and size, and runs in which something is named that
    did not happen."""
    pairs = [(r, r.judged[tool]) for r in records if tool in r.judged]
    every = [each for _, each in pairs]
    errors = [error for each in every for error in each.errors]
    single = sorted(error.size for error in errors if len(error.members) == 1)
    return Figures(
        len(every),
        _share([each.mark == "right" for each in every]),
        _share([each.mark == "wrong" for each in every]),
        _share([each.mark == "none" for each in every]),
        _share([each.mark == "alarm" for record, each in pairs if record.book.healthy]),
        _share([each.alone for each in every if each.alone is not None]),
        _mean([each.members for each in every if each.members is not None]),
        _share([error.covers for error in errors if error.covers is not None]),
        single[min(len(single) - 1, int(0.95 * len(single)))] if single else None,
        *_happened(records if tool == LATDIAG else ()),
        *_of_limits(records if tool == LATDIAG else ()),
    )


def _happened(records: Sequence[Record]) -> tuple[float | None, float | None, float | None]:
    seen = [record.noticed for record in records]
    there = sum(len(each.there) for each in seen)
    counts = [sum(len(each.named) for each in seen), sum(len(each.right) for each in seen)]
    named, right = (n / there if there else None for n in counts)
    return named, right, _share([bool(each.false) for each in seen])


def _of_limits(records: Sequence[Record]) -> tuple[float | None, float | None]:
    met = sum(record.limits.met for record in records)
    right = sum(record.limits.right for record in records)
    return (right / met if met else None), _share([r.limits.false > 0 for r in records])


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def _percent(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{100 * value:>7.1f}%"


def _number(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:>8.2f}"


def _points(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{100 * value:>8.1f}"


#: Of the issue: by budget, what latdiag's figures must keep to.
ALONE = {"quick": 0.80, "standard": 0.90}


def unmet(records: Sequence[Record], budget: str) -> list[str]:
    """The requirements that latdiag misses, in words; [] where all hold."""
    found, misses = figures(records), []

    def need(holds: bool, text: str) -> None:
        if not holds:
            misses.append(text)

    need((found.wrong or 0) <= 0.01, f"confidently wrong {_of(found.wrong)}, at most 1 %")
    need((found.alarms or 0) <= 0.02, f"false alarms {_of(found.alarms)}, at most 2 %")
    if budget == "quick":
        need((found.unanswered or 0) <= 0.12, f"no answer {_of(found.unanswered)}, at most 12 %")
    alone = ALONE[budget]
    need((found.alone or 0) >= alone, f"alone {_of(found.alone)}, at least {alone:.0%}")
    need((found.members or 9) <= 1.6, f"{found.members or 9:.2f} members, at most 1.6")
    need((found.covered or 0) >= 0.93, f"covered {_of(found.covered)}, at least 93 %")
    worst = 1.0 if found.error_p95 is None else found.error_p95
    need(worst <= 0.03, f"class error p95 {100 * worst:.1f} points, at most 3")
    need((found.named or 1) >= 0.9, f"named {_of(found.named)} of what happens, at least 90 %")
    need((found.falsely or 0) <= 0.02, f"named falsely in {_of(found.falsely)}, at most 2 %")
    named, false = found.limits, found.limits_false
    need(named is None or named >= 0.90, f"limits named {_of(named)}, at least 90 %")
    need((false or 0) <= 0.02, f"limits falsely named {_of(false)}, at most 2 %")
    for kind in KINDS:
        mine = figures([r for r in records if r.task.kind == kind]).covered
        need(mine is None or mine >= 0.90, f"covered {_of(mine)} in {kind}, at least 90 %")
    failed = [r.task.name for r in records if r.failed]
    need(not failed, f"could not be judged: {', '.join(failed)}")
    return misses


def _of(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


# ---------------------------------------------------------------------- the table
def row_line(record: Record) -> str:
    """A judged run."""
    one = record.judged[LATDIAG]
    shares = " ".join(
        f"{'+'.join(sorted(e.members))} {100 * e.said:.0f}/{100 * e.true:.0f}"
        f"{'' if e.covers in (True, None) else '!'}"
        for e in one.errors
        if max(e.said, e.true) >= 0.02
    )
    told = record.failed or "; ".join(filter(None, (one.why, record.limits.why)))
    seen = record.noticed
    if seen.there or seen.false:
        told += f" [happens {'+'.join(seen.there) or '-'}, named {'+'.join(seen.named) or '-'},"
        told += f" right {'+'.join(seen.right) or '-'}, falsely {'+'.join(seen.false) or '-'}]"
    top = "+".join(sorted(record.book.meant("mean"))) if record.book.n else "nothing served"
    return (
        f"{record.task.name:<34}{one.mark:<7}{100 * one.worst:>5.0f}  truth {top:<18}"
        f"{record.cpu_s:>5.1f} s  {shares}  {told}"
    )


def table(records: Sequence[Record]) -> str:
    """By kind, all, the tools beside it, and the worst ten."""
    lines = [f"{'':<18}{HEAD}"]
    for kind in dict.fromkeys(record.task.kind for record in records):
        mine = [record for record in records if record.task.kind == kind]
        lines.append(f"{kind:<18}{figures(mine).line()}")
    lines += ["", f"{'all':<18}{figures(records).line()}"]
    tools = dict.fromkeys(tool for record in records for tool in record.judged)
    lines += [f"{tool:<18}{figures(records, tool).line()}" for tool in tools if tool != LATDIAG]
    lines += ["", "the worst (stated/true in %, ! where the interval excludes the truth):"]
    ranked = sorted(records, key=lambda r: (-_badness(r.judged[LATDIAG]), r.task.name))
    lines += [row_line(record) for record in ranked[:10]]
    cpu = sum(record.cpu_s for record in records)
    healthy = sum(record.book.healthy is True for record in records)
    lines.append(
        f"\n{len(records)} worlds, {healthy} of them healthy, {cpu:.0f} CPU s,"
        f" {cpu / max(len(records), 1):.2f} each"
    )
    return "\n".join(lines)


def _badness(one: Judged) -> float:
    return one.worst + (2.0 if one.mark == "wrong" else 1.0 if one.mark == "alarm" else 0.0)
