"""Which model answers, and what the server agrees to for it."""

from __future__ import annotations

import json
from dataclasses import replace

from latdiag.load.dialects import Ask
from latdiag.load.plan import Target
from latdiag.load.work.negotiate import FEW, Agreed, Answer, Negotiation, Terms
from latdiag.load.work.preflight import NothingThere, Preflight
from latdiag.load.work.workload import Workload
from latdiag.model.errors import TargetFault
from latdiag.model.records import Outcome
from latdiag.model.text import shown, without_credentials

#: Words of the prompts by which the server's way of counting is learned.
CALIBRATION_WORDS = (64, 256)


class _Refusal(TargetFault):
    """The server takes no form of the request."""


async def first_that_answers(
    preflight: Preflight, draft: Workload, picks: list[str], listed: list[str]
) -> tuple[Agreed, Workload]:
    """What the first of the models ``picks`` that answers agrees to, and the workload for it.

    The fault of the first where none does: servers list models that do not chat (``listed``: all
    that it lists), and a server that refuses all has another reason.
    """
    first: TargetFault | None = None
    failing: tuple[Agreed, Workload] | None = None
    for model in picks:
        draft = replace(draft, model=model)
        try:
            agreed = await _agreed(preflight, draft)
            _check(agreed.answer, preflight.target)
        except (NothingThere, _Refusal) as fault:
            first = first or fault
            continue
        if agreed.answer.status < 500:
            return agreed, draft
        failing = failing or (agreed, draft)
    if failing is not None:  # an overloaded server is a finding, not a reason to stop
        return failing
    assert first is not None
    if listed and isinstance(first, _Refusal):
        others = [repr(shown(name, 60)) for name in listed[1:6]]
        more = f", of {len(listed)} that it lists: {', '.join(others)}" if others else ""
        text = f"{first.text} (to the model {shown(picks[0], 60)!r}, the first that it lists)"
        raise TargetFault(text, f"{first.remedy}, or name another model with --model{more}")
    raise first


async def _agreed(preflight: Preflight, draft: Workload) -> Agreed:
    wanted = frozenset({"usage", "continuous_usage", "return_token_ids"})
    wished = None
    if draft.osl is not None:
        wanted |= {"ignore_eos", "min_tokens"}
        wished = round(draft.osl.mean)
    prompt = _prompt_of(draft.calibrating_body(CALIBRATION_WORDS[0], 0))
    ask = Ask(draft.model, prompt, overlay=draft.overlay)
    negotiation = Negotiation(preflight.ask, ask, wished)
    agreed = await negotiation.agree(wanted)
    if agreed.answer.outcome is Outcome.OK:
        agreed = await negotiation.fewest(agreed)
    answer, tokens = agreed.answer, agreed.terms.tokens
    if answer.refuses and answer.outcome is Outcome.HTTP_ERROR and answer.status < 500:
        raise _Refusal(
            f"the server refuses the request: {answer.error}",
            "check --model, --isl, --osl and --body-json against what it allows",
        )
    if wished and tokens and FEW < tokens > wished and draft.osl and draft.osl.kind == "fixed":
        fewer = await negotiation.takes(Terms(agreed.terms.extras, wished))
        if fewer.outcome is not Outcome.OK:
            raise TargetFault(
                f"the server refuses an output of {wished} tokens: {fewer.error}",
                f"ask for a longer output (--osl): it took {tokens}",
            )
        return agreed._replace(terms=agreed.terms._replace(tokens=wished))
    return agreed


def _check(answer: Answer, target: Target) -> None:
    """The first reply must be a stream that can be measured."""
    if answer.outcome in (Outcome.OK, Outcome.RATE_LIMITED):
        return
    if answer.outcome is Outcome.HTTP_ERROR and answer.status >= 500:
        return  # an overloaded server is a finding, not a reason to stop
    raise TargetFault(
        f"{without_credentials(target.url)} gave no usable reply: {answer.error}",
        "check that the URL is an OpenAI-compatible endpoint that streams (stream: true)",
    )


def _prompt_of(body: bytes) -> str:
    document = json.loads(body)
    if "messages" in document:
        return str(document["messages"][-1]["content"])
    return str(document["prompt"])
