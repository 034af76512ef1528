"""``latdiag demo``: a server with a known fault on a port of this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latdiag.cli.outcome import INTERRUPTED, TERMINATED, Terminated
from latdiag.model.errors import LocalFault, UsageFault

if TYPE_CHECKING:
    from latdiag.sim.demo import Demo
    from latdiag.sim.params import Params

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@click.command(name="demo", context_settings={"max_content_width": 79})
@click.argument("fault", default="healthy")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="On 127.0.0.1; 0: a free one.",
)
@click.option("--seed", default=0, show_default=True, help="Of noise, lengths and --draw.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="A constant of the server, such as max_seqs=4.",
)
@click.option("--draw", is_flag=True, help="Draw all constants anew; the fault stays.")
@click.option("--truth", metavar="FILE", help="Where each request's time really went, as JSON.")
@click.option("--otlp", metavar="URL", help="Send spans there as vLLM does (OTLP over HTTP).")
@click.option("--timings", is_flag=True, help="State each request's times in its reply, as vLLM.")
@click.option(
    "--telemetry",
    metavar="LIST",
    default="",
    help="Faults of what it says, not of what it does: skew, step, drift, lost, late,"
    " repeated, unordered, reset; skew=-500 and the like.",
)
@click.option("--quiet", is_flag=True, help="Nothing but the URL.")
@click.option("--json", "as_json", is_flag=True, help="JSON: a line at the start, one at the end.")
def demo(fault: str, **given: Any) -> int:
    """Serve a simulated LLM with a FAULT until Ctrl-C, to try latdiag on.

    FAULT: healthy, queue, prefill, decode, interference, kv-transfer or network.

    \b
    latdiag demo queue
    latdiag demo decode --port 0 --set weights_ms=60 --truth truth.jsonl
    latdiag demo kv-transfer --otlp http://127.0.0.1:4318 --telemetry skew,lost=0.1
    """
    from latdiag.sim.demo import serving
    from latdiag.sim.telemetry import telemetry_of

    constants = _constants(fault, given["seed"], given["draw"], given["changes"])
    served: Demo | None = None
    ended: BaseException | None = None
    try:
        with serving(
            constants,
            seed=given["seed"],
            port=given["port"],
            truth=Path(given["truth"]) if given["truth"] else None,
            otlp=given["otlp"],
            timings=given["timings"],
            telemetry=telemetry_of(given["telemetry"]),
        ) as served:
            _say_start(served, fault, given)
            try:
                served.wait()
            except (KeyboardInterrupt, Terminated) as signal:
                ended = signal
        if ended is None:
            raise LocalFault("the demo server ended by itself", "see what it said above")
    except ValueError as exc:
        raise UsageFault(str(exc), "latdiag demo --help") from exc
    except OSError as exc:
        raise LocalFault(str(exc), "choose another --port, or 0 for a free one") from exc
    if given["as_json"]:
        _say_json({"url": served.url, **served.report})
        return TERMINATED if isinstance(ended, Terminated) else INTERRUPTED
    if not given["quiet"]:
        click.echo("\n".join(_end(served.report)), err=True)
    raise ended


def _say_start(served: Demo, fault: str, given: Mapping[str, Any]) -> None:
    """The URL on stdout, and for people what there is to see."""
    from latdiag.sim.demo import MEANINGS

    if given["as_json"]:
        constants = json.loads(served.params.to_json())
        start = {"url": served.url, "fault": fault, "seed": given["seed"], "constants": constants}
        _say_json(start)
    else:
        click.echo(served.url)
        sys.stdout.flush()
    if not given["quiet"]:
        click.echo(f"{fault}: {MEANINGS[fault]}\ntry: latdiag probe {served.url}", err=True)


def _say_json(fields: Mapping[str, Any]) -> None:
    click.echo(json.dumps({"schema": 1, "demo": fields}))
    sys.stdout.flush()


def _constants(fault: str, seed: int, draw: bool, changes: Iterable[str]) -> Params:
    """The fault's constants as the options want them. UsageFault for what cannot be."""
    from dataclasses import replace

    from latdiag.sim import params

    if fault not in params.FAULTS:
        near = get_close_matches(fault, params.FAULTS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        text = f"there is no fault {fault!r}.{hint}"
        raise UsageFault(text, f"latdiag demo {near[0] if near else 'healthy'}")
    found = params.draw(fault, seed) if draw else params.FAULTS[fault]
    try:
        return replace(found, **dict(_change(text, found) for text in changes))
    except ValueError as exc:
        raise UsageFault(f"--set: {exc}", "latdiag demo --help") from exc


def _change(text: str, params: Params) -> tuple[str, Any]:
    """NAME=VALUE as a field of Params and its value. UsageFault where it is none."""
    from dataclasses import fields

    name, equals, value = text.partition("=")
    kinds = {field.name: str(field.type) for field in fields(params)}
    if not equals:
        raise UsageFault(f"--set {text!r} is not NAME=VALUE", "for example --set max_seqs=4")
    if name not in kinds:
        near = get_close_matches(name, kinds, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise UsageFault(
            f"--set: there is no constant {name!r}. {hint}There are {', '.join(kinds)}",
            f"--set {near[0] if near else 'max_seqs'}=VALUE",
        )
    try:
        return name, _READ[kinds[name]](value.strip())
    except ValueError:
        text = f"--set {name}: {value!r} is not {_WANTED[kinds[name]]}"
        raise UsageFault(text, f"it is {getattr(params, name)} now") from None


def _switch(text: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ValueError
    return text.lower() in _TRUE


#: By the type of a field: how its value is read, and what it should have been.
_READ: dict[str, Callable[[str], Any]] = {
    "float": float,
    "int": int,
    "bool": _switch,
    "str": str,
    "int | None": lambda text: None if text == "none" else int(text),
    "frozenset[str]": lambda text: frozenset(filter(None, text.split(","))),
}
_WANTED = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "int | None": "a whole number or none",
}


def _end(report: Mapping[str, Any]) -> Iterator[str]:
    """What there was, in a line each."""
    parts = (("tokens", report["lateness"]), ("relayed pieces", report["relay_lateness"]))
    for what, late in parts:
        if late and late["n"]:
            p50, p99, worst = late["p50_us"] / 1000, late["p99_us"] / 1000, late["max_ns"] / 1e6
            yield (
                f"{late['n']} {what} left later than scheduled by {p50:.3f} ms (p50),"
                f" {p99:.3f} ms (p99), {worst:.3f} ms (max)"
            )
    if report["lateness"] and not report["lateness"]["n"]:
        yield "no token was asked for"
    if report["spans"]:
        told = report["spans"]
        more = [f"{told[name]} {name} on purpose" for name in ("lost", "repeated") if name in told]
        yield ", ".join([f"{told['sent']} spans sent", f"{told['dropped']} dropped", *more])
