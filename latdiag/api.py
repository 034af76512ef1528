"""latdiag from Python: see ``docs/api.md``.

Nothing here prints, and what stops it is a ``LatdiagError``. What sends requests or writes a run
does so in a process of its own (``latdiag.runtime.calls``), so that the caller may have threads,
an event loop and whatever memory; a KeyboardInterrupt ends that process too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeAlias, TypedDict, TypeVar, Unpack

from latdiag.diagnosis import compare as comparing
from latdiag.diagnosis.compare import Comparison
from latdiag.diagnosis.diagnose import result_of
from latdiag.diagnosis.face import FACE, Drawing
from latdiag.diagnosis.result import Result
from latdiag.diagnosis.run_facts import side_of
from latdiag.diagnosis.several import diagnosed
from latdiag.measurement.slo import Slo, parse_slos
from latdiag.model.caveat import Caveat
from latdiag.model.errors import Interrupted, LatdiagError, LocalFault
from latdiag.runtime.calls import Stopped, VerbEnd, call
from latdiag.runtime.channel import Fault
from latdiag.store.run import Run

#: A path, a URI or a glob of runs; or what is open already.
Runs: TypeAlias = str | os.PathLike[str] | Run
#: ``30s``, ``2m``, ``250ms``; a number is seconds.
Duration = str | float

_P = ParamSpec("_P")
_T = TypeVar("_T")
#: An option of the command line in an error's words, and the space before its number.
_OPTION = re.compile(r"--([a-z][a-z-]*[a-z])(?: (?=\d))?")
#: The caveats of a run that ended before its plan, and of a load whose servers were not heard to
#: the end: only the verb that made it knows these.
_CUT_SHORT, _UNHEARD = "LD110", "LD433"
_HEADER = "LATDIAG_HEADER_"


class TargetOptions(TypedDict, total=False):
    """Which server is asked, how, and what is listened to meanwhile: as the command line's.

    ``headers`` and the value of the variable ``api_key_env`` reach no command line, run or log.
    ``body``: fields to merge into every request's body. ``otlp``: True, or HOST:PORT, to take the
    servers' spans; ``metrics``: URLs to scrape. ``out``: where the run goes.
    """

    model: str
    path: str
    api_key_env: str
    no_api_key: bool
    headers: Mapping[str, str]
    insecure: bool
    timeout: Duration
    body: Mapping[str, object]
    otlp: bool | str
    otlp_http: str
    metrics: str | Sequence[str]
    metrics_header_env: str | Sequence[str]
    forward: str
    wait: Duration
    token_env: str
    allow_unauthenticated: bool
    priority: str
    out: str | os.PathLike[str]


def _in_words_of_python(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Errors name parameters instead of options, and show in a traceback what to try."""

    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except LatdiagError as fault:
            fault.text, fault.remedy = map(_reworded, (fault.text, fault.remedy))
            fault.args = (fault.text,)
            if fault.remedy:
                fault.add_note(f"try: {fault.remedy}")
            raise
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            text = f"{(error.strerror or str(error)).lower()}{where}"
            raise LocalFault(text, "check the path and its permissions") from error

    return called


def _reworded(text: str) -> str:
    """With parameters instead of options, unless it names a command of the command line."""
    if re.search(r"\blatdiag [a-z]", text):
        return text
    return _OPTION.sub(lambda found: _parameter(found[1]) or found[0], text)


def _parameter(option: str) -> str | None:
    """``out=`` for ``out``; None for an option that no function here has."""
    name = _NAMES.get(option, option.replace("-", "_"))
    functions = (run_load, run_probe, import_run, compare_runs, diagnose_run)
    known = {each for function in functions for each in signature(function).parameters}
    return f"{name}=" if name in known | TargetOptions.__annotations__.keys() else None


# ---------------------------------------------------------------------- what a result looks like
def _html(result: Result) -> str:
    from latdiag.report.html.notebook import html

    return html(result)


def _drawing(result: Result) -> Drawing:
    from latdiag.report.html.notebook import drawing

    return drawing(result)


FACE.html, FACE.drawing = _html, _drawing


# ---------------------------------------------------------------------- what there is
@_in_words_of_python
def open_run(path: str | os.PathLike[str], *more: str | os.PathLike[str]) -> Run:
    """The run at ``path``: a directory, a URI or a glob; several are read as one.

    RunFault where one is no run or is damaged, LocalFault where it cannot be reached.
    """
    return Run.open(*(os.fspath(each) for each in (path, *more)))


@_in_words_of_python
def diagnose_run(run: Runs, slo: str | Sequence[str] = ()) -> Result:
    """Where the latency of ``run`` went. ``slo``: objectives to judge, ``"ttft.p95<500ms"``.

    A measurement that is INVALID is returned, with ``valid`` False.
    """
    return diagnosed(_opened(run), _objectives(slo))


@_in_words_of_python
def compare_runs(
    a: Runs | Sequence[Runs],
    b: Runs | Sequence[Runs],
    *,
    metrics: str | Sequence[str] = (),
    force: bool = False,
    seed: int = 0,
) -> Comparison:
    """How far the latencies of ``a`` and ``b`` lie apart; every difference is b - a.

    Several runs on a side also tell what changes from run to run. UnlikeRuns where the workloads
    are not alike, unless ``force``. ``seed``: of the draws behind the intervals.
    """
    wanted = comparing.metrics_of(_listed(metrics))
    one, other = (
        side_of(name, *(_opened(run) for run in _alone_or_several(side)))
        for name, side in (("A", a), ("B", b))
    )
    if not force:
        comparing.refuse_unlike(one, other)
    return comparing.compared(one, other, wanted, seed)


# ---------------------------------------------------------------------- what makes a run
@_in_words_of_python
def run_load(
    url: str,
    *,
    requests: int | None = None,
    duration: Duration | None = None,
    concurrency: int | None = None,
    rate: str | float | None = None,
    ramp: Duration | None = None,
    warmup: int | None = None,
    isl: str | int | None = None,
    osl: str | int | None = None,
    seed: int | None = None,
    prompts: str | os.PathLike[str] | None = None,
    shared_prefix: int | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    connections: str | None = None,
    workers: int | None = None,
    **target: Unpack[TargetOptions],
) -> Run:
    """Send a workload to ``url`` and measure it, as ``latdiag load`` does; the run.

    Without a parameter the command line's default holds. TargetFault where no reply was usable,
    LocalFault where this machine could not go on; both bear the path as ``run``. Interrupted at a
    KeyboardInterrupt; what was measured until then is in its ``run``.
    """
    own = {key: value for key, value in locals().items() if key not in ("url", "target")}
    ended = _measured("load", [url], own, target)
    if ended.code == LocalFault.exit_code:  # the run is there, and what was listened to is not
        cut = next((one for one in ended.caveats if one.code in (_UNHEARD, _CUT_SHORT)), None)
        text, remedy = (cut.text, cut.remedy) if cut else ("the load was cut short", "")
        raise LocalFault(text, remedy, ended.run)
    return Run.open(ended.run)


@_in_words_of_python
def run_probe(
    url: str,
    *,
    behind: str | None = None,
    like: str | os.PathLike[str] | None = None,
    slo: str | Sequence[str] = (),
    budget: str | None = None,
    max_tokens_total: int | None = None,
    rate: str | float | None = None,
    concurrency: int | None = None,
    isl: str | int | None = None,
    osl: str | int | None = None,
    seed: int | None = None,
    **target: Unpack[TargetOptions],
) -> Result:
    """Find out where the latency of ``url`` goes, as ``latdiag probe`` does; its run is at
    ``Result.run``. Errors are those of ``run_load``; an INVALID measurement is returned."""
    own = {key: value for key, value in locals().items() if key not in ("url", "target", "slo")}
    objectives = _objectives(slo)
    ended = _measured("probe", [url], own, target)
    result = result_of(Run.open(ended.run), "probe", objectives)
    cut = tuple(one for one in ended.caveats if one.code in (_CUT_SHORT, _UNHEARD))
    others = tuple(one for one in result.caveats if one.code != _UNHEARD or not cut)
    return replace(result, caveats=(*cut, *others))


@_in_words_of_python
def import_run(
    path: str | os.PathLike[str],
    *more: str | os.PathLike[str],
    scenarios: str | Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
) -> Run:
    """Make a run of what others recorded in a folder, as ``latdiag import`` does."""
    folders = [os.fspath(each) for each in (path, *more)]
    own = {"scenario": _listed(scenarios), "out": out}
    return Run.open(_measured("import", folders, own, {}).run)


# ---------------------------------------------------------------------- a verb and its words
class _Ended:
    """How a verb ended that has left a run."""

    def __init__(self, end: VerbEnd) -> None:
        document = json.loads(end.printed)
        self.code = end.exit_code
        self.run = str(document["run"])
        self.caveats = [Caveat(**each) for each in document["caveats"]]


#: The options that are not called as their parameters are.
_NAMES = {
    "body-json": "body",
    "header-env": "headers",
    "header": "headers",
    "metric": "metrics",
    "scenario": "scenarios",
}


def _measured(
    verb: str, words: Sequence[str], own: Mapping[str, object], target: Mapping[str, object]
) -> _Ended:
    """The verb, run to its end. Raises what it raises, and Interrupted."""
    if unknown := target.keys() - TargetOptions.__annotations__.keys():
        raise TypeError(f"run_{verb}() has no parameter {min(unknown)!r}")
    options, variables = _options({**own, **target})
    try:
        end = call([verb, "--json", "--quiet", *options, "--", *words], variables)
    except Stopped as stopped:
        run = _run_of(stopped.end)
        text = f"interrupted: {run} holds what was done until then" if run else "interrupted"
        remedy = f"latdiag.diagnose_run({run!r})" if run else ""
        raise Interrupted(text, remedy, run) from None
    if (error := _document(end).get("error")) is not None:
        raise Fault(error["code"], error["text"], error["remedy"]).error(_run_of(end))
    return _Ended(end)


def _document(end: VerbEnd) -> dict[str, dict[str, str]]:
    try:
        document = json.loads(end.printed)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        text = f"the measuring process ended with {end.exit_code} and no result"
        raise LocalFault(text, "run the same command on the command line to see why")
    return document


def _run_of(end: VerbEnd | None) -> str | None:
    """The path of the run that a verb has left, if there is one."""
    run = _document(end).get("run") if end is not None and end.printed else None
    return run if isinstance(run, str) else None


def _options(given: Mapping[str, object]) -> tuple[list[str], dict[str, str]]:
    """(Options of the command line, variables of the environment that they name)."""
    options: list[str] = []
    variables: dict[str, str] = {}
    for key, value in given.items():
        name = f"--{key.replace('_', '-')}"
        if key == "headers" and isinstance(value, Mapping):
            for header, secret in value.items():
                variable = f"{_HEADER}{len(variables)}"
                variables[variable] = str(secret)
                options.append(f"--header-env={header}: {variable}")
        elif key == "body":
            options.append(f"--body-json={json.dumps(value)}")
        elif value is True:
            options.append(name)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            options += [f"{name}={each}" for each in value]
        elif value is not None and value is not False:
            options.append(f"{name}={os.fspath(value) if hasattr(value, '__fspath__') else value}")
    for key in ("api_key_env", "token_env"):
        # By name from here: a process that conceals a value passes it on to none of its children.
        if (named := str(given.get(key) or "")) in os.environ:
            variables[named] = os.environ[named]
    return options, variables


def _alone_or_several(side: Runs | Sequence[Runs]) -> Sequence[Runs]:
    return [side] if isinstance(side, str | os.PathLike | Run) else side


def _opened(run: Runs) -> Run:
    return run if isinstance(run, Run) else Run.open(os.fspath(run))


def _listed(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _objectives(slo: str | Sequence[str]) -> tuple[Slo, ...]:
    return parse_slos(_listed(slo))
