"""``latdiag stacks [URL]``: what each serving stack can tell, and what is on and off here."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from latdiag.cli.options import headers_of
from latdiag.model.errors import TargetFault, UsageFault
from latdiag.model.text import shown, without_credentials

if TYPE_CHECKING:
    from latdiag.load.look import Glimpse
    from latdiag.stacks.detect import Found, Signs
    from latdiag.stacks.signal import Stack

_WIDTH = 79
_COLUMNS = ("gateway", "frontend", "queue", "prefill", "interconnect", "decode")
_REMEDIES = {
    "dns": "check the host name",
    "refused": "is the server up, and is this its port?",
    "tls": "check the certificate; --insecure skips verification",
    "timeout": "is the host reachable from here?",
}
_WHY = {
    "dns": "its name cannot be resolved",
    "refused": "it refuses the connection",
    "tls": "the TLS handshake failed",
    "timeout": "it did not answer within 5 s",
    "protocol": "it does not speak HTTP",
}


@click.command(context_settings={"max_content_width": 79})
@click.argument("url", required=False)
@click.option("--metrics", multiple=True, metavar="URL", help="Also look at this /metrics.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable that holds the API key.")
@click.option(
    "--header", "plain", multiple=True, metavar="'NAME: VALUE'", help="A header to send."
)
@click.option(
    "--header-env",
    multiple=True,
    metavar="'NAME: VARIABLE'",
    help="A header whose value is in an environment variable.",
)
@click.option("--insecure", is_flag=True, help="Do not verify the TLS certificate.")
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
@click.option("--markdown", "as_markdown", is_flag=True, help="The table of stacks in Markdown.")
def stacks(url: str | None, **given: Any) -> None:
    """What each serving stack can tell of the latency's components; with URL, which stack is
    there, what of it is on or off, and the flag that turns it on. Only GETs are sent.

    \b
    latdiag stacks
    latdiag stacks http://localhost:8000/v1
    latdiag stacks http://localhost:8000 --metrics http://localhost:9090/metrics
    """
    from latdiag.stacks import catalogue

    known = catalogue.stacks()
    _say_broken(catalogue.broken())
    if given["as_markdown"]:
        if url or given["as_json"]:
            raise UsageFault("--markdown is the table alone", "leave out URL and --json")
        click.echo(markdown(known))
        return
    if url is None:
        if given["metrics"]:
            raise UsageFault("--metrics needs the URL of the server too", "give URL first")
        _echo_table(known, given["as_json"])
        return
    glimpses, base = _seen(url, given)
    signs = signs_of(glimpses)
    _echo_found(base, glimpses, signs, given["as_json"])


def _say_broken(broken: Iterable[Any]) -> None:
    for one in broken:
        text = f"the stack of entry point {shown(one.entry, 60)} was left out: {shown(one.why)}"
        click.echo(f"warning: {text}", err=True)


# ------------------------------------------------------------------ the table


def _cell(by: dict[str, bool]) -> str:
    """``spans, metrics*``; an asterisk where documents alone say so."""
    return ", ".join(name if seen else f"{name}*" for name, seen in by.items()) or "-"


def markdown(known: Sequence[Stack]) -> str:
    """The table of the README."""
    from latdiag.stacks.reach import reach

    heads = ("Stack", "Layer", *(name.capitalize() for name in _COLUMNS), "Known from")
    lines = [heads, tuple("---" for _ in heads)]
    for stack in known:
        told = reach(stack)
        cells = [_cell(told[name]) for name in _COLUMNS]
        origin = (
            f"{'recordings' if stack.provenance == 'captured' else 'documents'}, {stack.versions}"
        )
        lines.append((stack.title, stack.layer, *cells, origin))
    return "\n".join(f"| {' | '.join(shown(cell, 80) for cell in line)} |" for line in lines)


def _echo_table(known: Sequence[Stack], as_json: bool) -> None:
    if as_json:
        from latdiag.diagnosis.result import Result
        from latdiag.report.json import dump

        result = Result(verb="stacks").to_json()
        click.echo(dump(result | {"stacks_known": [_known(each) for each in known]}))
        return
    click.echo("\n".join(_table(known)))


def _known(stack: Stack) -> dict[str, Any]:
    from latdiag.stacks.reach import reach

    return {
        "name": stack.name,
        "title": stack.title,
        "layer": stack.layer,
        "provenance": stack.provenance,
        "versions": stack.versions,
        "tells": {name: list(by) for name, by in reach(stack).items()},
        "switches": [{"what": each.what, "flag": each.flag} for each in stack.switches],
    }


def _table(known: Sequence[Stack]) -> Iterator[str]:
    from latdiag.stacks.reach import reach

    letters = {"spans": "S", "replies": "R", "metrics": "M"}
    yield "".join((f"{'':<27}", *(f"{name:<{_wide(name)}}" for name in _COLUMNS))).rstrip()
    for stack in known:
        told = reach(stack)
        cells = []
        for name in _COLUMNS:
            said = "".join(
                letters[each] if seen else letters[each].lower()
                for each, seen in told[name].items()
            )
            cells.append(f"{said or '-':<{_wide(name)}}")
        yield "".join((f"{shown(stack.title, 26):<27}", *cells)).rstrip()
        yield f"  {stack.layer}, {stack.provenance}, {shown(stack.versions, 50)}"
    yield ""
    yield from textwrap.wrap(
        "S spans, R fields or headers of replies, M /metrics; small letters: known from"
        " documents alone, counts one rung lower. `latdiag stacks URL` says what is on there.",
        _WIDTH,
    )


def _wide(name: str) -> int:
    return len(name) + 1


# ------------------------------------------------------------------ one server


def _seen(url: str, given: dict[str, Any]) -> tuple[list[Glimpse], str]:
    """What the server answered, and its base URL; TargetFault where it answered nothing."""
    from latdiag.cli.outcome import conceal
    from latdiag.load.look import beside, look
    from latdiag.load.work.preflight import locate

    headers = headers_of(given["api_key_env"], given["plain"], given["header_env"])
    conceal(*(value for _, value in headers))
    base, _, _ = locate(url, None)
    others = [_scrape_url(each) for each in given["metrics"]]
    asked = [beside(base, path) for path in ("/v1/models", "/metrics", "/version")]
    glimpses = look([*asked, *others], base, headers, not given["insecure"])
    first = glimpses[0]
    if not first.status:
        raise TargetFault(
            f"{without_credentials(first.url)} cannot be asked: "
            f"{_WHY.get(first.fault, first.fault)}",
            _REMEDIES.get(first.fault, "is this an HTTP server? check scheme and port"),
        )
    if first.status in (401, 403) and all(each.status != 200 for each in glimpses):
        raise TargetFault(
            f"{without_credentials(first.url)} wants a key: HTTP {first.status}",
            "give the name of the variable that holds the key: --api-key-env NAME",
        )
    return glimpses, base


def _scrape_url(text: str) -> str:
    """``host:9090`` and ``http://host:9090`` mean its ``/metrics``; UsageFault for no URL."""
    from latdiag.load.work.preflight import locate

    whole = text if "://" in text else f"http://{text}"
    locate(whole, None)  # says what is wrong with it
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(whole)
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/metrics", parts.query, ""))


def signs_of(glimpses: Sequence[Glimpse]) -> Signs:
    """The signs in the replies to /v1/models, /metrics, /version and further scrapes."""
    from latdiag.stacks import detect

    models, own, version, *others = glimpses
    scrapes = [each for each in (own, *others) if each.status == 200 and not each.fault]
    looked = {"metrics"} if own.status or any(each.status for each in others) else set()
    return detect.Signs(
        models=detect.of_models(_document(models)),
        headers=frozenset().union(*(detect.of_headers(each.headers) for each in glimpses)),
        metrics=frozenset().union(*(detect.of_exposition(each.text) for each in scrapes)),
        versions=detect.of_version(_document(version)),
        looked=frozenset(looked),
    )


def _document(glimpse: Glimpse) -> object:
    if glimpse.status != 200:
        return None
    try:
        return json.loads(glimpse.text)
    except (ValueError, RecursionError):
        return None


def _echo_found(base: str, glimpses: Sequence[Glimpse], signs: Signs, as_json: bool) -> None:
    from latdiag.stacks.detect import detect

    found = detect(signs)
    where = without_credentials(base)
    if as_json:
        from latdiag.diagnosis.result import Result
        from latdiag.report.json import dump

        result = Result(verb="stacks").to_json() | {"target": {"url": where, "model": None}}
        click.echo(dump(result | {"stacks": [_entry(one, signs) for one in found]}))
        return
    click.echo("\n".join(_said(where, glimpses, found, signs)))


def _entry(one: Found, signs: Signs) -> dict[str, Any]:
    from latdiag.stacks.detect import state

    return {
        "name": one.stack.name,
        "title": one.stack.title,
        "layer": one.stack.layer,
        "version": shown(one.version, 60) if one.version else None,
        "certain": one.certain,
        "grounds": "; ".join(shown(each, 80) for each in one.because[:4]),
        "switches": [
            {"what": each.what, "state": state(each, one.stack, signs), "flag": each.flag}
            for each in one.stack.switches
        ],
    }


def _said(
    where: str, glimpses: Sequence[Glimpse], found: Sequence[Found], signs: Signs
) -> Iterator[str]:
    yield from textwrap.wrap(f"{shown(where)}: {_answers(glimpses)}", _WIDTH)
    for one in found:
        entry = _entry(one, signs)
        version = f" {entry['version']}" if entry["version"] else ""
        doubt = "" if one.certain else ", perhaps"
        yield ""
        yield from _filled(f"{one.stack.title}{version} ({one.stack.layer}{doubt})", "", "  ")
        yield from _filled(f"by {entry['grounds']}", "  ", "    ")
        for each in entry["switches"]:
            yield from _filled(_switch(each), "  ", "    ")
    if not found:
        yield ""
        yield from textwrap.wrap(
            "No stack that latdiag knows shows itself by these GETs. Its replies or spans may"
            " still tell: `latdiag probe` looks at replies. `latdiag stacks` lists what is known.",
            _WIDTH,
        )


def _answers(glimpses: Sequence[Glimpse]) -> str:
    """``/v1/models 200, /metrics 404, ...``, the further scrapes by their URL."""
    names = ["/v1/models", "/metrics", "/version"]
    names += [shown(without_credentials(each.url), 60) for each in glimpses[3:]]
    return ", ".join(
        f"{name} {each.fault or each.status}" for name, each in zip(names, glimpses, strict=True)
    )


def _switch(entry: dict[str, Any]) -> str:
    if entry["state"] == "on":
        return f"on: {entry['what']}"
    known = {"off": "off", "unknown": "GETs cannot see"}[entry["state"]]
    return f"{known}: {entry['what']}; on with {entry['flag']}"


def _filled(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    )
