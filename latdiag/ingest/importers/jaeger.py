"""Traces that a Jaeger holds, fetched as the files that its API gives."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from latdiag.model.errors import TargetFault, UsageFault
from latdiag.model.text import shown, without_credentials
from latdiag.model.units import NS_PER_US, seconds

#: What one answer may have, and how long it may take.
_MOST_BYTES, _PATIENCE_S = 256 << 20, 60.0
_TRACE = re.compile(r"[0-9a-fA-F]{1,32}")


@dataclass(frozen=True, slots=True)
class Asked:
    """``traces``: ids; or the newest ``limit`` of a ``service`` in the ``lookback_ns`` before now.
    ``url``: of Jaeger's query service, whose API is below ``/api``."""

    url: str
    traces: tuple[str, ...]
    service: str | None
    lookback_ns: int
    limit: int

    def check(self) -> None:
        """UsageFault for what cannot be asked."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageFault(
                f"{shown(without_credentials(self.url), 100)} is no URL of a Jaeger",
                "give for example --jaeger http://localhost:16686",
            )
        if bool(self.traces) == (self.service is not None):
            raise UsageFault(
                "--jaeger needs to know which traces", "give --trace ID, or --service NAME"
            )
        for each in self.traces:
            if not _TRACE.fullmatch(each):
                raise UsageFault(
                    f"{shown(each, 60)!r} is no id of a trace", "give up to 32 hexadecimal digits"
                )


def fetch(asked: Asked, folder: Path, now_ns: int) -> list[Path]:
    """The files that it gave, in ``folder``; ``now_ns``: since 1970. TargetFault where it gives
    none."""
    if asked.service is None:
        return [_kept(_of_trace(asked, each), folder / f"{each}.json") for each in asked.traces]
    end_us = now_ns // NS_PER_US
    query = urlencode(
        {
            "service": asked.service,
            "start": end_us - asked.lookback_ns // NS_PER_US,
            "end": end_us,
            "limit": asked.limit,
        }
    )
    try:
        data = _get(asked, f"/api/traces?{query}")
    except _NoSuch:
        raise TargetFault(
            f"{_name(asked)} answered with HTTP 404", "give the URL of Jaeger's query service"
        ) from None
    if not _has_traces(data):
        raise TargetFault(
            f"{_name(asked)} holds no trace of service {shown(asked.service, 60)!r} of the last"
            f" {seconds(asked.lookback_ns):g} s",
            "look further back with --lookback, or at another service",
        )
    return [_kept(data, folder / "found.json")]


def _of_trace(asked: Asked, trace: str) -> bytes:
    """By API v3, which keeps nanoseconds; older ones have the first API alone."""
    for path in (f"/api/v3/traces/{quote(trace)}", f"/api/traces/{quote(trace)}"):
        try:
            return _get(asked, path)
        except _NoSuch:
            continue
    raise TargetFault(f"{_name(asked)} holds no trace {trace}", "check the id")


class _NoSuch(Exception):
    """It answered with 404."""


def _get(asked: Asked, path: str) -> bytes:
    import httpx

    try:
        with (
            httpx.Client(timeout=_PATIENCE_S, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", asked.url.rstrip("/") + path) as reply,
        ):
            if reply.status_code == 404:
                raise _NoSuch
            if reply.status_code != 200:
                raise TargetFault(
                    f"{_name(asked)} answered with HTTP {reply.status_code}",
                    "give the URL of Jaeger's query service",
                )
            data = bytearray()
            for piece in reply.iter_bytes():
                data += piece
                if len(data) > _MOST_BYTES:
                    raise TargetFault(
                        f"{_name(asked)} gave more than {_MOST_BYTES >> 20} MiB",
                        "ask for fewer with --limit",
                    )
    except httpx.HTTPError as fault:
        raise TargetFault(
            f"{_name(asked)} cannot be asked: {shown(fault, 160)}", "check that it runs there"
        ) from None
    return bytes(data)


def _has_traces(data: bytes) -> bool:
    try:
        return bool(json.loads(data).get("data"))
    except (ValueError, AttributeError, RecursionError):
        return True  # whoever reads the file says what it is instead


def _kept(data: bytes, file: Path) -> Path:
    file.write_bytes(data)
    return file


def _name(asked: Asked) -> str:
    return shown(without_credentials(asked.url), 100)
