"""``latdiag gate``: whether a candidate is slower than its base; one verb of it, one file."""

from __future__ import annotations

import click

from latdiag.cli.group import Verbs

#: name: (where its click command is, its one line of help)
GATE_VERBS = {
    "run": (
        "latdiag.cli.gate.run:run",
        "Measure a base and a candidate in turn, and judge.",
    ),
    "plan": ("latdiag.cli.gate.plan:plan", "Say what a budget can see here."),
    "aa": ("latdiag.cli.gate.aa:aa", "Measure a server against itself: is any red false?"),
    "explain": ("latdiag.cli.gate.explain:explain", "Say why a gate.json says what it says."),
    "slo": (
        "latdiag.cli.gate.slo:slo",
        "Hold absolute limits against saved runs.",
    ),
    "record": (
        "latdiag.cli.gate.record:record",
        "Keep the figures of a run for later ones.",
    ),
    "history": (
        "latdiag.cli.gate.history:history",
        "Compare a run with those recorded earlier.",
    ),
    "pin": (
        "latdiag.cli.gate.pin:pin",
        "Hold what is recorded now as an anchor.",
    ),
    "replay": (
        "latdiag.cli.gate.replay:replay",
        "Compute the verdict of a gate.json again, and show it.",
    ),
}

_EPILOG = """\b
latdiag gate run --base http://old:8000 --cand http://new:8000
latdiag explain exit
"""


@click.group(
    cls=Verbs,
    table=GATE_VERBS,
    what="verb of `latdiag gate`",
    name="gate",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 79},
)
def gate() -> None:
    """Decide whether a candidate is slower than its base: REGRESSED, OK, IMPROVED,
    INCONCLUSIVE or INVALID. Settings stand in latdiag.toml ([gate]) or
    pyproject.toml ([tool.latdiag.gate]).
    """
