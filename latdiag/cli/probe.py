"""``latdiag probe``: designed requests, stage by stage, then where the time went."""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from latdiag.cli.gather import gather_options
from latdiag.cli.options import headers_of, lengths_in_turn, output_options, target_options
from latdiag.model.errors import TargetFault, UsageFault

if TYPE_CHECKING:
    from latdiag.cli.execute import Begun
    from latdiag.cli.gather import Gather
    from latdiag.diagnosis.result import Result
    from latdiag.load.processes.counters import Counts
    from latdiag.load.processes.run import LoadEnd
    from latdiag.load.work.prepare import Prepared, Wish
    from latdiag.measurement.stages import Limits, PathStage, Stage
    from latdiag.probe.planner import Planner
    from latdiag.report.progress import Progress

#: Share of failures at which it stops, once there are so many: a probe must not lean on a server
#: that is down.
_GIVE_UP, _ENOUGH = 0.2, 10
#: Fields of a body that the design lays down for each request.
_DESIGNED = frozenset({"max_tokens", "max_completion_tokens", "min_tokens"})


@click.command(name="probe", context_settings={"max_content_width": 79})
@click.argument("url")
@click.option(
    "--budget",
    type=click.Choice(["quick", "standard", "deep"]),
    default="quick",
    show_default=True,
    help="How much to spend: a minute, some minutes, half an hour.",
)
@click.option(
    "--max-tokens-total",
    type=click.IntRange(1),
    metavar="N",
    help="Never ask for more tokens in all. [default: 200,000, 1,000,000 or 5,000,000]",
)
@click.option("--rate", help="Your workload: requests/s; 10 or poisson:10.")
@click.option(
    "--concurrency", type=click.IntRange(1, 100_000), help="Or a closed loop of streams."
)
@click.option("--isl", help="Input tokens of your workload; or a distribution.")
@click.option("--osl", help="Output tokens of your workload; or a distribution.")
@click.option("--seed", type=int, help="Of prompts, lengths and arrivals; else a new one.")
@target_options
@gather_options
@output_options
def probe(url: str, **given: Any) -> int:
    """Find out where the latency of URL goes, from outside alone.

    Requests of known lengths, alone and together, tell what each part of the server costs; your
    workload (else a modest one) is then explained with that.

    \b
    latdiag probe http://localhost:8000
    latdiag probe https://host/v1 --api-key-env KEY --model NAME
    latdiag probe http://localhost:8000 --budget standard --rate 4 --isl lognormal:900,0.7
    """
    from latdiag.cli.execute import show, target_of
    from latdiag.cli.gather import gatherer, spans_to
    from latdiag.probe.planner import Planner

    limits, gather = _limits(given), gatherer(given)
    with target_of(url, spans_to(given, url)) as place:
        wish = _wish(place, given, limits.seed)
        _say_cost(limits)
        with Planner() as planner:
            result, code = _probe(planner, wish, limits, gather, given)
    show(result, given["as_json"])
    return code


def _limits(given: dict[str, Any]) -> Limits:
    """What may be spent, and the user's workload; UsageFault for what cannot be."""
    from latdiag.load.work.schedule import OpenLoop
    from latdiag.measurement.stages import Limits
    from latdiag.probe.budget import MAX_TOKENS
    from latdiag.probe.cost import least_tokens
    from latdiag.probe.offered import LEAST

    rate = None
    if given["rate"] is not None:
        if given["concurrency"] is not None:
            raise UsageFault(
                "--rate is an open loop, --concurrency a closed one", "give one of the two"
            )
        parsed = OpenLoop.parse(given["rate"])
        if parsed.kind != "poisson":
            raise UsageFault("a probe sends at random instants", f"give --rate {parsed.rate:g}")
        rate = parsed.rate
    seed = secrets.randbits(32) if given["seed"] is None else given["seed"]
    limits = Limits(
        budget=given["budget"],
        max_tokens=given["max_tokens_total"] or MAX_TOKENS[given["budget"]],
        max_model_len=None,
        seed=seed,
        isl=lengths_in_turn(given["isl"], seed, "isl"),
        osl=lengths_in_turn(given["osl"], seed, "osl"),
        rate=rate,
        concurrency=given["concurrency"],
    )
    least = least_tokens(limits)
    if least > limits.max_tokens:
        raise UsageFault(
            f"{LEAST} requests of this workload are {least:,} tokens, more than may be spent"
            f" ({limits.max_tokens:,})",
            f"allow for the designed stages too: --max-tokens-total {2 * least}",
        )
    return limits


def _wish(url: str, given: dict[str, Any], seed: int) -> Wish:
    from latdiag.load.work.prepare import Wish
    from latdiag.load.work.workload import parse_overlay

    overlay = parse_overlay(given["body_json"]) if given["body_json"] else None
    fixed = sorted(_DESIGNED & (overlay or {}).keys())
    if fixed:
        raise UsageFault(
            f"--body-json sets {fixed[0]}, and a probe asks for lengths of its own",
            "leave it out; --osl is for your own workload",
        )
    return Wish(
        url=url,
        path=given["path"],
        model=given["model"],
        seed=seed,
        give_up=_GIVE_UP,
        designed=True,
        overlay=overlay,
        headers=headers_of(given["api_key_env"], given["plain"], given["header_env"]),
        verify=not given["insecure"],
        timeout_ns=given["timeout"],
        priority=given["priority"],
    )


def _say_cost(limits: Limits) -> None:
    """What the probe may spend, before it has spent anything."""
    from latdiag.probe.cost import cost

    most = cost(limits)
    click.echo(
        f"At most {most.requests:,} requests and {most.tokens:,} tokens in about"
        f" {most.seconds:.0f} s, and a few more to find out what the target takes.",
        err=True,
    )


def _probe(
    planner: Planner, wish: Wish, limits: Limits, gather: Gather, given: dict[str, Any]
) -> tuple[Result, int]:
    """Execute the design into a run; (the result, the exit code)."""
    from latdiag.cli.execute import begin, conclude, hearing, of_run, with_fault
    from latdiag.load.processes.run import stamps_kept_on
    from latdiag.report.progress import Progress

    begun = begin("probe", wish, given["out"], lambda prepared: _plan(limits, prepared, given))
    limits = replace(limits, max_model_len=begun.prepared.found.max_model_len)
    probing = _Probing(begun, limits)
    shown, stamped = Progress(None, None, quiet=given["quiet"]), begun.prepared.plan
    with (
        of_run(begun.path),
        hearing(gather, begun.path) as heard,
        shown as progress,
        stamps_kept_on(stamped),
        _signals_noted(probing),
    ):
        planner.begin(begun.path, limits)
        end = probing.through(planner, progress)
        heard.stopped = end.signal
    end.signal = end.signal or heard.stopped
    if probing.useless and not end.signal and not end.faults:
        raise _useless(begun)
    return with_fault(conclude("probe", begun.path, end, probing.cut), heard)


def _useless(begun: Begun) -> TargetFault:
    """The fault of a target that answered no request for tokens, with the first one's words."""
    from latdiag.cli.execute import useless
    from latdiag.load.work.path import GET, REFUSED
    from latdiag.model.text import without_credentials
    from latdiag.store.run import Run

    columns = ["scenario", "outcome", "error"]
    found: list[str] = []
    for batch in Run.open(begun.path).batches(columns):
        texts = zip(*(batch.texts[name].tolist() for name in columns), strict=True)
        found += [error or outcome for kind, outcome, error in texts if kind not in (GET, REFUSED)]
    url = without_credentials(begun.prepared.plan.target.url)
    return useless(url, len(found), found[0], begun.path)


def _plan(limits: Limits, prepared: Prepared, given: dict[str, Any]) -> dict[str, Any]:
    """What run.json says otherwise than of a load: the stages are not known in advance."""
    unknown = (
        "requests",
        "duration_ns",
        "warmup",
        "rate",
        "arrivals",
        "concurrency",
        "isl",
        "osl",
    )
    return {
        **dict.fromkeys(unknown),
        "designed": True,
        "budget": limits.budget,
        "limits": {
            "max_tokens": limits.max_tokens,
            "max_model_len": prepared.found.max_model_len,
            "isl": given["isl"],
            "osl": given["osl"],
            "rate": limits.rate,
            "concurrency": limits.concurrency,
        },
    }


@dataclass(slots=True)
class _Probing:
    """A probe under way. ``cut``: why it ended before its design did."""

    begun: Begun
    limits: Limits
    signalled: int = 0
    cut: str | None = None
    _forwarded: bool = False
    _spent: int = 0
    #: of the stage under way; of the stages before
    _counts: Counts | None = None
    _done: int = 0
    _failed: int = 0
    #: stages that asked for tokens, and requests that got them
    _asking: int = 0
    _served: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def through(self, planner: Planner, progress: Progress) -> LoadEnd:
        """Stage after stage, until the design or something else ends it; how the last ended."""
        from latdiag.load.processes.run import LoadEnd

        end = LoadEnd()
        for place in itertools.count():
            step = planner.step(lambda: self.signalled > 0)
            if step is None or step.stage is None or not self._allowed(step.stage, step.refused):
                break
            end = self._execute(step.stage, place, progress)
            self._count(step.stage)
            if end.signal or end.faults or self._hopeless(end):
                break
        end.signal = end.signal or self.signalled
        if end.signal:
            self.cut = f"stopped by {signal.Signals(end.signal).name}"
        return end

    @property
    def useless(self) -> bool:
        """Whether tokens were asked for and none came."""
        return self._asking > 0 and not self._served

    def _allowed(self, stage: Stage | PathStage, refused: int) -> bool:
        """Whether a stage may begin: the last guard, whatever the design says."""
        tokens = getattr(stage, "tokens", 0)
        if refused:
            self.cut = f"the server refused {refused} of the requests as too many, so it stopped"
        elif self._spent + tokens > self.limits.max_tokens:
            left = self.limits.max_tokens - self._spent
            self.cut = f"{stage.name} asks for {tokens:,} tokens, and only {left:,} are left"
        self._spent += tokens
        return self.cut is None and not self.signalled

    def _count(self, stage: Stage | PathStage) -> None:
        from latdiag.measurement.stages import PathStage

        if (counts := self._counts) is None:
            return
        self._done += counts.done
        self._failed += counts.failed
        if not isinstance(stage, PathStage):
            self._asking += 1
            self._served += counts.done - counts.failed

    def _hopeless(self, end: LoadEnd) -> bool:
        """Whether too many requests failed, in the last stage or in all."""
        from latdiag.cli.execute import hopeless

        failing = self._done >= _ENOUGH and self._failed > _GIVE_UP * self._done
        if end.gave_up or failing:
            self.cut = hopeless(self.begun.wish)
        return self.cut is not None

    def _execute(self, stage: Stage | PathStage, place: int, progress: Progress) -> LoadEnd:
        from latdiag.load.processes.run import run_load
        from latdiag.measurement.stages import PathStage

        prepared, path, tag = self.begun.prepared, self.begun.path, self.begun.tag

        def told(counts: Counts) -> None:
            self._counts = counts
            progress.update(*counts)
            if self.signalled and not self._forwarded:
                # It came in the moment before the load took the signals over.
                self._forwarded = True
                signal.raise_signal(self.signalled)

        self._counts = None
        if isinstance(stage, PathStage):
            return self._execute_path(stage, place, progress, told)
        progress.begin(f"{stage.name}: {stage.why}", len(stage.shots))
        segment = f"segment-{stage.segment}" if stage.segment else ""
        plan = prepared.stage_plan(
            f"{stage.name.lower()}-{place}-", stage.slots, segment, stage.dither_ns
        )
        return run_load(
            plan, prepared.shots(stage.name, stage.shots, self._numbers), path, tag, told
        )

    def _execute_path(
        self, stage: PathStage, place: int, progress: Progress, told: Callable[[Counts], None]
    ) -> LoadEnd:
        from latdiag.load.processes.run import run_load
        from latdiag.load.work.path import path_work

        prepared, path, tag = self.begun.prepared, self.begun.path, self.begun.tag
        work = path_work(
            stage.name,
            stage.gets,
            stage.fresh,
            stage.refused,
            prepared.workload.refusable,
            self._numbers,
            random.Random(self.limits.seed),
        )
        progress.begin(f"{stage.name}: {stage.why}", len(work))
        plan = prepared.path_plan(f"{stage.name.lower()}-path-{place}-")
        return run_load(plan, iter(work), path, tag, told)


@contextlib.contextmanager
def _signals_noted(probing: _Probing) -> Iterator[None]:
    """SIGINT and SIGTERM end the probe after what it does now; a load has handlers of its own."""

    def note(number: int, _frame: object) -> None:
        probing.signalled = probing.signalled or number

    before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
