"""Exports into files, which are there whole or not at all, and replace none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from latdiag.export import openmetrics, perfetto, tables
from latdiag.export.exported import Exported, exported
from latdiag.model.errors import LocalFault, UsageFault
from latdiag.model.text import shown

if TYPE_CHECKING:
    from latdiag.export.attempts import Attempts


def check_new(place: str) -> None:
    """UsageFault for a file that is there already, before what takes long."""
    if os.path.lexists(place):
        raise UsageFault(f"{shown(place)} exists already", "choose another file")


def write_file(attempts: Attempts, form: str, place: str) -> Exported:
    """LocalFault where ``place`` cannot be written."""
    with whole(Path(place)) as path:
        if form == "parquet":
            tables.write_parquet(attempts.table, str(path))
            rows = len(attempts.table)
        else:
            with path.open("w", encoding="utf-8", newline="\n") as file:
                rows = _write(attempts, form, file)
    return exported(attempts, form, place, rows)


def write_stdout(attempts: Attempts, form: str, file: TextIO) -> Exported:
    """As ``write_file``, for all forms but Parquet."""
    return exported(attempts, form, "stdout", _write(attempts, form, file))


def _write(attempts: Attempts, form: str, file: TextIO) -> int:
    """Rows, or what the form has of the kind."""
    if form == "perfetto":
        return perfetto.write_perfetto(attempts, file)
    if form == "openmetrics":
        assert attempts.result is not None  # what is exported to a file has ended
        text = openmetrics.text_of(attempts.result).decode()
        file.write(text)
        return sum(not line.startswith("#") for line in text.splitlines())
    (tables.write_csv if form == "csv" else tables.write_jsonl)(attempts.table, file)
    return len(attempts.table)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its place when it is complete."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    held = False
    try:
        path.open("x").close()  # the name is ours before anything is written
        held = True
        yield part
        part.replace(path)
        held = False
    except FileExistsError as error:
        raise UsageFault(f"{shown(path)} exists already", "choose another file") from error
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        text = f"{shown(path)} cannot be written: {why}"
        raise LocalFault(text, "choose another file") from error
    finally:
        for left in (part, *((path,) if held else ())):
            with contextlib.suppress(OSError):
                left.unlink()
