"""``latdiag gate aa``: an endpoint against itself, where every red is a false alarm."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from latdiag import __version__
from latdiag.cli.gate.faces import FaceOptions, face_options
from latdiag.cli.gate.measuring import MeasureOptions, finished, measure_options
from latdiag.cli.options import (
    LENGTHS,
    GatherOptions,
    TargetOptions,
    gather_options,
    target_options,
)
from latdiag.cli.verb import Verb
from latdiag.model.errors import LocalFault, RunFault

#: Bytes of a ledger that are read: 100,000 runs and more.
_MOST_BYTES = 32 << 20


@click.command(cls=Verb, epilog=LENGTHS, name="aa", context_settings={"max_content_width": 79})
@click.option("--base", required=True, metavar="URL", help="The server.")
@click.option(
    "--ledger",
    type=click.Path(dir_okay=False, path_type=Path),
    default="gate-aa.jsonl",
    show_default=True,
    metavar="FILE",
    help="Where a line is added for each run.",
)
@measure_options(None)
@target_options
@gather_options
@face_options
def aa(
    base: str,
    ledger: Path,
    measure: MeasureOptions,
    target: TargetOptions,
    gather: GatherOptions,
    faces: FaceOptions,
) -> int:
    """Measure a server against itself and judge as if it were two: every REGRESSED is a false
    alarm. The ledger holds the verdicts so far, so that the share of false alarms on this machine
    is known, with its exact interval.

    \b
    latdiag gate aa --base http://localhost:8000
    """
    from latdiag.cli.gate.alike import against_itself

    _read(ledger)  # whatever is wrong with it should cost nothing
    done, arms = against_itself(base, measure, target, gather)
    code = finished(done, arms, measure, faces)
    if done.measured is None or done.end.signal:
        return code
    verdict = done.measured.verdict()
    _add(
        ledger,
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "latdiag": __version__,
            "verdict": verdict.verdict,
            "pairs": verdict.stop.measured,
            "block": verdict.block,
        },
    )
    click.echo(_so_far(_read(ledger)), err=True)
    return code


def _read(ledger: Path) -> list[str]:
    """The verdicts so far. RunFault for a file that is no ledger."""
    try:
        with ledger.open("rb") as stream:
            lines = stream.read(_MOST_BYTES).decode().splitlines()
        return [str(json.loads(line)["verdict"]) for line in lines]
    except FileNotFoundError:
        return []
    except OSError as fault:
        raise LocalFault(f"{ledger} cannot be read: {fault.strerror}", "name another") from fault
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise RunFault(
            f"{ledger} is no ledger of `latdiag gate aa`", "name another file with --ledger"
        ) from fault


def _add(ledger: Path, entry: dict[str, object]) -> None:
    try:
        with ledger.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
    except OSError as fault:
        raise LocalFault(
            f"{ledger} cannot be written: {fault.strerror}", "name another with --ledger"
        ) from fault


def _so_far(verdicts: list[str]) -> str:
    from scipy.stats import binomtest

    judged = [each for each in verdicts if each != "INVALID"]
    red = judged.count("REGRESSED")
    void = (
        f"; {len(verdicts) - len(judged)} more were INVALID" if len(judged) < len(verdicts) else ""
    )
    if not judged:
        return f"No A/A run could be judged so far{void}."
    low, high = binomtest(red, len(judged)).proportion_ci(0.95, "exact")
    return (
        f"{red} of {len(judged)} A/A runs were red so far: {100 * red / len(judged):.1f} %"
        f" [{100 * low:.1f}, {100 * high:.1f}]{void}."
    )
