"""From what the user asked for to a plan and the work of a load, by way of the preflight."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from latdiag.load.dialects import dialect_of_path
from latdiag.load.plan import LoadPlan, Target, Work
from latdiag.load.redact import secrets_of
from latdiag.load.trust import USUAL, Trust
from latdiag.load.work.answering import CALIBRATION_WORDS, first_that_answers
from latdiag.load.work.lengths import Lengths
from latdiag.load.work.negotiate import FEW, Agreed, Answer
from latdiag.load.work.place import locate, siblings
from latdiag.load.work.preflight import Found, Preflight
from latdiag.load.work.promptfile import read_prompts
from latdiag.load.work.prompts import calibrate, tokenizer_words
from latdiag.load.work.schedule import ClosedLoop, OpenLoop
from latdiag.load.work.workload import Workload
from latdiag.model.errors import UsageFault
from latdiag.model.records import Outcome
from latdiag.model.secrets import concealed_values
from latdiag.model.units import NS_PER_S
from latdiag.runtime.wake import run_at_once
from latdiag.stacks.catalogue import reply_fields
from latdiag.stacks.signal import ReplyFields

#: Streams that one reader follows with room to spare; more readers only where there are cores.
STREAMS_PER_READER = 400
_TEXT_TOLERANCE = 0.02
_MAX_WORKERS = 64
#: Of a list of models, how many are asked until one answers.
_PICKS = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """A load as asked for. Times in ns; None means: not said."""

    url: str
    path: str | None = None
    model: str | None = None
    isl: Lengths = field(default_factory=lambda: Lengths.parse("128"))
    osl: Lengths | None = field(default_factory=lambda: Lengths.parse("64"))
    seed: int = 0
    requests: int | None = None
    duration_ns: int | None = None
    warmup: int = 0
    rate: str | None = None
    concurrency: int | None = None
    ramp_ns: int = 0
    overlay: Mapping[str, object] | None = field(default=None, repr=False)
    prompts: Path | None = None
    shared_prefix: int = 0
    tokenizer: Path | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    #: the variable that the API key among them was taken from
    api_key_env: str | None = None
    trust: Trust = USUAL
    timeout_ns: int = 120 * NS_PER_S
    reuse: bool = True
    workers: int | None = None
    kernel_stamps: bool = True
    #: of the readers: ordinary, realtime, or auto (realtime where this machine is the target)
    priority: str = "auto"
    #: stop when more than this share of the requests failed; None: never
    give_up: float | None = None
    #: a design lays down the requests, and needs to know more of the target
    designed: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a load needs, and what the preflight learned on the way."""

    plan: LoadPlan
    workload: Workload
    found: Found
    closed: bool
    rate: float | None
    isl_source: str
    #: prompts in the file, if there is one
    prompts: int | None
    stop_after: int | None

    def work(self, wish: Wish) -> Iterator[Work]:
        """The requests in order: the warm-up first, then what is measured."""
        numbers: Iterator[int] = itertools.count()
        if self.stop_after is not None:
            numbers = iter(range(self.stop_after + wish.warmup))
        offsets: Iterator[int] = itertools.repeat(-1)
        if not self.closed:
            assert wish.rate is not None
            offsets = OpenLoop.parse(wish.rate, ramp_ns=wish.ramp_ns, seed=wish.seed).offsets()
        for number, due_ns in zip(numbers, offsets, strict=False):
            if due_ns >= 0 and self.plan.stop_ns is not None and due_ns >= self.plan.stop_ns:
                return
            isl, osl = self.workload.wanted(number)
            stage = "warmup" if number < wish.warmup else "load"
            body = self.workload.body(number)
            yield Work(number, due_ns, isl or 0, osl or 0, stage, body)

    def shots(
        self, stage: str, shots: Iterable[tuple[int, int, int]], numbers: Iterator[int]
    ) -> Iterator[Work]:
        """The requests of a stage of a design, from (ISL, OSL, due offset in ns or -1) each.

        ``numbers`` makes prompts and ids unique, so it goes on from stage to stage.
        """
        for isl, osl, due_ns in sorted(shots, key=lambda shot: shot[2]):
            number = next(numbers)
            osl = max(osl, self.workload.floor)
            body = self.workload.shot(number, isl, osl)
            yield Work(number, due_ns, isl, osl, stage, body)

    def stage_plan(
        self, name: str, slots: int, scenario: str = "", dither_ns: int = 0, pause_ns: int = 0
    ) -> LoadPlan:
        """The plan of a stage that ends when its requests have. ``slots`` 0: open loop."""
        return replace(
            self.plan,
            name=name,
            slots=(0,) * slots,
            scenario=scenario,
            dither_ns=dither_ns,
            pause_ns=pause_ns,
            stop_ns=None,
            workers=_workers(None, slots),
        )

    def path_plan(self, name: str) -> LoadPlan:
        """The plan of a stage about the path: one request after the other."""
        return self.with_path(self.stage_plan(name, 1))

    def with_path(self, plan: LoadPlan) -> LoadPlan:
        """The plan, of which some requests are about the path."""
        return replace(plan, path_url=self.found.cheap_url, reuse=True)


async def prepare(wish: Wish) -> Prepared:
    """Ask the target what it is and takes, and lay down the plan. TargetFault, UsageFault."""
    _, url, dialect = locate(wish.url, wish.path)
    others = () if wish.path or dialect_of_path(wish.url) else siblings(url)
    secrets = secrets_of(wish.headers, url, concealed_values())
    target = Target(url, wish.headers, wish.trust, secrets)
    prompts = read_prompts(wish.prompts) if wish.prompts is not None else None
    words = tokenizer_words(wish.tokenizer) if wish.tokenizer is not None else None
    closed = wish.rate is None
    if not closed and wish.concurrency is not None:
        raise UsageFault(
            "--rate is an open loop, --concurrency a closed loop", "give only one of them"
        )
    # Before the first request: what is nonsense should cost nothing.
    _check_wish(wish)
    realtime = _realtime(wish.priority, url)
    rate = None if wish.rate is None else OpenLoop.parse(wish.rate, ramp_ns=wish.ramp_ns).rate
    slots = tuple(ClosedLoop(wish.concurrency or 1, wish.ramp_ns).starts()) if closed else ()
    draft = Workload(
        dialect=dialect,
        model=wish.model or "",
        isl=wish.isl,
        osl=wish.osl,
        seed=wish.seed,
        overlay=wish.overlay,
        prompts=prompts,
        shared_prefix=wish.shared_prefix,
        words=words,
    )
    fields = reply_fields()
    found, workload = await _looked_at(target, others, draft, wish, fields)
    plan = LoadPlan(
        target=found.target,
        dialect=dialect.name,
        slots=slots,
        stop_ns=wish.duration_ns,
        timeout_ns=wish.timeout_ns,
        # What was sent in time gets its whole time: else the long replies would be missing.
        drain_ns=wish.timeout_ns,
        give_up=wish.give_up,
        reuse=wish.reuse,
        workers=_workers(wish.workers, len(slots)),
        kernel_stamps=wish.kernel_stamps,
        realtime=realtime,
        reply_fields=fields,
    )
    return Prepared(
        plan,
        workload,
        found,
        closed,
        rate,
        workload.isl_source,
        len(prompts) if prompts else None,
        wish.requests,
    )


async def _looked_at(
    target: Target, others: Sequence[str], draft: Workload, wish: Wish, fields: ReplyFields
) -> tuple[Found, Workload]:
    read = draft.dialect.reader(fields)
    timeout_s = wish.timeout_ns / NS_PER_S
    preflight = Preflight(target, others, draft.dialect, read, timeout_s, wish.kernel_stamps)
    try:
        return await _negotiate(preflight, wish, draft)
    finally:
        await preflight.close()


async def _negotiate(preflight: Preflight, wish: Wish, draft: Workload) -> tuple[Found, Workload]:
    """Model, accepted extras, and how the server counts our text."""
    model, listed = wish.model, []
    named = (wish.overlay or {}).get("model")
    if isinstance(named, str) and named:  # the body's own word is what the server hears
        model = named
    if model is None:
        listed = await preflight.ask_models()
    picks = listed[:_PICKS] if model is None else [model]
    agreed, draft = await first_that_answers(preflight, draft, picks, listed)
    workload = await _fitting(preflight, draft, agreed)
    cheap_url, context = await preflight.ask_context(draft.model) if wish.designed else ("", None)
    found = Found(
        target=preflight.target,
        dialect=draft.dialect.name,
        model=draft.model,
        extras=agreed.terms.extras,
        refused_extras=agreed.refused,
        server=preflight.server,
        peer=preflight.peer,
        model_asked=bool(listed),
        models_offered=len(listed),
        cheap_url=cheap_url,
        max_model_len=context,
        passed_over=tuple(picks[: picks.index(draft.model)]),
        label=agreed.answer.label,
    )
    return found, workload


async def _fitting(preflight: Preflight, draft: Workload, agreed: Agreed) -> Workload:
    """The workload as the server takes it, its text fitted to how the server counts."""
    answer, (extras, tokens) = agreed.answer, agreed.terms
    floor = tokens if tokens and tokens > FEW and answer.outcome is Outcome.OK else 1
    workload = replace(draft, extras=extras, floor=floor)
    if workload.wants_calibration:
        workload = await _calibrated(preflight, workload, answer)
    return workload


async def _calibrated(preflight: Preflight, workload: Workload, first: Answer) -> Workload:
    """Text whose length in tokens is fitted to what the server counts; plain where it does not."""
    known = 1.0 if workload.isl_source == "tokenizer" else None
    points = []
    for number, words in enumerate(CALIBRATION_WORDS if known is None else CALIBRATION_WORDS[:1]):
        answer = first
        if number:
            answer = await preflight.send(workload.calibrating_body(words, number))
        counted = answer.isl
        if answer.outcome is not Outcome.OK or not counted:
            return workload
        points.append((words, counted))
    fitted = calibrate(points, known)
    return workload if fitted is None else replace(workload, calibration=fitted)


def _check_wish(wish: Wish) -> None:
    """UsageFault for what no server could make sense of."""
    if "stream" in (wish.overlay or {}):
        raise UsageFault(
            "--body-json sets stream", "leave it out: latdiag always asks for a stream"
        )
    choices = (wish.overlay or {}).get("n")
    if type(choices) is int and choices > 1:
        raise UsageFault(
            f"--body-json asks for {choices} choices in each reply, whose tokens come mixed:"
            " TTFT, TPOT and ITL would be those of no choice",
            f"leave n out, and give {choices} times the requests and the concurrency",
        )
    if wish.timeout_ns <= 0:
        raise UsageFault("--timeout is 0: every request would fail", "give for example 60s")
    if wish.duration_ns is not None and wish.duration_ns <= 0:
        raise UsageFault("--duration is 0: nothing would be sent", "give for example 30s")
    if wish.prompts is None and wish.shared_prefix >= wish.isl.mean > 0 and wish.shared_prefix:
        raise UsageFault(
            f"a shared prefix of {wish.shared_prefix} tokens leaves no room in an input of"
            f" {wish.isl.mean:g}",
            "make --isl longer or --shared-prefix shorter",
        )


def _realtime(priority: str, url: str) -> bool:
    """Whether the readers get real-time priority.

    A server on this machine keeps the reader from its core just when there is something to read.
    So there the reader goes first where it may; its work is little, and is measured.
    """
    host = urlsplit(url).hostname or ""
    near = host in ("localhost", "::1") or host.startswith("127.")
    if priority == "ordinary" or (priority == "auto" and not near):
        return False
    try:  # in this process what the readers will do, and take it back
        run_at_once()
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except (OSError, AttributeError) as fault:
        if priority == "auto":
            return False
        raise UsageFault(
            "this user may not use real-time priority on this machine",
            "run as root or with CAP_SYS_NICE, or leave --priority auto",
        ) from fault
    return True


def _workers(asked: int | None, slots: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if asked is not None:
        if not 1 <= asked <= _MAX_WORKERS:
            raise UsageFault(
                f"--workers must be 1 to {_MAX_WORKERS}", "leave it out, and latdiag chooses"
            )
        return min(asked, slots) if slots else asked
    wanted = -(-slots // STREAMS_PER_READER) if slots else 1
    return max(1, min(wanted, (cores or 2) - 1))
