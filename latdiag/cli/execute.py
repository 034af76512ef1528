"""From a wish to a finished run and its result: what ``load`` and ``probe`` have in common."""

from __future__ import annotations

import contextlib
import json
import platform
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from latdiag import __version__
from latdiag.cli.outcome import conceal, concealed
from latdiag.model.caveats import caveat
from latdiag.model.errors import LatdiagError, LocalFault, TargetFault, UsageFault
from latdiag.model.text import shown, without_credentials

if TYPE_CHECKING:
    from latdiag.cli.gather import Gather, Heard
    from latdiag.diagnosis.result import Result
    from latdiag.load.processes.run import LoadEnd
    from latdiag.load.work.prepare import Prepared, Wish
    from latdiag.measurement.slo import Slo

INCONCLUSIVE, INVALID, SLO_MISSED = 11, 12, 14


def execute(
    verb: str,
    wish: Wish,
    out: str | None,
    quiet: bool,
    slos: Sequence[Slo] = (),
    gather: Gather | None = None,
) -> tuple[Result, int]:
    """Run the load of ``wish``; (the result, the exit code). Faults bear the run's path.

    ``gather``: what is done around it, to hear what the servers say.
    """
    from latdiag.load.processes.run import run_load
    from latdiag.report.progress import Progress

    begun = begin(verb, wish, out)
    wish = begun.wish
    total = None if wish.requests is None else wish.requests + wish.warmup
    shown_ = Progress(total, wish.duration_ns, quiet=quiet)
    # What gathers begins before the progress does, which has a thread, and outlives it.
    with of_run(begun.path), hearing(gather, begun.path) as heard, shown_ as progress:
        end = run_load(
            begun.prepared.plan,
            begun.prepared.work(wish),
            begun.path,
            begun.tag,
            lambda c: progress.update(c.begun, c.done, c.failed, c.tokens),
        )
        heard.stopped = end.signal
    end.signal = end.signal or heard.stopped
    cut = hopeless(wish) if end.gave_up else None
    return with_fault(conclude(verb, begun.path, end, cut, slos), heard)


def hearing(gather: Gather | None, path: str) -> AbstractContextManager[Heard]:
    """What is done around a load to hear the servers; nothing where nobody listens."""
    from latdiag.cli.gather import Heard

    return contextlib.nullcontext(Heard()) if gather is None else gather(path)


def with_fault(said: tuple[Result, int], heard: Heard) -> tuple[Result, int]:
    """A result to whose servers nobody could listen to the end: it says so, and exits so."""
    result, code = said
    if heard.fault is None:
        return said
    return _cut_short(result, heard.fault.text), code or heard.fault.exit_code


def _cut_short(result: Result, why: str) -> Result:
    """With a word in front on why it ended before its plan."""
    return replace(result, caveats=(caveat("LD110", why=why), *result.caveats))


class Begun(NamedTuple):
    """A run that is ready for its requests. ``tag`` begins their ids."""

    wish: Wish
    prepared: Prepared
    path: str
    tag: str


def begin(
    verb: str,
    wish: Wish,
    out: str | None,
    plan: Callable[[Prepared], dict[str, Any]] | None = None,
) -> Begun:
    """Ask the target what it is, and make the run. ``plan``: what run.json says of the plan."""
    import asyncio

    from latdiag.load.redact import secrets_of
    from latdiag.load.wire import stamps
    from latdiag.load.work.prepare import prepare
    from latdiag.store.writer import create_run, default_run_path

    conceal(*secrets_of(wish.headers, wish.url))
    reason = stamps.why_unavailable()
    wish = replace(wish, kernel_stamps=reason is None)
    prepared = asyncio.run(prepare(wish))
    path = out or default_run_path(verb, datetime.now(UTC))
    said = plan_of(prepared, wish) | (plan(prepared) if plan else {})
    stacks = _stacks_at(prepared, wish) if wish.designed else []
    path = create_run(path, _header(verb, prepared, said, reason) | {"stacks": stacks})
    return Begun(wish, prepared, path, secrets.token_hex(4))


def _stacks_at(prepared: Prepared, wish: Wish) -> list[dict[str, Any]]:
    """The stacks that show themselves by a few GETs: what a guess could be measured with."""
    from latdiag.cli.stacks import signs_of
    from latdiag.load.look import beside, look
    from latdiag.load.work.preflight import locate
    from latdiag.stacks.detect import detect

    base, _, _ = locate(wish.url, None)
    asked = [beside(base, path) for path in ("/v1/models", "/metrics", "/version")]
    target = prepared.plan.target
    found = detect(signs_of(look(asked, base, target.headers, target.verify)))
    return [
        {
            "name": one.stack.name,
            "version": shown(one.version, 60) if one.version else None,
            "grounds": "; ".join(shown(each, 80) for each in one.because[:4]),
        }
        for one in found
    ]


@contextlib.contextmanager
def of_run(path: str) -> Iterator[None]:
    """What stops latdiag in here leaves a run behind, and says where."""
    try:
        yield
    except LatdiagError as fault:
        fault.run = path
        raise


def hopeless(wish: Wish) -> str:
    """Why a load that may give up did."""
    return f"more than {100 * (wish.give_up or 0):.0f} % of the requests failed, so it stopped"


def conclude(
    verb: str, path: str, end: LoadEnd, cut: str | None = None, slos: Sequence[Slo] = ()
) -> tuple[Result, int]:
    """(The result of the finished run, the exit code). ``cut``: why it ended before its plan.

    TargetFault where nothing of what the result counts was usable.
    """
    if end.faults:
        raise LocalFault(end.faults[0].text, end.faults[0].remedy, path)
    result = _read(path, verb, slos)
    if cut is not None:
        result = _cut_short(result, cut)
    return result, _exit_code(result, end.signal)


def _read(path: str, verb: str, slos: Sequence[Slo]) -> Result:
    from latdiag.diagnosis.diagnose import result_of
    from latdiag.store.run import Run

    return result_of(Run.open(path), verb, slos)


def _exit_code(result: Result, signal: int) -> int:
    """What scripts see. A signal comes first, then a useless target, then our own faults."""
    if signal:
        return 128 + signal
    # What this client cut off says nothing about the target.
    theirs = [e for e in result.errors if e.outcome not in ("cut_by_client", "cancelled")]
    if theirs and result.load is not None and not result.load.ok:
        url = result.target.url if result.target is not None else None
        detail = theirs[0].example or theirs[0].outcome
        raise useless(url or "the target", result.load.requests, detail, result.run)
    if not result.valid:
        return INVALID
    if any(judged.met is False for judged in result.slo):
        return SLO_MISSED
    if any(judged.met is None for judged in result.slo):
        return INCONCLUSIVE  # an objective that cannot be judged is not met
    return 0


def useless(url: str, requests: int, detail: str, path: str | None) -> TargetFault:
    """What is raised where no request of a run got a usable reply."""
    text = f"{url} gave no usable reply in {requests} requests: {detail}"
    return TargetFault(text, f"see the failures in {path}", path)


def show(result: Result, as_json: bool) -> None:
    """Print the result on stdout."""
    if as_json:
        import click

        from latdiag.report.json import dump

        click.echo(dump(result))
        return
    from latdiag.report.console import render, stdout_console

    render(result, stdout_console())


@contextlib.contextmanager
def target_of(text: str, spans_to: str | None = None) -> Iterator[str]:
    """The URL behind a target: ``demo:NAME`` is a server of its own for the time of the run,
    which sends its spans to ``spans_to`` (a collector's URL).

    UsageFault for a NAME that there is not.
    """
    scheme, _, name = text.partition(":")
    if scheme != "demo":
        yield text
    elif name == "echo":
        from latdiag.sim.demo import running_echo

        with running_echo() as url:
            yield url
    else:
        from latdiag.sim.demo import params_of, running_demo

        try:
            params = params_of(name)
        except ValueError as fault:
            text = f"there is no target {shown(text, 60)}: {shown(fault, 200)}"
            raise UsageFault(text, "demo:queue, demo:echo, or the URL of a server") from fault
        with running_demo(name, params=params, otlp=spans_to) as url:
            yield url


def plan_of(prepared: Prepared, wish: Wish) -> dict[str, Any]:
    """What run.json says of a load's plan."""
    plan = prepared.plan
    return {
        "requests": wish.requests,
        "duration_ns": wish.duration_ns,
        "warmup": wish.warmup,
        "rate": prepared.rate,
        "arrivals": "closed" if prepared.closed else (wish.rate or "").partition(":")[0],
        "concurrency": len(plan.slots) or None,
        "ramp_ns": wish.ramp_ns,
        "isl": None if prepared.prompts else wish.isl.mean,
        "osl": wish.osl.mean if wish.osl else None,
        "prompts": prepared.prompts,
        "isl_source": prepared.isl_source,
        "shared_prefix": wish.shared_prefix,
        "connections": "reuse" if plan.reuse else "fresh",
        "workers": plan.workers,
        "seed": wish.seed,
        "timeout_ns": plan.timeout_ns,
    }


def _header(
    verb: str, prepared: Prepared, said: dict[str, Any], reason: str | None
) -> dict[str, Any]:
    """run.json: everything that is known before the first request, nothing that is secret."""
    from importlib.metadata import version

    found, plan = prepared.found, prepared.plan
    return {
        "tool": {"name": "latdiag", "version": __version__, "verb": verb},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": {
            "url": without_credentials(plan.target.url),
            "model": found.model,
            "dialect": plan.dialect,
            "peer": found.peer,
        },
        "stacks": [],
        "plan": said,
        "preflight": {
            "model_asked": found.model_asked,
            "models_offered": found.models_offered,
            "extras": sorted(found.extras),
            "refused_extras": sorted(found.refused_extras),
            "server": found.server,
        },
        "client": {
            "kernel_stamps": plan.kernel_stamps,
            "stamp_reason": reason,
            "priority": "realtime" if plan.realtime else "ordinary",
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
            "httpx": version("httpx"),
        },
        "command": concealed(redacted_command(sys.argv)),
    }


_SECRET_OPTIONS = ("--header", "--body-json", "--api-key", "--header-env", "--api-key-env")


def redacted_command(argv: Sequence[str]) -> str:
    """The command line without header values, bodies, and credentials in URLs."""
    shown, hide = ["latdiag"], False
    for word in argv[1:]:
        name, equals, _ = word.partition("=")
        if hide:
            shown.append("***")
            hide = False
        elif name in _SECRET_OPTIONS:
            shown.append(f"{name}=***" if equals else name)
            hide = not equals
        elif "://" in word:
            shown.append(without_credentials(word))
        else:  # a URL may come without its scheme
            shown.append(word.partition("?")[0])
    return " ".join(json.dumps(w) if " " in w else w for w in shown)
