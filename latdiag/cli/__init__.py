"""The command line: one file a verb, loaded when it is called.

``latdiag --help`` imports click and nothing else: the table below stands for the verbs.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from latdiag import __version__
from latdiag.cli.group import Verbs
from latdiag.cli.outcome import ending, terminable
from latdiag.cli.slips import conceal_arguments, mask_in_process_list, refuse_keys
from latdiag.cli.streams import announce, fill_closed_streams, settle_streams
from latdiag.model.secrets import forgotten_after

#: name: (where its click command is, its one line of help)
VERBS = {
    "load": ("latdiag.cli.load:load", "Send a workload and measure it: TTFT, TPOT, ITL."),
    "probe": ("latdiag.cli.probe:probe", "Find out where the latency goes, with a verdict."),
    "import": (
        "latdiag.cli.import_:import_",
        "Turn recorded requests, spans and metrics into a run.",
    ),
    "collect": (
        "latdiag.cli.collect:collect",
        "Collect spans and metrics from servers.",
    ),
    "watch": (
        "latdiag.cli.watch:watch",
        "Watch production traffic: where its time goes now.",
    ),
    "diagnose": ("latdiag.cli.diagnose:diagnose", "Diagnose saved runs again, offline."),
    "compare": (
        "latdiag.cli.compare:compare",
        "Compare two runs: what got slower, and by how much.",
    ),
    "gate": (
        "latdiag.cli.gate:gate",
        "Compare a candidate with its base: for CI.",
    ),
    "requests": (
        "latdiag.cli.requests:requests",
        "List requests: when each was sent, where its time went.",
    ),
    "report": (
        "latdiag.cli.report:report",
        "Write a run, or a comparison, as one HTML file.",
    ),
    "export": (
        "latdiag.cli.export:export",
        "Export requests as traces, to Jaeger and others.",
    ),
    "demo": ("latdiag.cli.demo:demo", "Serve a simulated LLM with a known fault."),
    "stacks": (
        "latdiag.cli.stacks:stacks",
        "What serving stacks report, and which one is at a URL.",
    ),
    "explain": (
        "latdiag.cli.explain:explain",
        "Explain a metric, component, caveat or exit code.",
    ),
}

_EPILOG = """\b
latdiag probe http://localhost:8000/v1
latdiag load http://localhost:8000/v1 --rate 4 --duration 60s
latdiag explain ttft

\b
Environment variables set options: LATDIAG_MODEL for --model.
Shell completion, bash: eval "$(_LATDIAG_COMPLETE=bash_source latdiag)"
(also zsh_source, fish_source)
"""


#: New objects after which Python looks for circles among the youngest.
_OBJECTS = 100_000
#: Set by the shell that asks for completions, as click's own scripts do.
_COMPLETE = "_LATDIAG_COMPLETE"


@click.group(
    cls=Verbs,
    table=VERBS,
    what="verb",
    name="latdiag",
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 79},
)
@click.option("-v", "--verbose", count=True, help="Log to stderr; -vv also shows tracebacks.")
@click.version_option(__version__, "-V", "--version", message="latdiag %(version)s")
@click.pass_context
def latdiag(ctx: click.Context, verbose: int) -> None:
    """Find out where the latency of an LLM endpoint goes, and how sure that is."""
    if verbose:
        from latdiag.cli.logs import log_to_stderr

        ctx.call_on_close(log_to_stderr(verbose))
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(args: Sequence[str]) -> int:
    """Run ``latdiag ARGS`` and return its exit code; everything is printed and flushed."""
    with forgotten_after():
        conceal_arguments(args)
        return _run(args)


def _run(args: Sequence[str]) -> int:
    # Before click has parsed anything: a usage error must know how it is to be told.
    own = list(args[: args.index("--")]) if "--" in args else list(args)
    as_json = "--json" in own
    verbosity = 2 if {"-vv", "-vvv"} & set(own) else own.count("-v") + own.count("--verbose")
    try:
        with terminable():
            refuse_keys(args)
            code = _invoke(list(args))
            if sys.stdout is not None:  # None where the caller closed it
                sys.stdout.flush()
    except BaseException as exc:
        end = ending(exc)
        code = end.exit_code
        announce(end, exc, as_json, verbosity)
    failed = settle_streams()
    return failed.exit_code if failed and code == 0 else code


def main() -> NoReturn:
    """The console script."""
    # A verb imports 100,000 objects: Python would look for circles among them 150 times.
    gc.set_threshold(_OBJECTS)
    fill_closed_streams()
    conceal_arguments(sys.argv[1:])
    mask_in_process_list()
    sys.exit(run(sys.argv[1:]))


def _invoke(args: list[str]) -> int:
    """Call the verb. Not ``Command.main``: that turns a closed pipe into exit code 1."""
    if instruction := os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(latdiag, {}, "latdiag", _COMPLETE, instruction)
    try:
        with latdiag.make_context("latdiag", args) as ctx:
            code = latdiag.invoke(ctx)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    return code if isinstance(code, int) else 0
