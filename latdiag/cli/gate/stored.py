"""What the verbs of recorded runs share: where the store is, and what is stated of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latdiag.cli.options import as_one
from latdiag.model.errors import LatdiagError, UsageFault

if TYPE_CHECKING:
    from latdiag.gate.baseline.record import Record
    from latdiag.gate.baseline.stores import Store
    from latdiag.gate.settings import Saved, Settings

STORE = click.option(
    "--store",
    metavar="STORE",
    help="A path, git:BRANCH of this repository, or a URI such as s3://bucket/folder."
    "  [default: that of [gate.baseline]]",
)
_FACT = click.option(
    "--fact",
    "facts",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the run cannot know, such as gpu=H200; runs with other facts are not compared.",
)


class InvalidRun(LatdiagError):
    """A run whose figures are those of its client."""

    exit_code = 12
    code = "invalid"


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """As the user wrote them."""

    store: str | None
    facts: tuple[str, ...]

    def opened(self, run: str, label: str) -> tuple[Settings, Store, Saved, Record]:
        """Settings, the store, and ``run`` as it is recorded. InvalidRun where the client spoiled
        its figures; UsageFault for several runs, or facts that are none."""
        from latdiag.diagnosis.run_facts import measured
        from latdiag.gate.baseline.record import record_of
        from latdiag.gate.baseline.stores import open_store
        from latdiag.gate.settings import read_saved, read_settings
        from latdiag.store.run import Run

        folder = Path()
        saved, settings = read_saved(folder), read_settings(folder)
        facts = dict(saved.facts) | dict(map(_fact, self.facts))
        store = open_store(self.store or saved.store)
        opened = Run.open(run)
        if len(opened.paths) > 1:
            raise UsageFault(f"{run} names {len(opened.paths)} runs", "name one")
        figures = measured(opened)
        if figures.broken:
            why = "; ".join(rule.text for rule in figures.broken)
            raise InvalidRun(f"{figures.path} is INVALID: {why}", "measure again")
        return settings, store, saved, record_of(figures, opened.headers[0], facts, label)


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of ``StoreOptions``, which reach a command as ``stored``."""
    return STORE(_FACT(as_one("stored", StoreOptions)(command)))


def _fact(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals or not value or len(text) > 200:
        raise UsageFault(f"--fact {text[:80]!r} is not KEY=VALUE", "write --fact gpu=H200")
    return key, value
