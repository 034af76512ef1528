"""A run that is ready for its requests: the target has been asked what it is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, NamedTuple

from latdiag.load.redact import secrets_of
from latdiag.load.signs import stacks_at
from latdiag.load.wire import stamps
from latdiag.load.work.prepare import Prepared, Wish, prepare
from latdiag.model.secrets import conceal
from latdiag.model.text import without_credentials
from latdiag.store.header import header, machine
from latdiag.store.writer import create_run, default_run_path


class Begun(NamedTuple):
    """A run that is ready for its requests. ``tag`` begins their ids."""

    wish: Wish
    prepared: Prepared
    path: str
    tag: str


def begin(
    verb: str,
    wish: Wish,
    out: str | None,
    plan: Callable[[Prepared], Mapping[str, Any]] | None = None,
) -> Begun:
    """Ask the target what it is, and make the run. ``plan``: what run.json says of the plan."""
    conceal(*secrets_of(wish.headers, wish.url))
    reason = stamps.why_unavailable()
    wish = replace(wish, kernel_stamps=reason is None)
    prepared = asyncio.run(prepare(wish))
    path = out or default_run_path(verb, datetime.now(UTC))
    target, found = prepared.plan.target, prepared.found
    document = header(
        verb,
        target={
            "url": without_credentials(target.url),
            "model": found.model,
            "dialect": prepared.plan.dialect,
            "peer": found.peer,
        },
        stacks=stacks_at(wish.url, target.headers, target.verify) if wish.designed else (),
        plan={**_plan(prepared, wish), **(plan(prepared) if plan else {})},
        facts=_facts(prepared, reason),
    )
    return Begun(wish, prepared, create_run(path, document), secrets.token_hex(4))


def _plan(prepared: Prepared, wish: Wish) -> dict[str, Any]:
    """What run.json says of a load's plan."""
    plan = prepared.plan
    return {
        "requests": wish.requests,
        "duration_ns": wish.duration_ns,
        "warmup": wish.warmup,
        "rate": prepared.rate,
        "arrivals": "closed" if prepared.closed else (wish.rate or "").partition(":")[0],
        "concurrency": len(plan.slots) or None,
        "ramp_ns": wish.ramp_ns,
        "isl": None if prepared.prompts else wish.isl.mean,
        "osl": wish.osl.mean if wish.osl else None,
        "prompts": prepared.prompts,
        "isl_source": prepared.isl_source,
        "shared_prefix": wish.shared_prefix,
        "connections": "reuse" if plan.reuse else "fresh",
        "workers": plan.workers,
        "seed": wish.seed,
        "timeout_ns": plan.timeout_ns,
    }


def _facts(prepared: Prepared, reason: str | None) -> dict[str, Any]:
    """What the target answered, and with what it is measured; ``reason``: why without stamps."""
    found, plan = prepared.found, prepared.plan
    return {
        "preflight": {
            "model_asked": found.model_asked,
            "models_offered": found.models_offered,
            "extras": sorted(found.extras),
            "refused_extras": sorted(found.refused_extras),
            "server": found.server,
        },
        "client": {
            "kernel_stamps": plan.kernel_stamps,
            "stamp_reason": reason,
            "priority": "realtime" if plan.realtime else "ordinary",
            **machine(),
            "httpx": version("httpx"),
        },
    }
