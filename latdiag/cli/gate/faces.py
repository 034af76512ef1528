"""How a verdict is shown: the page, and the files that CI servers take. For all verbs of the gate
that end in one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latdiag.cli.options import as_one
from latdiag.model.errors import LocalFault

if TYPE_CHECKING:
    from latdiag.gate.result import Verdict
    from latdiag.report.page import Page

#: Where a step of a GitHub workflow finds the file for its summary.
_SUMMARY = "GITHUB_STEP_SUMMARY"


@dataclass(frozen=True, slots=True)
class FaceOptions:
    """``name``: of this gate, so that several in one pull request keep a comment each."""

    as_json: bool
    markdown: bool
    comment: Path | None
    junit: Path | None
    gitlab: Path | None
    github: bool
    name: str


_FILE = click.Path(dir_okay=False, path_type=Path)
_FACES = (
    click.option("--json", "as_json", is_flag=True, help="Print gate.json instead of the page."),
    click.option("--markdown", is_flag=True, help="Print the comment for a pull request."),
    click.option("--comment", type=_FILE, metavar="FILE", help="Write that comment to a file."),
    click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML."),
    click.option("--gitlab", type=_FILE, metavar="FILE", help="Write GitLab's metrics report."),
    click.option(
        "--github",
        is_flag=True,
        help="Append the comment to $GITHUB_STEP_SUMMARY, print annotations to stderr.",
    ),
    click.option(
        "--name",
        default="default",
        show_default=True,
        metavar="NAME",
        help="Name of this gate, in the comment and in JUnit.",
    ),
)


def face_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of ``FaceOptions``, which reach a command as ``faces``."""
    command = as_one("faces", FaceOptions)(command)
    for option in reversed(_FACES):
        command = option(command)
    return command


def show(verdict: Verdict, document: str, faces: FaceOptions) -> int:
    """Write the files that were asked for, then print the verdict on stdout; the exit code.

    ``document``: the text of its gate.json.
    """
    from latdiag.report.gate import gitlab, junit, markdown

    comment = markdown.comment(verdict, faces.name)
    for path, text in (
        (faces.comment, comment),
        (faces.junit, junit.junit(verdict, faces.name)),
        (faces.gitlab, gitlab.metrics(verdict)),
    ):
        if path is not None:
            write(path, text)
    if faces.github:
        _tell_github(verdict, faces.name)
    if faces.as_json:
        click.echo(document, nl=False)
    elif faces.markdown:
        click.echo(comment, nl=False)
    else:
        from latdiag.report import console
        from latdiag.report.gate.text import gate_page

        out = console.stdout_console()
        console.show(gate_page(verdict, console.ascii_only(out)), out)
    return verdict.exit_code


def print_page(result: object, page: Callable[[bool], Page], as_json: bool) -> None:
    """A result on stdout: as JSON, or as the page that ``page`` (whether in ASCII) makes of it."""
    if as_json:
        _print_json(result)
        return
    from latdiag.report import console

    out = console.stdout_console()
    console.show(page(console.ascii_only(out)), out)


def print_line(result: object, text: str, as_json: bool) -> None:
    """The same of a result that is one sentence."""
    if as_json:
        _print_json(result)
    else:
        click.echo(text)


def _print_json(result: object) -> None:
    import json

    from latdiag.model.document import document

    click.echo(json.dumps(document(result), indent=1, allow_nan=False))


def write(path: Path, text: str) -> None:
    """Write a file whole. LocalFault where this machine does not let us."""
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            whole.write_text(text, encoding="utf-8")
            whole.replace(path)
        finally:
            whole.unlink(missing_ok=True)
    except OSError as fault:
        raise LocalFault(
            f"{path} cannot be written: {fault.strerror}", "choose a path that can be written to"
        ) from fault


def _tell_github(verdict: Verdict, name: str) -> None:
    from latdiag.report.gate import github

    click.echo(github.annotation_commands(verdict), nl=False, err=True)
    if not (place := os.environ.get(_SUMMARY)):
        click.echo(f"No summary is written: ${_SUMMARY} is not set.", err=True)
        return
    path = Path(place)
    try:
        before = path.stat().st_size if path.exists() else 0
        with path.open("a", encoding="utf-8") as summary:
            summary.write(github.summary(verdict, name, before))
    except OSError as fault:
        raise LocalFault(
            f"the summary cannot be written: {fault.strerror}", f"check ${_SUMMARY}"
        ) from fault
