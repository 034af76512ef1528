"""A comparison of two runs, or of two sets of runs: what differs first, then how far metrics and
parts lie apart.

It says more time or less, and whether an interval contains 0. Whether that is good is for the
reader: nothing here judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from latdiag.diagnosis.comparison import Differences, PopulationDifference, compare
from latdiag.diagnosis.difference import Difference, SideRows
from latdiag.diagnosis.result import InvalidBecause, Result
from latdiag.diagnosis.run_facts import FactDifference, Measured, alike, differs
from latdiag.measurement.metric_rows import COMPARABLE
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.errors import UnlikeRuns, UsageFault
from latdiag.model.metrics import metric
from latdiag.model.units import GLUE, quantity
from latdiag.stats.bootstrap import LEAST_PIECES

#: Compared where nothing else is asked for.
METRICS = ("ttft", "tpot", "itl", "e2e", "output_throughput")
#: Classes that the sentence names.
_NAMED = 2
#: Of a whole that has no interval, what parts have to prove to be the answer.
_MOST = 0.5


@dataclass(frozen=True, slots=True)
class Side:
    """One side: the paths of its runs, and what they hold together."""

    runs: tuple[str, ...]
    valid: bool
    requests: int
    failed: int
    caveats: tuple[Caveat, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides. ``broken``: the rules of the self-audit that a client broke, the side in the
    text; ``alike``: facts that all runs share, by name; ``same_run``: both hold the same
    requests; ``seed``: of the draws behind the intervals."""

    a: Side
    b: Side
    broken: tuple[InvalidBecause, ...]
    differs: tuple[FactDifference, ...]
    alike: Mapping[str, object]
    same_run: bool
    seed: int
    differences: Differences

    @property
    def runs(self) -> tuple[str, ...]:
        """The paths of all runs."""
        return (*self.a.runs, *self.b.runs)

    @property
    def valid(self) -> bool:
        """Whether the figures are those of the servers, in every run."""
        return not self.broken

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """What to be careful about in the comparison; those of a side are the side's."""
        what = unlike(self.differs)
        return (caveat("LD121", what=what),) if what else ()

    @property
    def sentence(self) -> str:
        """The whole, and which classes of it lie apart for certain."""
        if self.same_run:
            return "The same run on both sides: every difference is 0 by construction."
        mean = self.differences.of("mean")
        if mean is None:
            return "No answer: on one side, no request's time could be broken down."
        return _sentence(mean)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the intervals do not hold."""
        if self.same_run:
            return ()
        runs = {"A": len(self.a.runs), "B": len(self.b.runs)}
        return tuple(_notes(runs, self.differences))

    def to_json(self) -> dict[str, object]:
        """As it stands in ``--json``, below ``compared``."""
        return {
            "a": self.a,
            "b": self.b,
            "differs": self.differs,
            "alike": self.alike,
            "same_run": self.same_run,
            "seed": self.seed,
            **self.differences.to_json(),
            "sentence": self.sentence,
            "notes": self.notes,
        }

    def result(self) -> Result:
        """The comparison as what ``compare`` says."""
        return Result(
            verb="compare",
            run=self.runs[0],
            runs=self.runs,
            invalid_because=self.broken,
            caveats=self.caveats,
            compared=self,
        )


def unlike(facts: Sequence[FactDifference]) -> str | None:
    """What is unlike in the workloads, in words; None where they are alike."""
    words = [f"{f.what} {_value(f.a)} against {_value(f.b)}" for f in facts if f.unlike]
    return "; ".join(words) or None


def refuse_unlike(a: Sequence[Measured], b: Sequence[Measured]) -> None:
    """UnlikeRuns where the sides are not the same workload."""
    if what := unlike(differs(a, b)):
        raise UnlikeRuns(
            f"A and B are different workloads: {what}",
            "compare runs that differ in one thing only, or add --force to compare them anyway",
        )


def metrics_of(names: Sequence[str]) -> tuple[str, ...]:
    """Each metric once, ``METRICS`` for none. UsageFault for one that there is not, or that has
    no rows."""
    for name in names:
        if metric(name).name not in COMPARABLE:
            raise UsageFault(f"{name} cannot be compared", f"choose from {', '.join(COMPARABLE)}")
    return tuple(dict.fromkeys(names)) or METRICS


def compared(
    a: Sequence[Measured], b: Sequence[Measured], metrics: Sequence[str], seed: int
) -> Comparison:
    """``metrics`` of the runs of each side, and the components of both."""
    rows = SideRows(run.rows for run in a), SideRows(run.rows for run in b)
    return Comparison(
        a=_side(a),
        b=_side(b),
        broken=tuple(
            replace(rule, text=f"{name}: {rule.text}")
            for name, side in (("A", a), ("B", b))
            for run in side
            for rule in run.broken
        ),
        differs=tuple(differs(a, b)),
        alike=alike(a, b),
        same_run=rows[0].identities == rows[1].identities,
        seed=seed,
        differences=compare(*rows, metrics, seed),
    )


def _side(runs: Sequence[Measured]) -> Side:
    caveats: dict[str, Caveat] = {}
    for run in runs:
        for each in run.caveats:
            caveats.setdefault(each.text, each)
    return Side(
        runs=tuple(run.path for run in runs),
        valid=not any(run.broken for run in runs),
        requests=sum(run.rows.rows.requests for run in runs),
        failed=sum(run.rows.rows.failed for run in runs),
        caveats=tuple(sorted(caveats.values(), key=lambda each: (each.code, each.text))),
    )


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return " / ".join(map(_value, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(float(f"{value:.4g}"))
    return "none" if value is None else str(value)


# ---------------------------------------------------------------------- in words
def _sentence(mean: PopulationDifference) -> str:
    """The answer, then a colon, then the figures that decide it."""
    whole = mean.whole.difference
    if whole.value is None:
        return f"No answer: {whole.refused}."
    a, b = (_plain(side.amount.ms) for side in (mean.whole.a, mean.whole.b))
    sides = f"{_interval(whole)} end to end (mean of a request: A {a}, B {b})"
    clear = [each for each in mean.classes if each.difference.contains_zero is False]
    clear.sort(key=lambda each: -abs(each.difference.value or 0.0))
    words = "; ".join(
        f"{'+'.join(each.members)} {_interval(each.difference)}" for each in clear[:_NAMED]
    )
    if whole.contains_zero is None:
        why = (whole.lacking or "").removeprefix("no interval; ")
        why = f"{why[0].upper()}{why[1:]}."
        proven = sum(each.difference.value or 0.0 for each in clear)
        if whole.value and proven / whole.value > _MOST:
            return (
                f"Parts changed beyond noise: {words}. No interval for the whole: {sides}. {why}"
            )
        return f"No interval, so this may be noise: {sides}. {why}"
    if whole.contains_zero:
        text = f"No difference beyond noise: {sides}."
    else:
        text = f"B takes {more(whole.value, 'ms')} than A: {sides}."
    return f"{text} Parts that changed beyond noise: {words}." if words else text


def _interval(apart: Difference) -> str:
    """``+14.5 ms, 95 % interval -19.6 to +48.7``."""
    text = signed(apart.value or 0.0, "ms")
    if apart.lo is None or apart.hi is None:
        return text
    lo, hi = (signed(end, "ms").rpartition(" ")[0] for end in (apart.lo, apart.hi))
    return f"{text}, 95 % interval {lo} to {hi}"


def signed(value: float, unit: str) -> str:
    """``+14.5 ms``; 0 has no sign."""
    text = quantity(value, unit).replace(GLUE, " ")
    return f"+{text}" if value > 0 else text


def _plain(value: float) -> str:
    return quantity(value, "ms").replace(GLUE, " ")


def more(value: float, unit: str) -> str:
    """``12.3 ms more``, ``4.00 tok/s less``, ``as much``."""
    if value == 0.0:
        return "as much"
    text = quantity(abs(value), unit).replace(GLUE, " ")
    return f"{text} {'more' if value > 0 else 'less'}"


def _notes(runs: Mapping[str, int], differences: Differences) -> Iterator[str]:
    bounded = [zero for each in differences if (zero := each.contains_zero) is not None]
    few = [name for name, n in runs.items() if n < LEAST_PIECES]
    if few and bounded:
        yield (
            f"Compare {LEAST_PIECES} or more runs of each side: {' and '.join(few)}"
            f" {'has' if len(few) == 1 else 'have'} fewer than {LEAST_PIECES} runs, so the"
            " intervals do not include what changes from run to run (a restart, a drift)."
        )
    if len(bounded) > 1:
        apart = sum(not zero for zero in bounded)
        chance = len(bounded) / 20
        yield (
            f"{apart} of {len(bounded)} intervals exclude 0; if nothing differed, chance alone"
            f" would make about {chance:.2g} of them exclude it."
        )
