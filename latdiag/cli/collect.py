"""``latdiag collect``: what servers say, while somebody else sends them requests."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from latdiag import __version__
from latdiag.cli.options import DURATION, SIZE
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown, without_credentials
from latdiag.model.units import NS_PER_S, show_duration

if TYPE_CHECKING:
    from latdiag.diagnosis.collected import Collected
    from latdiag.diagnosis.result import Result
    from latdiag.ingest.collector import Collector
    from latdiag.ingest.otlp.endpoints import Endpoints

_SAY_EVERY_S = 10.0
_POLL_S = 0.2
#: Senders that are named in one line.
_NAMED = 5
_WIDTH = 79


@click.command(name="collect", context_settings={"max_content_width": 79})
@click.option(
    "--duration", type=DURATION, default="60s", show_default=True, help="Collect for so long."
)
@click.option(
    "--otlp",
    metavar="HOST:PORT",
    default="127.0.0.1:4317",
    show_default=True,
    help="Take spans by gRPC here; off for not.",
)
@click.option(
    "--otlp-http",
    metavar="HOST:PORT",
    default="127.0.0.1:4318",
    show_default=True,
    help="Take spans by HTTP here; off for not.",
)
@click.option("--metrics", multiple=True, metavar="URL", help="Scrape these metrics; repeatable.")
@click.option("--forward", metavar="URL", help="Pass all exports on to this collector.")
@click.option(
    "--wait",
    type=DURATION,
    default="10s",
    show_default=True,
    help="At the end, until no late span came for so long.",
)
@click.option(
    "--max-disk", type=SIZE, default="2GB", show_default=True, help="Take no more than this."
)
@click.option(
    "--token-env", metavar="NAME", help="Variable with the bearer token that senders show."
)
@click.option(
    "--allow-unauthenticated", is_flag=True, help="Listen to other machines without a token."
)
@click.option("--out", help="Where the run goes; default ./latdiag-runs/UTC-VERB-HOST.run.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout.")
def collect(**given: Any) -> int:
    """Collect what servers say: spans (OTLP) and metrics. No request is sent to them.

    Point the servers' exporters here, and let their traffic come; `latdiag diagnose` then says
    where its time went.

    \b
    latdiag collect --metrics http://localhost:8000
    latdiag collect --duration 10m --forward http://otel-collector:4317
    latdiag collect --otlp 0.0.0.0:4317 --token-env TOKEN
    """
    from latdiag.ingest.collector import collecting
    from latdiag.stacks.catalogue import families, stacks

    otlp = listening(given["otlp"], given["otlp_http"], given)
    if otlp is None and not given["metrics"]:
        raise UsageFault("nothing is to be collected", "leave --otlp on, or give --metrics URL")
    path = _create(otlp, given)
    with (
        _of_run(path),
        _signals() as signals,
        collecting(
            path,
            stacks(),
            families(),
            otlp=otlp,
            metrics=given["metrics"],
            forward=given["forward"],
            max_disk=given["max_disk"],
        ) as collector,
    ):
        found = _Collection(collector, signals, given).run()
    result = _result(path, found)
    _show(result, given["as_json"])
    return 128 + signals[0] if signals else 0


# ---------------------------------------------------------------------- options
def listening(grpc: str | None, http: str | None, given: Mapping[str, Any]) -> Endpoints | None:
    """Where spans are taken, None for nowhere, by the options of all verbs that listen.

    UsageFault for what cannot be, before there is a run; a port that is not known yet is checked
    by the child.
    """
    from latdiag.ingest.otlp.forward import Destination, refuse_own

    token = token_of(given["token_env"])
    otlp = endpoints_of(grpc, http, token, given["allow_unauthenticated"])
    check_metrics(given["metrics"])
    if given["forward"] is not None:
        if otlp is None:
            raise UsageFault("--forward passes spans on, and none are taken", "give --otlp too")
        doors = [door for door in (otlp.grpc, otlp.http) if door]
        refuse_own(Destination.parse(given["forward"]), doors)
    return otlp


def token_of(variable: str | None) -> str | None:
    """The bearer token in an environment variable; concealed from now on. UsageFault if none."""
    from latdiag.cli.outcome import conceal

    if variable is None:
        return None
    token = os.environ.get(variable, "").strip()
    if not token or not token.isprintable() or not token.isascii():
        raise UsageFault(
            f"the environment variable {shown(variable, 60)} holds no token", "export it first"
        )
    conceal(token)
    return token


def endpoints_of(
    grpc: str | None, http: str | None, token: str | None, allow_unauthenticated: bool
) -> Endpoints | None:
    """Where spans are taken; None where nowhere (both ``off`` or not given)."""
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
        raise UsageFault(shown(fault, 200), "give --metrics http://HOST:PORT") from None


def _create(otlp: Endpoints | None, given: dict[str, Any]) -> str:
    """Make the run; its path."""
    from latdiag.cli.execute import redacted_command
    from latdiag.cli.outcome import concealed
    from latdiag.store.writer import create_run, default_run_path

    forward = given["forward"]
    header = {
        "tool": {"name": "latdiag", "version": __version__, "verb": "collect"},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": {"url": None, "model": None, "dialect": None, "peer": None},
        "stacks": [],
        "plan": {
            "duration_ns": given["duration"],
            "wait_ns": given["wait"],
            "max_disk": given["max_disk"],
            "otlp": {"grpc": otlp.grpc, "http": otlp.http} if otlp else None,
            "metrics": [without_credentials(url) for url in given["metrics"]],
            "forward": without_credentials(forward) if forward else None,
        },
        "client": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
        },
        "command": concealed(redacted_command(sys.argv)),
    }
    return create_run(
        given["out"] or default_run_path("collect", datetime.now(UTC)),
        header,
    )


@contextlib.contextmanager
def _of_run(path: str) -> Iterator[None]:
    from latdiag.cli.execute import of_run

    with of_run(path):
        yield


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The numbers of the SIGINT and SIGTERM that came, while the block lasts."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, _frame: came.append(number)) for n in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------------- collecting
class _Collection:
    """The parent while the child collects: waits, says what comes, and ends it."""

    def __init__(self, collector: Collector, signals: list[int], given: dict[str, Any]) -> None:
        self._collector = collector
        self._signals = signals
        self._given = given
        self._begun_s = time.monotonic()
        self._next_s = self._begun_s + _SAY_EVERY_S
        self._missing: set[tuple[str, str]] = set()

    def run(self) -> dict[str, Any]:
        """What was collected, with ``duration_ns`` and ``stopped`` (a signal's number or 0)."""
        doors = {"gRPC": self._collector.grpc, "HTTP": self._collector.http}
        open_doors = [f"{name} at {where}" for name, where in doors.items() if where]
        self._say(f"collecting: {', '.join(open_doors) or 'metrics only'}")
        self._edge("begin")
        until = self._begun_s + self._given["duration"] / NS_PER_S
        while not self._signals and (left := until - time.monotonic()) > 0:
            time.sleep(min(_POLL_S, left))
            if self._tick() is None:
                break  # the child is gone; ``finish`` says so
        self._edge("end")
        lasted_ns = round((time.monotonic() - self._begun_s) * NS_PER_S)
        wait_ns = self._given["wait"] if doors["gRPC"] or doors["HTTP"] else 0
        if signal.SIGTERM in self._signals:
            wait_ns = 0
        if wait_ns:
            again = "; once more to end at once" if self._signals else ""
            self._say(f"waiting {show_duration(wait_ns)} for late spans{again}")
        heard = len(self._signals)

        def hurry() -> None:
            self._tick()
            if len(self._signals) > heard:
                self._collector.hurry()

        found = self._collector.finish(wait_ns, hurry)
        return {**found, "duration_ns": lasted_ns, "stopped": (self._signals or [0])[0]}

    def _tick(self) -> bool | None:
        """Say what came, where it is time for that; None if the child does not answer."""
        if time.monotonic() < self._next_s:
            return False
        self._next_s += _SAY_EVERY_S
        found = self._collector.snapshot()
        if found is None:
            return None
        for line in progress_lines(found, round(time.monotonic() - self._begun_s)):
            self._say(line)
        return True

    def _edge(self, label: str) -> None:
        for problem in self._collector.edge(label):
            key = (problem.replica, problem.text)
            if key not in self._missing:
                self._missing.add(key)
                self._say(f"{problem.replica}: {problem.text}")

    def _say(self, line: str) -> None:
        if not self._given["quiet"]:
            click.echo(shown(line, 300), err=True)


def progress_lines(found: dict[str, Any], seconds: int) -> list[str]:
    """What arrived so far, and which senders no stack here knows."""
    senders = found["senders"]
    total = found["senders_total"]
    spans = f"{found['accepted']} spans from {total} sender{'s' * (total != 1)}"
    parts = [spans]
    if found["samples"]:
        parts.append(f"{found['samples']} samples in {sum(found['scrapes'].values())} scrapes")
    if refused := sum(found["refused"].values()):
        parts.append(f"{refused} spans refused")
    if turned_away := sum(found["refused_exports"].values()):
        parts.append(f"{turned_away} exports refused")
    if found["forward_failed"]:
        parts.append(f"{found['forward_failed']} exports not forwarded")
    if found["disk_cap_reached"]:
        parts.append("--max-disk is reached")
    lines = wrap(f"{seconds} s: {', '.join(parts)}", _WIDTH, subsequent_indent="  ")
    unknown = [sender for sender in senders if not sender["known"]]
    for sender in unknown[:_NAMED]:
        names = ", ".join(shown(name, 40) for name in sender["span_names"][:3])
        service = sender["service"] or sender["sender"]
        text = f"  of no stack known here: {shown(service, 60)} ({names})"
        lines += wrap(text, _WIDTH, subsequent_indent="    ")
    if found["unknown_senders"] > _NAMED:
        more = found["unknown_senders"] - _NAMED
        lines.append(f"  and {more} more senders of no stack known here")
    return lines


# ---------------------------------------------------------------------- the result
def _result(path: str, found: dict[str, Any]) -> Result:
    from latdiag.diagnosis.collected import Collected, caveats
    from latdiag.diagnosis.result import Result
    from latdiag.store.place import displayed

    counts = Collected.read(found)
    return Result(
        verb="collect",
        run=displayed(path),
        collected=replace(
            counts,
            duration_ns=found["duration_ns"],
            stopped=found["stopped"],
        ),
        caveats=tuple(caveats(counts)),
    )


def _show(result: Result, as_json: bool) -> None:
    if as_json:
        from latdiag.report.json import dump

        click.echo(dump(result))
        return
    for line in result_lines(result):
        click.echo(line)


def result_lines(result: Result) -> list[str]:
    """The result for people."""
    found = result.collected
    assert found is not None
    lines = [f"Collected for {show_duration(found.duration_ns or 0)}"]
    lines.append(f"  spans      {_counted(found.accepted)} in {found.exports} exports")
    senders = found.senders or ()
    for sender in senders[:_NAMED]:
        mark = "" if sender.known else "  (no stack known here)"
        name = shown(sender.service or sender.sender, 36 if mark else 60)
        lines.append(f"    {_counted(sender.spans):>12}  {name}{mark}")
    rest = senders[_NAMED:]
    if rest:
        lines.append(f"    {_counted(sum(s.spans for s in rest)):>12}  {len(rest)} others")
    scrapes = sum(found.scrapes.values())
    lines.append(f"  samples    {_counted(found.samples)} in {scrapes} scrapes")
    for text in _oddities(found):
        lines += wrap(f"  {text}", _WIDTH, subsequent_indent=" " * 13)
    lines += ["", f"Run: {result.run}", f"Next: latdiag diagnose {result.run}"]
    return lines


def _oddities(found: Collected) -> list[str]:
    """What is not as it should be, a line each."""
    lines = [f"refused    {_counted(n)} spans: {why}" for why, n in found.refused.items()]
    lines += [
        f"refused    {_counted(n)} exports: {why}" for why, n in found.refused_exports.items()
    ]
    lines += [
        f"left out   {_counted(n)} exports of {what}" for what, n in found.other_signals.items()
    ]
    if found.forwarded is not None:
        failed = found.forward_failed
        lines.append(f"forwarded  {_counted(found.forwarded)} exports, {failed} failed")
    if found.disk_cap_reached:
        lines.append("stopped    taking more at --max-disk")
    lines += [
        f"scraping   {shown(p.replica, 60)}: {shown(p.text, 80)}"
        for p in found.scrape_problems[:_NAMED]
    ]
    if not found.accepted and not found.samples:
        lines.append("nothing    came: is the exporter of the server on, and does it point here?")
    return lines


def _counted(number: int) -> str:
    return f"{number:,}".replace(",", " ")
