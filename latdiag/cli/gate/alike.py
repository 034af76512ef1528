"""One endpoint measured against itself: what ``aa`` and ``plan`` have in common."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from latdiag.cli.kept import saying_what_is_kept
from latdiag.cli.listening import gatherer, spans_to

if TYPE_CHECKING:
    from latdiag.cli.gate.measuring import MeasureOptions
    from latdiag.cli.options import GatherOptions, TargetOptions
    from latdiag.gate.live.run import Gated
    from latdiag.load.work.prepare import Wish


def against_itself(
    url: str,
    measure: MeasureOptions,
    target: TargetOptions,
    gather: GatherOptions,
    pilot: int | None = None,
) -> tuple[Gated, tuple[Wish, Wish]]:
    """Both arms are ``url``, asked for the same lengths in other words. ``pilot``: pairs after
    which it ends in any case."""
    from latdiag.cli.targets import target_of
    from latdiag.gate.live.run import run_gate
    from latdiag.gate.settings import read_settings
    from latdiag.report.progress import Progress

    settings = measure.settled(read_settings(Path.cwd(), secrets.randbits(32)))
    with saying_what_is_kept(), target_of(url, spans_to(gather, url)) as place:
        wish = measure.wish(place, target, settings.seed, None)
        around = gatherer(gather, measure.quiet, [(place, target.headers(place))], target.trust())
        progress = Progress(None, None, quiet=measure.quiet)
        arms = (wish, wish)
        done = run_gate(
            *(arms, settings, measure.rate, measure.run_path, around, progress),
            same=True,
            pilot=pilot,
        )
        return done, arms
