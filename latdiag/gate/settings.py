"""What a user may set: ``latdiag.toml`` ([gate]) or ``pyproject.toml`` ([tool.latdiag.gate]).

::

    [gate]
    budget = "4m"                # the only size: pairs and blocks follow from it
    min_effect = "3%"            # must be proved worse than this to fail
    on_inconclusive = "warn"     # pass | warn | fail
    [[gate.check]]
    metric = "ttft"
    stat = ["shift", "p95"]
    level = "warn"               # error | warn | off
    floor = "5ms"
    where = { prompt_class = "rag" }

Of the verbs that judge saved runs::

    [gate]
    slo = ["ttft.p95<800ms", "mlperf:llama3.1-8b"]    # absolute limits
    [gate.baseline]
    store = "git:latdiag-baselines"    # or a path, or s3://bucket/folder
    keep = 50                          # runs of one kind that are kept
    facts = { gpu = "H200" }           # what a run cannot know of itself
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, cast, get_args

from latdiag.gate.checks import METRICS, STATISTICS, Check, Level, default_checks
from latdiag.gate.table import Table, table_of
from latdiag.model.errors import UsageFault
from latdiag.model.units import NS_PER_S

OnInconclusive = Literal["pass", "warn", "fail"]
#: What two arms may differ in where a user says so: often it is what the gate is to judge.
MAY_DIFFER = ("model", "tokenizer", "engine", "engine_version", "flags", "gpu")
_MOST_CHECKS = 120
#: Flips by checks: what a verdict may hold in memory at once is some 100 MB.
_MOST_DRAWS = 4_000_000
_CHECK_KEYS = ("metric", "stat", "level", "min_effect", "tolerance", "floor", "where")


@dataclass(frozen=True, slots=True)
class Settings:
    """``alpha``: the chance of a false REGRESSED of the whole gate, all looks and checks together;
    ``safe_alpha``: that of OK for a check that lies at its tolerance. ``fixed``: one look, at the
    end. ``may_differ``: facts of the arms whose difference does not void the run."""

    alpha: float = 0.005
    safe_alpha: float = 0.05
    min_effect: float = 0.03
    tolerance: float = 0.10
    on_inconclusive: OnInconclusive = "warn"
    budget_ns: int = 240 * NS_PER_S
    seed: int = 1
    flips: int = 9_999
    looks: int = 4
    fixed: bool = False
    may_differ: tuple[str, ...] = ()
    checks: tuple[Check, ...] = default_checks(0.03, 0.10)


_RENAMED = {"budget_ns": "budget", "checks": "check"}
#: Of the same table, and read by ``read_saved``: no verdict on two arms depends on them.
_SAVED = ("slo", "baseline")
_KEYS = (*(_RENAMED.get(each.name, each.name) for each in fields(Settings)), *_SAVED)


@dataclass(frozen=True, slots=True)
class Saved:
    """For verbs that judge saved runs: ``limits``, absolute ones; the ``store`` of recorded runs,
    "" for none, how many of a kind to ``keep``, and ``facts`` of the run that it cannot know."""

    limits: tuple[str, ...] = ()
    store: str = ""
    keep: int = 50
    facts: tuple[tuple[str, str], ...] = ()


def read_settings(folder: Path, seed: int | None = None) -> Settings:
    """Of ``latdiag.toml`` in ``folder`` if it has a [gate], else of its ``pyproject.toml``, else
    the defaults. ``seed``: where they name none. UsageFault for what cannot be meant, LocalFault
    for an unreadable file."""
    table = _table(folder)
    settings = settings_of(table) if table is not None else Settings()
    if seed is None or (table is not None and "seed" in table):
        return settings
    return replace(settings, seed=seed)


def read_saved(folder: Path) -> Saved:
    """The same for saved runs."""
    table = _table(folder)
    if table is None:
        return Saved()
    usual = Saved()
    table.only(_KEYS)
    baseline = table.table("baseline")
    baseline.only(("store", "keep", "facts"))
    return Saved(
        table.lines("slo", 100),
        baseline.text("store", usual.store),
        baseline.whole("keep", usual.keep, 10, 1_000),
        baseline.texts("facts", 'gpu = "H200"'),
    )


def _table(folder: Path) -> Table | None:
    own = table_of(folder / "latdiag.toml", ("gate",))
    return own or table_of(folder / "pyproject.toml", ("tool", "latdiag", "gate"))


def settings_of(table: Table) -> Settings:
    """Settings with every check by its name, those of the table in place of the default ones."""
    table.only(_KEYS)
    usual = Settings()
    min_effect = table.number("min_effect", usual.min_effect, 0.0, 1.0)
    tolerance = table.number("tolerance", usual.tolerance, 0.001, 10.0)
    word = table.word("on_inconclusive", usual.on_inconclusive, get_args(OnInconclusive))
    checks = {check.name: check for check in default_checks(min_effect, tolerance)}
    for entry in table.tables("check", _MOST_CHECKS):
        checks |= {check.name: check for check in _checks(entry, checks)}
    _refuse_undecidable(checks, table.place)
    flips = table.whole("flips", usual.flips, 999, 99_999)
    if len(checks) > _MOST_CHECKS or flips * len(checks) > _MOST_DRAWS:
        raise UsageFault(
            f"{table.place} asks for {len(checks)} checks by {flips} flips",
            f"at most {_MOST_CHECKS} checks, and {_MOST_DRAWS:,} of both multiplied, are possible",
        )
    return Settings(
        alpha=table.number("alpha", usual.alpha, 1e-6, 0.2),
        safe_alpha=table.number("safe_alpha", usual.safe_alpha, 1e-4, 0.2),
        min_effect=min_effect,
        tolerance=tolerance,
        on_inconclusive=cast(OnInconclusive, word),
        budget_ns=table.duration("budget", usual.budget_ns),
        seed=table.whole("seed", usual.seed, 0, 2**63 - 1),
        flips=flips,
        looks=table.whole("looks", usual.looks, 1, 10),
        fixed=table.truth("fixed", usual.fixed),
        may_differ=table.words("may_differ", (), MAY_DIFFER),
        checks=tuple(checks.values()),
    )


def _checks(entry: Table, usual: dict[str, Check]) -> Iterator[Check]:
    """One check for each statistic of an entry; what it leaves out is that of the default one."""
    entry.only(_CHECK_KEYS)
    if "metric" not in entry:
        raise UsageFault(f"{entry.place} names no metric", f"metrics are {', '.join(METRICS)}")
    metric = entry.word("metric", "", METRICS)
    for statistic in entry.words("stat", ("shift", "p95"), STATISTICS):
        other = usual[f"{metric}.{statistic}"]
        yield Check(
            metric,
            statistic,
            cast(Level, entry.word("level", "error", get_args(Level))),
            entry.number("min_effect", other.min_effect, 0.0, 1.0),
            entry.number("tolerance", other.tolerance, 0.001, 10.0),
            entry.duration("floor", other.floor_ns),
            entry.texts("where", 'prompt_class = "rag"'),
        )


def _refuse_undecidable(checks: dict[str, Check], place: str) -> None:
    for check in checks.values():
        if check.statistic != "exceed2x" and check.min_effect >= check.tolerance:
            raise UsageFault(
                f"{check.name} in {place} has min_effect {check.min_effect:.1%} and tolerance"
                f" {check.tolerance:.1%}: nothing could be decided between them",
                "make tolerance larger than min_effect",
            )
    if not any(check.level == "error" for check in checks.values()):
        raise UsageFault(f"no check in {place} has level error", "let at least one check vote")


def table_form(settings: Settings) -> dict[str, object]:
    """``settings`` as a table that ``settings_of`` reads back to the same: how gate.json keeps
    them, so that one reader checks both."""
    form: dict[str, object] = {
        each.name: getattr(settings, each.name)
        for each in fields(settings)
        if each.name not in _RENAMED
    }
    form["may_differ"] = list(settings.may_differ)
    form["budget"] = f"{settings.budget_ns}ns"
    form["check"] = [
        {
            "metric": check.metric,
            "stat": check.statistic,
            "level": check.level,
            "min_effect": check.min_effect,
            "tolerance": check.tolerance,
            "floor": f"{check.floor_ns}ns",
            "where": dict(check.where),
        }
        for check in settings.checks
    ]
    return form
