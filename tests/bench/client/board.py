"""The table: one row a setting and client, medians of the valid runs, and the goals below it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from .harness import Outcome
from .score import Scores, Spread

READER = "latdiag-read"
MB = 1e6

Figure = Callable[[Outcome], float | None]


def scored(pick: Callable[[Scores], float | Spread | None], part: str = "") -> Figure:
    """A figure of the scores; ``part`` names a field of a Spread."""

    def figure(outcome: Outcome) -> float | None:
        value = pick(outcome.scores) if outcome.scores else None
        if isinstance(value, Spread):
            return float(getattr(value, part))
        return value

    return figure


def cpu_us_per_chunk(role: str = "") -> Figure:
    """CPU of that role, or of the whole tree, over the chunks that were scored."""

    def figure(outcome: Outcome) -> float | None:
        if outcome.scores is None or not outcome.scores.chunks:
            return None
        cpu = outcome.usage.role_cpu_s(role) if role else outcome.usage.cpu_s
        return cpu * 1e6 / outcome.scores.chunks or None

    return figure


FIGURES: dict[str, tuple[Figure, str]] = {
    "got/s": (scored(lambda s: s.got_per_s), "8.0f"),
    "sent/s": (scored(lambda s: s.sent_per_s), "8.0f"),
    "ITL p50": (scored(lambda s: s.itl, "p50"), "8.1f"),
    "ITL p99": (scored(lambda s: s.itl, "p99"), "9.1f"),
    "ITL max": (scored(lambda s: s.itl, "max"), "9.0f"),
    "raw p99": (scored(lambda s: s.itl_raw, "p99"), "9.1f"),
    "cens %": (scored(lambda s: 100 * s.censored_share), "7.3f"),
    "late %": (scored(lambda s: 100 * s.censored_after_ramp), "7.3f"),
    "TTFT p50": (scored(lambda s: s.ttft, "p50"), "8.1f"),
    "TTFT p99": (scored(lambda s: s.ttft, "p99"), "9.1f"),
    "user p50": (scored(lambda s: s.ttft_user, "p50"), "9.0f"),
    "user p99": (scored(lambda s: s.ttft_user, "p99"), "9.0f"),
    "TPOT p99": (scored(lambda s: s.tpot, "p99"), "8.2f"),
    "E2E p99": (scored(lambda s: s.e2e, "p99"), "8.0f"),
    "rd us/ch": (cpu_us_per_chunk(READER), "8.1f"),
    "all us/ch": (cpu_us_per_chunk(), "9.1f"),
    "rd MB": (lambda o: o.usage.role_pss_peak(READER) / MB or None, "6.1f"),
    "tree MB": (lambda o: o.usage.tree_pss_peak / MB or None, "7.1f"),
    "first s": (lambda o: o.first_request_s, "7.2f"),
}

CLIENTS = (
    "Clients: ordinary priority, but for latdiag's\nreaders, which by default take real-time"
    " priority where the server is near and they may (root);\nthe rows 'ordinary' are without."
)
LEGEND = """\
Errors in us, client against truth, absolute values; ITL, TTFT and TPOT without what the client
marks as censored, "raw" with it; "late %" is the censored share after the ramp. TTFT: from the
stamp at which the request left; "user" from the client's own start (a peer's only one), its
preparation and connect included. us/ch: CPU a chunk of the readers and of all processes, start-up
included. MB: PSS peaks. first s: from the process's start to its first request at the server."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure must be. ``value`` is None where its rows did not run."""

    text: str
    limit: float
    value: float | None
    at_least: bool = False

    @property
    def met(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def line(self) -> str:
        sign = ">=" if self.at_least else "<="
        found = "not measured" if self.value is None else f"{self.value:10.3f}"
        return f"{'met   ' if self.met else 'MISSED'} {self.text} {sign} {self.limit:g}: {found}"


@dataclass(slots=True)
class Board:
    """Outcomes by (setting, client), in the order in which they came."""

    rows: dict[tuple[str, str], list[Outcome]] = field(default_factory=dict)

    def add(self, setting: str, client: str, outcome: Outcome) -> None:
        self.rows.setdefault((setting, client), []).append(outcome)

    def valid(self, setting: str, client: str) -> list[Outcome]:
        return [o for o in self.rows.get((setting, client), []) if not o.void]

    def median(self, setting: str, client: str, figure: Figure) -> float | None:
        """Median over the valid runs that have this figure."""
        values = [v for o in self.valid(setting, client) if (v := figure(o)) is not None]
        return median(values) if values else None

    def named(self, setting: str, client: str, name: str) -> float | None:
        return self.median(setting, client, FIGURES[name][0])

    def marginal_us(self, small: str, large: str, client: str, role: str = "") -> float | None:
        """CPU a chunk that grows with the load: start-up and idle cost cancel out."""

        def total(o: Outcome) -> float:
            return o.usage.role_cpu_s(role) if role else o.usage.cpu_s

        def chunks(o: Outcome) -> float | None:
            return o.scores.chunks if o.scores else None

        ends = [self.median(s, client, f) for s in (small, large) for f in (total, chunks)]
        if None in ends:
            return None
        cpu_small, n_small, cpu_large, n_large = (float(e or 0.0) for e in ends)
        return (cpu_large - cpu_small) * 1e6 / (n_large - n_small)

    def best_peer(self, setting: str, name: str) -> tuple[str, float] | None:
        """(peer, its figure), the smallest of all peers that ran this setting."""
        peers = [c for s, c in self.rows if s == setting and c != "latdiag"]
        found = [(v, c) for c in peers if (v := self.named(setting, c, name)) is not None]
        return (min(found)[1], min(found)[0]) if found else None

    def table(self) -> str:
        width = max([len(s) for s, _ in self.rows] + [7])
        head = f"{'setting':<{width}} {'client':<10} runs void "
        head += " ".join(f"{name:>{_width(name, form)}}" for name, (_, form) in FIGURES.items())
        lines = [head, "-" * len(head)]
        for (setting, client), outcomes in self.rows.items():
            void = sum(bool(o.void) for o in outcomes)
            cells = [f"{setting:<{width}} {client:<10} {len(outcomes):>4} {void:>4}"]
            for name, (figure, form) in FIGURES.items():
                value = self.median(setting, client, figure)
                cells.append(_cell(value, form, _width(name, form)))
            lines.append(" ".join(cells))
            lines += [f"{'':<{width}}   VOID: {'; '.join(o.void)}" for o in outcomes if o.void]
            lines += [f"{'':<{width}}   {n}" for n in dict.fromkeys(_remarks(outcomes))]
        conditions = {o.conditions for outcomes in self.rows.values() for o in outcomes}
        return "\n".join([*lines, LEGEND, f"Server: {', '.join(sorted(conditions))}. {CLIENTS}"])

    def store(self, path: Path) -> None:
        """Every outcome as JSON, for whoever wants other figures."""
        listed = [
            {"setting": s, "client": c, **asdict(o)}
            for (s, c), os in self.rows.items()
            for o in os
        ]
        path.write_text(json.dumps(listed, indent=1))


def _width(name: str, form: str) -> int:
    return max(len(name), int(form.partition(".")[0]))


def _cell(value: float | None, form: str, width: int) -> str:
    return f"{'-' if value is None else format(value, form).strip():>{width}}"


def _remarks(outcomes: list[Outcome]) -> list[str]:
    """What a reader of the row must know."""
    found = []
    for outcome in outcomes:
        found += outcome.notes
        if outcome.exit_code:
            found.append(f"exit code {outcome.exit_code}")
        scores = outcome.scores
        if scores and (scores.unmatched or scores.duplicates or scores.length_mismatches):
            found.append(
                f"{scores.unmatched} unmatched, {scores.duplicates} duplicates, "
                f"{scores.length_mismatches} of another length"
            )
    return found
