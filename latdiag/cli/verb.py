"""A verb as click's command: its help in groups, its options from variables, and an answer to the
option names of other tools."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from latdiag.cli.foreign import OURS

#: heading: the options under it, by their long names. What is in none stands under "Options".
GROUPS = {
    "Workload": (
        *("requests", "duration", "concurrency", "rate", "ramp", "warmup", "isl", "osl", "seed"),
        *("prompts", "shared-prefix", "tokenizer", "connections", "like", "budget"),
        *("max-tokens-total", "slo", "workers", "priority"),
    ),
    "Target": (
        *(
            "behind",
            "model",
            "path",
            "api-key-env",
            "no-api-key",
            "header",
            "header-env",
            "insecure",
            "ca-file",
            "client-cert",
            "client-key",
        ),
        *("timeout", "body-json"),
    ),
    "Evidence from servers": (
        *("otlp", "otlp-http", "metrics", "metrics-header-env", "prometheus", "prometheus-match"),
        *("prometheus-token-env", "forward", "wait", "token-env"),
        *("allow-unauthenticated",),
    ),
    "Output": (
        *("out", "quiet", "full", "notes", "why", "json", "csv", "markdown", "help"),
        *("slowest", "export", "export-header-env"),
    ),
}
#: What no variable may turn on unseen: doors left open, and other forms of output.
_NEVER_BY_VARIABLE = frozenset(
    {"insecure", "allow-unauthenticated", "force", "json", "csv", "markdown", "full", "notes"}
    | {"why", "no-api-key", "help"}
)
#: The options of which a variable may hold several, with spaces between.
_SEVERAL = frozenset({"metrics", "slo"})


class Verb(click.Command):
    """``latdiag VERB``. Options may also stand in variables: LATDIAG_MODEL for ``--model``."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for param in self.params:
            name = _long_name(param)
            if isinstance(param, click.Argument):
                if param.name == "url":
                    param.envvar = "LATDIAG_URL"
            elif name not in _NEVER_BY_VARIABLE and (not param.multiple or name in _SEVERAL):
                param.envvar = f"LATDIAG_{name.upper().replace('-', '_')}"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as fault:
            answer = self._answer(fault.option_name)
            if answer is None:
                raise
            raise click.UsageError(answer, ctx) from fault

    def _answer(self, foreign: str) -> str | None:
        """What another tool's option is called here; None where no tool is known to have it."""
        ours = OURS.get(foreign)
        if ours is None:
            return None
        option = ours.split()[0]
        if not option.startswith("--"):
            return f"there is no {foreign} here: {ours}"
        if option.removeprefix("--") in {_long_name(param) for param in self.params}:
            return f"{foreign} is called {ours} here"
        return f"{foreign} is called {ours} in `latdiag load`, and `latdiag {self.name}` has none"

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                name = _long_name(param)
                heading = next((h for h, names in GROUPS.items() if name in names), "Options")
                groups.setdefault(heading, []).append(record)
        for heading in ("Options", *GROUPS):
            if heading in groups:
                with formatter.section(heading):
                    formatter.write_dl(groups[heading])


def _long_name(param: click.Parameter) -> str:
    """``max-tokens-total`` of ``--max-tokens-total``; the name of an argument."""
    longs = [name for name in param.opts if name.startswith("--")]
    return longs[0].removeprefix("--") if longs else (param.name or "")


def runs_like(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completions of a run's path: runs, and folders that may hold some."""
    return [CompletionItem(path) for path in _paths(incomplete)]


def _paths(incomplete: str) -> Iterable[str]:
    start = Path(incomplete)
    folder, name = (start, "") if incomplete.endswith("/") else (start.parent, start.name)
    if not incomplete:
        folder, name = Path(), ""
        if Path("latdiag-runs").is_dir():
            yield from _paths("latdiag-runs/")
    try:
        entries = sorted(folder.iterdir())[:1000]
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(name) and entry.is_dir() and not entry.name.startswith("."):
            yield str(entry) if entry.suffix == ".run" else f"{entry}/"
