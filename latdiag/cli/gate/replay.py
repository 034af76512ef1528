"""``latdiag gate replay``: the verdict of a gate.json, computed again from what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from latdiag.cli.gate.faces import FaceOptions, face_options, show
from latdiag.cli.verb import Verb
from latdiag.model.errors import RunFault

if TYPE_CHECKING:
    from latdiag.gate.document import Measured
    from latdiag.gate.result import Verdict


@click.command(cls=Verb, name="replay", context_settings={"max_content_width": 79})
@click.argument("file", metavar="GATE.JSON", type=click.Path(path_type=Path))
@face_options
def replay(file: Path, faces: FaceOptions) -> int:
    """Compute the verdict of GATE.JSON again from its measurements, and show it. It is the same
    to the last digit: a file that was changed is refused.

    \b
    latdiag gate replay gate.json
    latdiag gate replay gate.json --markdown
    """
    from latdiag.gate.document import dumped

    measured, verdict = opened(file)
    return show(verdict, dumped(measured), faces)


def opened(file: Path) -> tuple[Measured, Verdict]:
    """What a gate.json holds, and its verdict, computed anew. RunFault for what is none."""
    from latdiag.gate.document import loaded
    from latdiag.store.documents import MAX_BYTES

    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as fault:
        raise RunFault(
            f"{file} cannot be read: {fault.strerror}",
            "name the file that `latdiag gate run` wrote",
        ) from fault
    return loaded(data, str(file))
