"""Where spans are taken and metrics scraped, by the options of all verbs that listen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from latdiag.cli.options import ON, ExportOptions, GatherOptions
from latdiag.cli.values import metrics_headers, variable
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown

if TYPE_CHECKING:
    from latdiag.export.way import Way
    from latdiag.ingest.gathering import Gather
    from latdiag.ingest.otlp.endpoints import Endpoints
    from latdiag.ingest.plan import Prometheus
    from latdiag.load.look import Headers, Origin
    from latdiag.load.trust import Trust

#: What a receiver on this machine is reached by.
_GRPC, _HTTP = "127.0.0.1:4317", "127.0.0.1:4318"


def gatherer(
    options: GatherOptions,
    quiet: bool,
    targets: Sequence[tuple[str, Headers]] = (),
    trust: Trust | None = None,
    export: ExportOptions | None = None,
) -> Gather:
    """What to do around a load, by its options. UsageFault for options that cannot be.

    ``targets``: URLs and the headers of requests to them, which scrapes of the same server get
    too where they have none of their own of that name.
    """
    from functools import partial

    from latdiag.ingest.gathering import gathering, nobody

    otlp = listening(*_doors(options), options)
    headers = metrics_headers(options.metrics, options.metrics_header_env)
    origins = []
    for target, theirs in targets:
        if (origin := _origin(target)) is not None:
            _add(headers, origin, theirs)
            origins.append(origin)
    prometheus = prometheus_of(options)
    if otlp is None and not options.metrics and prometheus is None:
        return _with_export(nobody, export, quiet)
    gather = partial(
        gathering,
        otlp=otlp,
        metrics=options.metrics,
        metrics_headers=headers,
        prometheus=prometheus,
        trust=trust,
        targets=origins,
        forward=options.forward,
        wait_ns=options.wait,
        say=sayer(quiet),
    )
    return _with_export(gather, export, quiet)


def _with_export(gather: Gather, options: ExportOptions | None, quiet: bool) -> Gather:
    """And traces that leave while the load runs."""
    from functools import partial

    if options is None or options.export is None:
        if options is not None and options.export_header_env:
            raise UsageFault("no --export is given", "give --export URL")
        return gather
    from latdiag.export.live import exporting

    return partial(exporting, way=_way(options.export, options), gather=gather, say=sayer(quiet))


def _way(url: str, options: ExportOptions) -> Way:
    from latdiag.cli.values import header_from
    from latdiag.export.live import BATCH_NS
    from latdiag.export.way import Way
    from latdiag.ingest.otlp.forward import Destination
    from latdiag.load.trust import Trust

    headers = tuple(header_from("--export-header-env", text) for text in options.export_header_env)
    destination = Destination.parse(url, "to export to")
    return Way(destination, headers, Trust(), BATCH_NS)


def prometheus_of(options: GatherOptions) -> Prometheus | None:
    """The Prometheus server that metrics come from. UsageFault for what is none."""
    url, match, token_env = (
        options.prometheus,
        options.prometheus_match.strip().removeprefix("{").removesuffix("}"),
        options.prometheus_token_env,
    )
    if url is None:
        if match or token_env:
            raise UsageFault("no --prometheus is given", "give --prometheus http://HOST:9090")
        return None
    from latdiag.ingest.plan import Prometheus
    from latdiag.ingest.prometheus.server import api_url

    try:
        api_url(url)
    except ValueError as fault:
        remedy = "give --prometheus http://HOST:9090; a token goes into --prometheus-token-env"
        raise UsageFault(shown(fault, 200), remedy) from None
    token = _token_of(token_env, "--prometheus-token-env")
    headers = (("Authorization", f"Bearer {token}"),) if token else ()
    return Prometheus(url, match, headers)


def _origin(target: str) -> Origin | None:
    """The origin of a URL as the user writes it; None for none: who asks it says what is wrong."""
    from latdiag.load.look import origin_of

    try:
        return origin_of(target if "://" in target else f"http://{target}")
    except ValueError:
        return None


def _add(headers: dict[Origin, Headers], origin: Origin, theirs: Headers) -> None:
    """Adds ``theirs`` to what goes out with scrapes of an origin."""
    own = headers.get(origin, ())
    named = {name.lower() for name, _ in own}
    headers[origin] = (*own, *(pair for pair in theirs if pair[0].lower() not in named))


def sayer(quiet: bool) -> Callable[[str], None]:
    """What takes lines for people who wait."""
    return lambda line: None if quiet else click.echo(shown(line, 300), err=True)


def spans_to(options: GatherOptions, target: str) -> str | None:
    """Where a server that this command starts sends its spans; None for nowhere."""
    _, http = _doors(options)
    if target.startswith("demo:") and http is not None and options.token_env:
        raise UsageFault("the built-in server presents no token", "leave out --token-env")
    return None if http is None else f"http://{http}"


def _doors(options: GatherOptions) -> tuple[str | None, str | None]:
    """HOST:PORT of the gRPC and of the HTTP receiver, as they were asked for."""
    grpc, http = options.otlp, options.otlp_http
    if grpc is not None and grpc != "off":
        http = http or _HTTP
    return (_GRPC if grpc == ON else grpc), (None if http == "off" else http)


def listening(grpc: str | None, http: str | None, options: GatherOptions) -> Endpoints | None:
    """Where spans are taken, None for nowhere, by the options of all verbs that listen.

    UsageFault for what cannot be, before there is a run; a port that is not known yet is checked
    by the child.
    """
    from latdiag.ingest.otlp.forward import Destination, refuse_own

    token = _token_of(options.token_env)
    otlp = _endpoints_of(grpc, http, token, options.allow_unauthenticated)
    check_metrics(options.metrics)
    if options.forward is not None:
        if otlp is None:
            raise UsageFault("--forward forwards spans, but no spans are received", "add --otlp")
        doors = [door for door in (otlp.grpc, otlp.http) if door]
        refuse_own(Destination.parse(options.forward), doors)
    return otlp


def _token_of(name: str | None, option: str = "--token-env") -> str | None:
    """The bearer token in an environment variable. UsageFault if there is none."""
    if name is None:
        return None
    token = variable(option, name)
    if not token.isprintable() or not token.isascii():
        raise UsageFault(
            "the token is not printable ASCII", "check for extra characters pasted with it"
        )
    return token


def _endpoints_of(
    grpc: str | None, http: str | None, token: str | None, allow_unauthenticated: bool
) -> Endpoints | None:
    from latdiag.ingest.otlp.endpoints import Endpoints, address_of

    doors = [
        None if text in (None, "off") else address_of(str(text), port)
        for text, port in ((grpc, 4317), (http, 4318))
    ]
    if doors == [None, None]:
        return None
    return Endpoints(doors[0], doors[1], token, allow_unauthenticated)


def check_metrics(urls: Sequence[str]) -> None:
    """UsageFault for URLs that nothing can be scraped from."""
    from latdiag.ingest.prometheus.scrape import Scraper

    try:
        Scraper(urls, frozenset())
    except ValueError as fault:
        remedy = "give --metrics http://HOST:PORT"
        if "password" in str(fault):
            remedy += " and, for Basic, --metrics-header-env 'Authorization: VARIABLE'"
        raise UsageFault(shown(fault, 200), remedy) from None
