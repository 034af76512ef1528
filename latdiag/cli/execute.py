"""From a wish to a finished run and its result: what ``load`` and ``probe`` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from latdiag.cli.kept import with_what_is_kept
from latdiag.cli.outcome import Terminated
from latdiag.model.caveats import caveat
from latdiag.model.errors import LatdiagError, LocalFault, of_run

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Result
    from latdiag.ingest.gathering import Gather, Heard
    from latdiag.load.processes.counters import Counts
    from latdiag.load.processes.run import LoadEnd
    from latdiag.load.work.prepare import Wish
    from latdiag.measurement.slo import Slo

INCONCLUSIVE, INVALID, SLO_MISSED, SIGNALLED = 11, 12, 14, 128
#: The caveat of a load whose servers were not heard to the end.
UNHEARD = "LD433"


def execute(
    verb: str,
    wish: Wish,
    out: str | None,
    quiet: bool,
    slos: Sequence[Slo],
    gather: Gather,
) -> tuple[Result, int]:
    """Run the load of ``wish``; (the result, the exit code). Faults bear the run's path.

    ``gather``: what is done around it, to hear what the servers say.
    """
    from latdiag.load.begin import begin
    from latdiag.load.failures import hopeless
    from latdiag.load.processes.run import LoadEnd, run_load
    from latdiag.report.progress import Progress

    begun = begin(verb, wish, out)
    wish = begun.wish
    total = None if wish.requests is None else wish.requests + wish.warmup
    shown_ = Progress(total, wish.duration_ns, quiet=quiet)

    def attend(counts: Counts) -> None:
        progress.update(counts.begun, counts.done, counts.failed, counts.tokens)
        heard.attend()

    end = LoadEnd()
    # What gathers begins before the progress does, which has a thread, and outlives it.
    with of_run(begun.path), gather(begun.path) as heard:
        try:
            with shown_ as progress:
                work = begun.prepared.work(wish)
                end = run_load(begun.prepared.plan, work, begun.path, begun.tag, attend)
        except (KeyboardInterrupt, Terminated):
            if not end.faults:  # else it came a moment after what the load ended by
                raise
        heard.stopped = end.signal
    end.signal = end.signal or heard.stopped
    cut = hopeless(wish) if end.gave_up else None
    return concluded(verb, begun.path, end, cut, heard, slos)


def concluded(
    verb: str, path: str, end: LoadEnd, cut: str | None, heard: Heard, slos: Sequence[Slo]
) -> tuple[Result, int]:
    """(The result of the finished run, the exit code). ``cut``: why it ended before its plan.

    TargetFault where nothing of what the result counts was usable. Whoever interrupts the reading
    of a run that has a fault ends the reading: the fault is told all the same.
    """
    try:
        return with_fault(conclude(verb, path, end, cut, slos), heard)
    except (KeyboardInterrupt, Terminated):
        fault = heard.fault
        if end.faults:
            fault = LocalFault(end.faults[0].text, end.faults[0].remedy, path)
        if fault is None:
            raise
        raise fault from None


def with_fault(said: tuple[Result, int], heard: Heard) -> tuple[Result, int]:
    """A result to whose servers nobody could listen to the end: it says so, and exits so. So does
    stderr, for who looks at no note. Only a finding of the result itself goes before it."""
    result, code = said
    if heard.caveats:
        result = replace(result, caveats=(*result.caveats, *heard.caveats))
    if heard.fault is None:
        return result, code
    fault = heard.fault
    _announce(fault, result.run)
    others = (one for one in result.caveats if one.code != UNHEARD)
    result = replace(result, caveats=(caveat(UNHEARD, why=fault.text), *others))
    return result, fault.exit_code if code == 0 or code > SIGNALLED else code


def _announce(fault: LatdiagError, run: str | None) -> None:
    from latdiag.cli.outcome import ending
    from latdiag.cli.streams import announce

    if isinstance(fault, LocalFault) and run is not None:
        fault = with_what_is_kept(fault, run)
    announce(ending(fault), fault, as_json=False, verbosity=0)


def _cut_short(result: Result, why: str) -> Result:
    """With a word in front on why it ended before its plan."""
    return replace(result, caveats=(caveat("LD110", why=why), *result.caveats))


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
        return SIGNALLED + signal
    # What this client cut off says nothing about the target.
    theirs = [e for e in result.errors if e.outcome not in ("cut_by_client", "cancelled")]
    if theirs and result.load is not None and not result.load.ok:
        from latdiag.load.failures import useless

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


def diagnosed(path: str, verb: str) -> Result:
    """What a run says that ``verb`` has written and no load: for people, who see a diagnosis."""
    return replace(_read(path, "diagnose", ()), verb=verb, run=path)


def show(result: Result, as_json: bool, view: str | None = None) -> None:
    """Print the result on stdout. ``view``: full, notes, csv or markdown, else one screen."""
    import click

    if as_json:
        from latdiag.report.json import dump

        click.echo(dump(result))
        return
    if view in ("csv", "markdown"):
        from latdiag.report.tables import csv_of, markdown_of

        click.echo((csv_of if view == "csv" else markdown_of)(result), nl=False)
        return
    from latdiag.report.console import render, stdout_console

    render(result, stdout_console(), view or "screen")
