"""The demo stack as others use it: a faulty server by name, for the time of a block.

The server is a process of its own, and so are a gateway in front of it where there is one, and a
relay in front of both where the network is slow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from latdiag.model.errors import LatdiagError
from latdiag.sim import gateway, relay, server
from latdiag.sim.loop import LateFigures
from latdiag.sim.params import FAULTS, Params, echo
from latdiag.sim.process import Child, running
from latdiag.sim.spans import traces_url
from latdiag.sim.telemetry import Telemetry

_LOOK_S = 0.1
#: What each fault does, for people.
MEANINGS = {
    "healthy": "a small server with nothing wrong: short queues, steps and prompts",
    "queue": "a small batch: requests wait before anything is computed for them",
    "prefill": "prompts take long to compute, replies are fast",
    "decode": "every step of the replies is slow",
    "interference": "other requests' prompts stop or stretch the steps of running replies",
    "kv-transfer": "prefill and decode run on separate servers; moving the KV cache takes long",
    "network": "a long network path to a fast server",
    "gateway": "a gateway in front takes long over each POST, and nothing over a GET",
    "gateway-tokens": "a gateway in front takes longer over each token than the server",
    "gateway-flush": "a gateway in front holds the stream back and sends it in bursts",
    "gateway-queue": "a gateway in front lets too few requests through at once",
}


class DemoReport(TypedDict, total=False):
    """What there was of a demo, empty until it has ended. ``lateness``: of the tokens against the
    schedule; ``relay_lateness``: of the bytes that the relay, or else the gateway, passed on, None
    without either; ``spans``: see ``spans.Exporter.close``, None without an exporter."""

    lateness: LateFigures | None
    relay_lateness: LateFigures | None
    spans: dict[str, int] | None


@dataclass(slots=True)
class Demo:
    """A running demo. ``url``: its API; ``pids``: of its processes, the server's first.
    ``report`` is filled when it has ended.
    """

    url: str
    params: Params
    children: tuple[Child, ...]
    report: DemoReport = field(default_factory=DemoReport)

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(child.pid for child in self.children)

    @property
    def behind(self) -> str | None:
        """The API of the server itself where a gateway is in front."""
        return f"{self.children[0].url}/v1" if self.params.has_gateway else None

    @property
    def fault(self) -> LatdiagError | None:
        """Why a process of it ended by itself, where it said so; known when it has ended."""
        return next((child.fault for child in self.children if child.fault), None)

    def wait(self) -> None:
        """Until one of its processes ends, which none does by itself."""
        while not any(child.ends_within(_LOOK_S) for child in self.children):
            pass


def params_of(fault: str) -> Params:
    """The preset of a fault. Raises ValueError with the names that there are."""
    try:
        return FAULTS[fault]
    except KeyError:
        raise ValueError(f"no fault {fault!r}; there are {', '.join(FAULTS)}") from None


@contextlib.contextmanager
def serving(
    params: Params,
    *,
    seed: int = 0,
    port: int = 0,
    truth: Path | None = None,
    otlp: str | None = None,
    model: str = "demo",
    telemetry: Telemetry | None = None,
    timings: bool = False,
) -> Iterator[Demo]:
    """A demo server with these constants; see ``running_demo``."""
    slow = params.network_ms > 0 or params.network_jitter_ms > 0
    hidden = slow or params.has_gateway
    setup = server.Setup(
        params=params,
        seed=seed,
        port=0 if hidden else port,
        model=model,
        truth=None if truth is None else str(truth.absolute()),
        otlp=None if otlp is None else traces_url(otlp),
        timings=timings,
        telemetry=telemetry or Telemetry(),
    )
    failure = f"the demo server did not start on port {port}"
    ended: list[Child] = []
    demo: Demo | None = None
    try:
        with contextlib.ExitStack() as stack:
            behind = stack.enter_context(running("server", setup.to_json(), failure=failure))
            ended.append(behind)
            if params.has_gateway:
                front = gateway.Setup(
                    upstream=behind.port,
                    delay_ms=params.gateway_ms,
                    token_ms=params.gateway_token_ms,
                    flush_ms=params.gateway_flush_ms,
                    admits=params.gateway_admits,
                    port=0 if slow else port,
                    truth=None if truth is None else f"{truth.absolute()}.gateway",
                )
                given = gateway.arguments(front)
                ended.append(stack.enter_context(running("gateway", given, failure=failure)))
            if slow:
                way = relay.Setup(
                    upstream=ended[-1].port,
                    delay_ms=params.network_ms,
                    jitter_ms=params.network_jitter_ms,
                    port=port,
                    seed=seed,
                )
                given = relay.arguments(way)
                ended.append(stack.enter_context(running("relay", given, failure=failure)))
            demo = Demo(f"{ended[-1].url}/v1", params, tuple(ended))
            yield demo
    finally:
        if demo is not None:
            demo.report.update(_report(ended))


def _report(ended: list[Child]) -> DemoReport:
    behind, *between = [child.report for child in ended]
    passed_on = between[-1] if between else None
    return {
        "lateness": behind.lateness if behind else None,
        "relay_lateness": passed_on.lateness if passed_on else None,
        "spans": behind.spans if behind else None,
    }


@contextlib.contextmanager
def running_demo(
    fault: str = "healthy",
    *,
    seed: int = 0,
    params: Params | None = None,
    port: int = 0,
    truth: Path | None = None,
    otlp: str | None = None,
    model: str = "demo",
    telemetry: Telemetry | None = None,
    timings: bool = False,
) -> Iterator[str]:
    """The URL (``http://127.0.0.1:PORT/v1``) of a demo server with a fault, for the block's time.

    ``params``: in place of the fault's own. ``truth``: a file that gets a line of JSON for each
    finished request, see ``truth.Truth.line``; what a gateway in front did to it is in a file
    beside it, with ``.gateway`` behind its name, see ``gateway.Visit.line``. ``otlp``: URL of a
    collector (OTLP over HTTP) for its spans, of two servers where prefill and decode are apart;
    those have ``/metrics`` of their own too, at ``/prefill/metrics`` and ``/decode/metrics``.
    ``telemetry``: what is wrong with what is said, which changes nothing that is done.
    ``timings``: each reply states the times of its request, as vLLM's do where they are asked to.
    It ends with the block, and with this process however that ends. Raises ValueError for an
    unknown fault or such a URL, OSError where a process does not start.
    """
    constants = params_of(fault) if params is None else params
    with serving(
        constants,
        seed=seed,
        port=port,
        truth=truth,
        otlp=otlp,
        model=model,
        telemetry=telemetry,
        timings=timings,
    ) as demo:
        yield demo.url


@contextlib.contextmanager
def running_echo(port: int = 0, *, ttft_ms: float = 50.0, itl_ms: float = 10.0) -> Iterator[str]:
    """The URL of a demo server that only keeps a pace (``params.echo``); its model is ``echo``."""
    with running_demo(params=echo(ttft_ms, itl_ms), port=port, model="echo") as url:
        yield url
