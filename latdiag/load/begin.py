"""A run that is ready for its requests: the target has been asked what it is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import NamedTuple

from latdiag.load.redact import secrets_of
from latdiag.load.signs import stacks_at
from latdiag.load.wire import stamps
from latdiag.load.work.behind import alike, check_apart
from latdiag.load.work.even import check_arms, even
from latdiag.load.work.prepare import Prepared, Wish, prepare
from latdiag.model.secrets import conceal
from latdiag.model.text import without_credentials
from latdiag.store.header import Endpoint, Header, LoadClient, LoadPlan, Preflight, StackShown
from latdiag.store.writer import create_run, default_run_path


class Begun(NamedTuple):
    """A run that is ready for its requests. ``tag`` begins their ids. ``behind``: how the server
    behind the target is asked, ``candidate``: how the other arm is, if there is one."""

    wish: Wish
    prepared: Prepared
    path: str
    tag: str
    behind: Prepared | None = None
    candidate: Prepared | None = None


def begin(
    verb: str,
    wish: Wish,
    out: str | None,
    planned: Callable[[Prepared, LoadPlan], LoadPlan] = lambda _prepared, plan: plan,
    behind: Wish | None = None,
    candidate: Wish | None = None,
    same: bool = False,
    up: Callable[[int], AbstractContextManager[None]] = lambda _arm: nullcontext(),
) -> Begun:
    """Ask the target what it is, and make the run. ``planned``: what run.json says of the plan
    instead. ``behind``, ``candidate``: how the server behind the target, or the other arm, is
    asked, which may be the ``same`` endpoint. ``up``: around the questions to the first and the
    other."""
    _check(wish, behind, candidate, same)
    wish = replace(wish, kernel_stamps=(reason := stamps.why_unavailable()) is None)
    with up(0):
        prepared = asyncio.run(prepare(wish))
    second = None
    if behind is not None:
        behind = replace(behind, kernel_stamps=wish.kernel_stamps)
        prepared, second = alike(prepared, asyncio.run(prepare(behind)))
    arm = None
    if candidate is not None:
        candidate = replace(candidate, kernel_stamps=wish.kernel_stamps)
        with up(1):
            arm = asyncio.run(prepare(candidate))
        prepared, arm = even(prepared, arm)
    path = out or default_run_path(verb, datetime.now(UTC))
    plan, found = prepared.plan, prepared.found
    header = Header(
        verb=verb,
        target=_endpoint(prepared, wish),
        behind=_endpoint(second, behind) if second is not None and behind is not None else None,
        candidate=_endpoint(arm, candidate) if arm is not None and candidate is not None else None,
        stacks=_stacks([wish] if behind is None else [wish, behind]),
        plan=planned(prepared, _plan(prepared, wish)),
        preflight=Preflight(
            found.model_asked,
            found.models_offered,
            sorted(found.extras),
            sorted(found.refused_extras),
            found.server,
            list(found.passed_over),
            found.label,
        ),
        client=LoadClient(
            kernel_stamps=plan.kernel_stamps,
            stamp_reason=reason,
            priority="realtime" if plan.realtime else "ordinary",
            httpx=version("httpx"),
        ),
    )
    made = create_run(path, header.to_json())
    return Begun(wish, prepared, made, secrets.token_hex(4), second, arm)


def _check(wish: Wish, behind: Wish | None, candidate: Wish | None, same: bool) -> None:
    """What they hold is concealed from now on. UsageFault for endpoints that are not apart."""
    for each in (wish, behind, candidate):
        if each is not None:
            conceal(*secrets_of(each.headers, each.url))
    if behind is not None:
        check_apart(wish.url, behind.url, wish.path)
    if candidate is not None:
        check_arms(wish.url, candidate.url, wish.path, same)


def _stacks(wishes: Sequence[Wish]) -> tuple[StackShown, ...]:
    """What shows itself at the targets of a design, each stack once."""
    shown: dict[str, StackShown] = {}
    for wish in wishes if wishes[0].designed else ():
        for each in stacks_at(wish.url, wish.headers, wish.trust):
            shown.setdefault(each.name, each)
    return tuple(shown.values())


def _endpoint(prepared: Prepared, wish: Wish) -> Endpoint:
    plan, found = prepared.plan, prepared.found
    url = without_credentials(plan.target.url)
    return Endpoint(url, found.model, plan.dialect, found.peer, wish.api_key_env)


def _arrivals(rate: str) -> str:
    """How requests arrive: what stands before the colon of a rate, else as a bare rate means."""
    kind, colon, _ = rate.partition(":")
    return kind if colon else "poisson"


def _plan(prepared: Prepared, wish: Wish) -> LoadPlan:
    """What run.json says of a load's plan."""
    plan = prepared.plan
    return LoadPlan(
        requests=wish.requests,
        duration_ns=wish.duration_ns,
        warmup=wish.warmup,
        rate=prepared.rate,
        arrivals="closed" if prepared.closed else _arrivals(wish.rate or ""),
        concurrency=len(plan.slots) or None,
        ramp_ns=wish.ramp_ns,
        isl=None if prepared.prompts else wish.isl.mean,
        osl=wish.osl.mean if wish.osl else None,
        prompts=prepared.prompts,
        isl_source=prepared.isl_source,
        shared_prefix=wish.shared_prefix,
        connections="reuse" if plan.reuse else "fresh",
        workers=plan.workers,
        seed=wish.seed,
        timeout_ns=plan.timeout_ns,
    )
