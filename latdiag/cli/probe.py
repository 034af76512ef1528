"""``latdiag probe``: a short workload of its own, then where the time went."""

from __future__ import annotations

import secrets
from typing import Any

import click

from latdiag.cli.options import headers_of, output_options, target_options

#: requests (enough for a p99), streams at once, input and output tokens: 146,000 in all
_REQUESTS, _CONCURRENCY, _ISL, _OSL = 700, 4, 160, 48
#: share of failures at which it stops: a probe must not lean on a server that is down
_GIVE_UP = 0.2
_LONGEST_NS = 60_000_000_000


@click.command(name="probe", context_settings={"max_content_width": 79})
@click.argument("url")
@click.option("--seed", type=int, help="Of prompts and lengths; else a new one.")
@target_options
@output_options
def probe(url: str, **given: Any) -> int:
    """Find out where the latency of URL goes, from outside alone.

    \b
    latdiag probe http://localhost:8000
    latdiag probe https://host/v1 --api-key-env KEY --model NAME
    """
    from latdiag.cli.execute import execute, show, target_of
    from latdiag.load.lengths import Lengths
    from latdiag.load.prepare import Wish
    from latdiag.load.workload import parse_overlay

    with target_of(url) as place:
        wish = Wish(
            url=place,
            path=given["path"],
            model=given["model"],
            isl=Lengths.parse(f"uniform:{_ISL // 2}-{_ISL * 3 // 2}"),
            osl=Lengths.parse(str(_OSL)),
            seed=secrets.randbits(32) if given["seed"] is None else given["seed"],
            requests=_REQUESTS,
            duration_ns=_LONGEST_NS,
            warmup=_CONCURRENCY,
            give_up=_GIVE_UP,
            concurrency=_CONCURRENCY,
            ramp_ns=1_000_000_000,
            overlay=parse_overlay(given["body_json"]) if given["body_json"] else None,
            headers=headers_of(given["api_key_env"], given["plain"], given["header_env"]),
            verify=not given["insecure"],
            timeout_ns=given["timeout"],
            priority=given["priority"],
        )
        result, code = execute("probe", wish, given["out"], given["quiet"], say_cost=True)
    show(result, given["as_json"])
    return code
