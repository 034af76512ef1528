"""``latdiag explain WORD``: every word, number and code that latdiag prints, from its tables."""

from __future__ import annotations

import click

from latdiag.cli.verb import Verb
from latdiag.model.entries import all_entries, key_of, look_up


@click.command(cls=Verb)
@click.argument("word", required=False, nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as JSON.")
def explain(word: tuple[str, ...], as_json: bool) -> None:
    """Explain WORD: a term, a metric, a component, a caveat (LD301), an exit code, an outcome,
    a rule of the self-audit. `json-schema` prints the schema of every --json. Without WORD: list
    all words."""
    from latdiag.report import explain_page as page

    asked = " ".join(word)
    entries = all_entries()
    if not asked:
        click.echo(page.words_json(entries) if as_json else page.words_text(entries))
    elif key_of(asked) == "json schema":
        from latdiag.report import json

        click.echo(json.schema_text().rstrip())
    else:
        found = look_up(asked, entries)
        text = (
            page.entries_json(asked, found) if as_json else "\n\n".join(map(page.text_of, found))
        )
        click.echo(text)
