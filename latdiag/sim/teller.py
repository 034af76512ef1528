"""Servers as they present themselves: a page of ``/metrics`` and spans, by clocks of their own."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import monotonic_ns

from latdiag.sim import spans
from latdiag.sim.exposition import Metrics, Own
from latdiag.sim.params import Params
from latdiag.sim.telemetry import Clock, Telemetry, stated
from latdiag.sim.truth import DECODE, PREFILL, WHOLE, Visit


class Teller:
    """Of the server that has ``part``. ``exporter``: of its spans; None: it sends none.

    ``gauges``: of the engine, now. Instants are MONOTONIC, ns.
    """

    def __init__(
        self,
        part: str,
        model: str,
        params: Params,
        faults: Telemetry,
        gauges: Callable[[], Mapping[str, float]],
        exporter: spans.Exporter | None,
    ) -> None:
        self._part, self._model, self._params, self._faults = part, model, params, faults
        self._gauges = gauges
        self.exporter = exporter
        self._clock = Clock(faults, part, monotonic_ns())
        self._reset_ns: int | None = None
        self._metrics = self._begun(monotonic_ns(), {})

    def _begun(self, now_ns: int, before: Mapping[str, float]) -> Metrics:
        """A page of a process that begins now."""
        real_ns = time.time_ns() - monotonic_ns()
        created_s = (self._clock.wall(now_ns) + real_ns) / 1e9
        return Metrics(self._model, self._params, created_s, before)

    def first_request(self, at_ns: int) -> None:
        """From here on the faults count their time."""
        self._clock = Clock(self._faults, self._part, at_ns)
        if math.isfinite(self._faults.reset_after_s):
            self._reset_ns = at_ns + round(self._faults.reset_after_s * 1e9)

    @property
    def metrics(self) -> Metrics:
        """Of the process that runs now: another one, when it is time for it to begin anew."""
        if self._reset_ns is not None and monotonic_ns() >= self._reset_ns:
            self._reset_ns = None
            self._metrics = self._begun(monotonic_ns(), dict(self._gauges()))
        return self._metrics

    def page(self) -> str:
        """The text of ``/metrics``."""
        return self.metrics.render(self._gauges())

    def first_token(self, arrived_ns: int, at_ns: int, isl: int) -> None:
        wall = self._clock.wall
        self.metrics.first_token(wall(at_ns) - wall(arrived_ns), isl)
        self.metrics.token(None)

    def token(self, before_ns: int, at_ns: int) -> None:
        """A token left at ``at_ns``, and the one before it at ``before_ns``."""
        monotonic = self._clock.monotonic
        self.metrics.token(monotonic(at_ns) - monotonic(before_ns))

    def in_reply(self, visit: Visit, osl: int) -> dict[str, float]:
        """What vLLM states of a request in its own reply, ms. What it calls the time to the first
        token begins when the request is scheduled."""
        said = stated(visit, self._clock)
        times = {
            "time_to_first_token_ms": said["prefill"] / 1e6,
            "generation_time_ms": said["decode"] / 1e6,
            "queue_time_ms": said["queue"] / 1e6,
        }
        if osl > 1:
            times["mean_itl_ms"] = said["decode"] / (osl - 1) / 1e6
        if said["inference"]:
            times["tokens_per_second"] = osl / said["inference"] * 1e9
        return times

    def finished(
        self, visit: Visit, asked: spans.Asked, context: spans.Context, reason: str
    ) -> None:
        """A request is done here. ``reason``: stop or length."""
        most = 1 if visit.part == PREFILL else asked.max_tokens
        self.metrics.finished(visit, stated(visit, self._clock), most, reason)
        if self.exporter is not None and context.sampled:
            real_ns = time.time_ns() - monotonic_ns()
            said = spans.record(context, visit, self._clock, real_ns, asked)
            self.exporter.offer(spans.line(said))


Gauges = Callable[[str], Mapping[str, float]]


class Tellers:
    """All of them: one, or where prefill and decode are apart two. ``own``: figures of the demo.

    ``gauges``: of the engine, by part. ``otlp``: URL that the spans go to, or None.
    """

    def __init__(
        self,
        params: Params,
        model: str,
        faults: Telemetry,
        gauges: Gauges,
        otlp: str | None,
        seed: int,
    ) -> None:
        self.own = Own()
        parts = (PREFILL, DECODE) if params.disaggregated else (WHOLE,)
        self.first = parts[0]
        self._by_part = {
            part: Teller(
                part,
                model,
                params,
                faults,
                partial(gauges, part),
                spans.Exporter(otlp, faults, part, seed) if otlp else None,
            )
            for part in parts
        }
        self._asked = False

    def __getitem__(self, part: str) -> Teller:
        return self._by_part[part]

    def request(self, at_ns: int) -> None:
        """A request came; the faults count their time from the first one on."""
        if not self._asked:
            self._asked = True
            for teller in self._by_part.values():
                teller.first_request(at_ns)

    def pages(self) -> dict[str, Callable[[], str]]:
        """By path. Where prefill and decode are apart ``/metrics`` has our figures alone: what is
        in front of the two knows nothing of their engines."""
        own = {f"/{part}/metrics": one.page for part, one in self._by_part.items() if part}
        return {"/metrics": self._front, **own}

    def _front(self) -> str:
        self.own.counts["spans_dropped"] = sum(one.dropped for one in self._exporters())
        page = self[WHOLE].page() if WHOLE in self._by_part else ""
        return page + self.own.render()

    def _exporters(self) -> Iterator[spans.Exporter]:
        for teller in self._by_part.values():
            if teller.exporter is not None:
                yield teller.exporter

    def close(self) -> dict[str, int] | None:
        """Let the exporters deliver what they have; what all of them sent and did not, or None."""
        exporters = list(self._exporters())
        for exporter in exporters:
            exporter.end()
        counts = Counter[str]()
        for exporter in exporters:
            counts.update(exporter.close())
        return dict(counts) if exporters else None
