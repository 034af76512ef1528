"""Metrics over TLS, of an authority of the user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from latdiag.store.run import Run

from .peers import Asked, Wire, serving
from .test_tls import Authority


def exposes(wire: Wire, _asked: Asked) -> None:
    wire.reply(200, b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 3\n")


@pytest.mark.parametrize("trusted", [True, False])
def test_an_authority_is_trusted_where_it_is_named(tmp_path: Path, trusted: bool) -> None:
    authority, place = Authority(tmp_path), tmp_path / "it.run"
    with serving(exposes, tls=authority.server()) as peer:
        done = subprocess.run(
            [sys.executable, "-m", "latdiag", "collect", "--otlp", "off", "--otlp-http", "off",
             "--metrics", f"{peer.url}/metrics", "--duration", "1s", "--quiet", "--json",
             "--out", str(place), *["--ca-file", str(authority.file)] * trusted],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    values = {row["value"] for row in Run.open(str(place)).evidence().to_dict("records")}
    assert values == ({3.0} if trusted else set())
    assert trusted or "certificate" in done.stdout.lower()
