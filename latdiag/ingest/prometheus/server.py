"""What servers said of themselves, out of a Prometheus server that scrapes them.

Asked for are raw samples with the instants at which Prometheus scraped them
(``SELECTOR[RANGE]`` at ``/api/v1/query``), never rates or values that it interpolates. The scrape
before a load and the one after it are the edges of its window, so its end waits for that scrape.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlunsplit

import httpx

from latdiag.ingest.plan import Problem
from latdiag.ingest.prometheus.exposition import MOST_TEXT, columns_of
from latdiag.ingest.prometheus.scrape import parts_of
from latdiag.load.look import Headers
from latdiag.load.trust import Trust
from latdiag.model.secrets import concealed
from latdiag.model.text import shown, without_credentials
from latdiag.model.units import NS_PER_S

#: So long before a load a server's last scrape may lie, and so long after it the next is awaited.
LOOK_BACK_S, PATIENCE_S = 150, 75
_TIMEOUT_S, _POLL_S = 10.0, 1.0
MOST_TARGETS = 1000
#: Labels that Prometheus adds: they name the server that was scraped.
_OF_TARGET = ("job", "instance")

_Target = tuple[str, ...]
#: By server and instant of its scrape (ms, Prometheus' clock), lines of an exposition.
_Scrapes = dict[_Target, dict[int, list[str]]]


class _Refused(Exception):
    """A reply that holds no samples; the sentence for it."""


class _Clock(NamedTuple):
    """Prometheus' clock (s) and the MONOTONIC one (ns) at one instant."""

    prometheus_s: float
    mono_ns: int

    def mono(self, at_ms: int) -> int:
        return self.mono_ns + round((at_ms / 1e3 - self.prometheus_s) * NS_PER_S)


class PrometheusServer:
    """The scrapes that a Prometheus server at ``url`` makes of servers with ``families``.

    ``match``: further conditions of the selector (``job="vllm"``), empty for none. ``headers`` go
    out with each query. ``scrape`` as that of ``Scraper``, one row of evidence per series, scrape
    and server.
    """

    def __init__(
        self,
        url: str,
        families: frozenset[str],
        match: str = "",
        *,
        headers: Headers = (),
        trust: Trust | None = None,
    ) -> None:
        self._url = api_url(url)
        self._families = families
        self._selector = f"{{{_names(families)}{',' if match else ''}{match}}}"
        self._headers = [*headers, ("User-Agent", "latdiag"), ("Accept-Encoding", "identity")]
        secure = self._url.startswith("https:")
        self._verify = (trust or Trust()).for_others().context() if secure else False
        self._newest: dict[_Target, int] = {}

    @property
    def name(self) -> str:
        """Its URL without what may be secret."""
        return without_credentials(self._url.removesuffix("/api/v1/query"))

    def scrape(self, edge: str) -> tuple[dict[str, list[Any]], list[Problem]]:
        """Columns of ``evidence`` with the scrapes since the last call, and what is missing. The
        edge ``begin`` takes the last one of each server, ``end`` awaits one more of each."""
        columns: dict[str, list[Any]] = {}
        problems: list[Problem] = []
        try:
            with httpx.Client(
                verify=self._verify, trust_env=False, timeout=_TIMEOUT_S, headers=self._headers
            ) as client:
                self._scrape(client, edge, columns, problems)
        except _Refused as refused:
            problems.append(Problem(self.name, str(refused)))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as fault:
            text = f"{type(fault).__name__}: {concealed(shown(fault, 120))}"
            problems.append(Problem(self.name, text))
        return columns, problems

    def _scrape(
        self,
        client: httpx.Client,
        edge: str,
        columns: dict[str, list[Any]],
        problems: list[Problem],
    ) -> None:
        clock = self._now(client)
        end_ms = round(clock.prometheus_s * 1e3)
        until = time.monotonic() + PATIENCE_S
        begin = edge == "begin"
        while True:
            scrapes = self._since(client, clock)
            if begin:
                scrapes = {who: {max(found): found[max(found)]} for who, found in scrapes.items()}
            for who, found in scrapes.items():
                for at_ms, lines in sorted(found.items()):
                    if edge == "end" and self._newest.get(who, 0) >= end_ms:
                        break  # its end is there, and later ones hold others' requests
                    label = "periodic" if edge == "end" and at_ms < end_ms else edge
                    self._take(who, clock.mono(at_ms), label, lines, columns, problems)
                    self._newest[who] = max(at_ms, self._newest.get(who, 0))
            late = [who for who, at_ms in self._newest.items() if at_ms < end_ms]
            if edge != "end" or not late or time.monotonic() > until:
                break
            time.sleep(_POLL_S)
        if begin and not self._newest:
            text = f"it has no sample of a family that latdiag knows in {LOOK_BACK_S} s"
            problems.append(Problem(self.name, text))
        for who in late if edge == "end" else ():
            text = f"Prometheus did not scrape it within {PATIENCE_S} s after the end"
            problems.append(Problem(self._replica(who), text))

    def _take(
        self,
        who: _Target,
        at_ns: int,
        edge: str,
        lines: Sequence[str],
        columns: dict[str, list[Any]],
        problems: list[Problem],
    ) -> None:
        replica = self._replica(who)
        try:
            rows = columns_of(
                "\n".join([*lines, ""]),
                at_ns=at_ns,
                replica=replica,
                edge=edge,
                families=self._families,
            )
        except ValueError as fault:
            problems.append(Problem(replica, str(fault)))
            return
        for name, values in rows.items():
            columns.setdefault(name, []).extend(values)

    def _replica(self, who: _Target) -> str:
        named = "/".join(concealed(shown(part, 80)) for part in who)
        return f"{self.name}#{named}"

    # ------------------------------------------------------------------ queries
    def _now(self, client: httpx.Client) -> _Clock:
        before_ns = time.monotonic_ns()
        found = self._asked(client, "time()")
        try:
            at_s = float(found["result"][0])
        except (KeyError, IndexError, TypeError, ValueError):
            raise _Refused("its reply is none of Prometheus' query API") from None
        return _Clock(at_s, (before_ns + time.monotonic_ns()) // 2)

    def _since(self, client: httpx.Client, clock: _Clock) -> _Scrapes:
        """What was scraped since the newest scrapes that were taken."""
        now = clock.prometheus_s + (time.monotonic_ns() - clock.mono_ns) / NS_PER_S
        oldest = min(self._newest.values(), default=0) / 1e3
        seconds = min(LOOK_BACK_S, max(2, round(now - oldest) + 2))
        found = self._asked(client, f"{self._selector}[{seconds}s]")
        scrapes: _Scrapes = {}
        for series in found.get("result") or ():
            try:
                labels, values = dict(series["metric"]), list(series["values"])
            except (KeyError, TypeError, ValueError):
                continue
            who = tuple(str(labels.pop(name, "")) for name in _OF_TARGET)
            if who not in scrapes and len(scrapes) >= MOST_TARGETS:
                raise _Refused(
                    f"it scrapes more than {MOST_TARGETS} such servers; choose with"
                    " --prometheus-match 'job=\"NAME\"'"
                )
            head = _head(labels)
            for at_ms, value in _samples(values):
                if at_ms > self._newest.get(who, 0):
                    scrapes.setdefault(who, {}).setdefault(at_ms, []).append(f"{head} {value}")
        return scrapes

    def _asked(self, client: httpx.Client, query: str) -> Any:
        """The ``data`` of a reply."""
        until = time.monotonic() + _TIMEOUT_S
        body = bytearray()
        with client.stream("GET", self._url, params={"query": query}) as reply:
            for part in reply.iter_raw(1 << 16):
                body += part
                if len(body) > MOST_TEXT:
                    raise _Refused(
                        f"its reply is longer than {MOST_TEXT >> 20} MiB; choose fewer servers"
                        " with --prometheus-match 'job=\"NAME\"'"
                    )
                if time.monotonic() > until:
                    raise _Refused(f"no whole reply within {_TIMEOUT_S:g} s")
            status = reply.status_code
        if status in (401, 403):
            raise _Refused(
                f"HTTP {status}: Prometheus wants a token (--prometheus-token-env NAME)"
            )
        try:
            found = json.loads(body)
            data = found["data"] if found["status"] == "success" else None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _Refused(f"HTTP {status}: it is no Prometheus server at this URL") from None
        if not isinstance(data, dict):
            said = concealed(shown(str(found.get("error", "")), 120))
            raise _Refused(f"HTTP {status}: Prometheus refuses the query: {said}")
        return data


def api_url(url: str) -> str:
    """Where queries go to the Prometheus at ``url``. ValueError for what is no URL."""
    parts = parts_of(url, "the URL of Prometheus")
    root = re.sub(r"(/api/v1(/query(_range)?)?|/graph)?/*$", "", parts.path)
    return urlunsplit((parts.scheme, parts.netloc, f"{root}/api/v1/query", parts.query, ""))


def _names(families: frozenset[str]) -> str:
    """The condition for families and for what others put before them."""
    first = sorted({re.split("[:_]", family)[0] for family in families} - {"process"})
    return f'__name__=~"(.+[:_])?({"|".join(first)})[:_].+"'


def _head(labels: Mapping[str, object]) -> str:
    """Name and labels as an exposition writes them."""
    name = str(labels.get("__name__", ""))
    pairs = ",".join(
        f"{key}={json.dumps(str(value), ensure_ascii=False)}"
        for key, value in labels.items()
        if key != "__name__"
    )
    return f"{name}{{{pairs}}}"


def _samples(values: Sequence[Any]) -> list[tuple[int, str]]:
    """(instant in ms, value) of the samples that are two such."""
    found = []
    for pair in values:
        try:
            at_s, value = pair
            found.append((round(float(at_s) * 1e3), repr(float(value))))
        except (TypeError, ValueError, OverflowError):
            continue
    return found
