"""What ``demo`` says in the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def end_lines(report: Mapping[str, Any]) -> Iterator[str]:
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
        yield "no token was requested"
    if report["spans"]:
        told = report["spans"]
        more = [f"{told[name]} {name} on purpose" for name in ("lost", "repeated") if name in told]
        yield ", ".join([f"{told['sent']} spans sent", f"{told['dropped']} dropped", *more])
