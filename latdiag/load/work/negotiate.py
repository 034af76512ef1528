"""What a server agrees to: which fields beyond the usual ones, and how many tokens at least.

A set, not a ladder: all is asked for at once. What a refusal names is left out; where it names
nothing, the plain request is tried, and then each field by itself. So a field counts as refused
only where it was.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from latdiag.load.dialects import Ask
from latdiag.model.records import Outcome

NEWER = "max_completion_tokens"
#: In this order, by the words with which a refusal names each.
_WORDS = {
    "usage": ("stream_options", "include_usage"),
    "continuous_usage": ("continuous_usage",),
    "return_token_ids": ("token_ids",),
    "ignore_eos": ("ignore_eos",),
    "min_tokens": ("min_tokens",),
}
#: How refusals name the limit of output tokens.
_LIMIT = re.compile(r"max\w*(?:tokens|length)|output tokens|completion tokens", re.I)
_NUMBER = re.compile(r"(?<![\w.])\d{1,5}(?!\w)")
#: Tokens that are asked for first, and in the end where the user wants fewer.
FEW, _MANY = 2, 256
#: Requests until a server that says that it is busy is believed; longest pause between them.
_BUSY_TRIES, _BUSY_S = 3, 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's end. ``isl``: tokens of input as the server counts them. ``refusal``: all
    that it said in refusing, to look names up in; nothing of it may be shown or kept."""

    outcome: Outcome
    status: int
    error: str
    isl: int | None
    arrivals: int
    retry_after_s: float | None = None
    refusal: str = field(default="", repr=False)
    label: str = ""

    @property
    def refuses(self) -> bool:
        """Whether another form of the request may do better: not after a time limit or a cut."""
        said = self.status == 200 or self.status >= 400
        return said and self.outcome in (Outcome.HTTP_ERROR, Outcome.PROTOCOL)


class Terms(NamedTuple):
    """A form of the request. ``tokens``: of output; None asks for no number."""

    extras: frozenset[str]
    tokens: int | None

    @property
    def limit(self) -> tuple[bool, int | None]:
        """How the number of tokens is asked for, and which."""
        return NEWER in self.extras, self.tokens


class Agreed(NamedTuple):
    """``answer``: to the request in the form of ``terms``, or the one that tells most of why no
    form will do. ``refused``: fields that the server was seen to refuse."""

    answer: Answer
    terms: Terms
    refused: frozenset[str]


class Negotiation:
    """Requests until the server takes one. ``wished``: tokens of output that the user wants;
    None: he sets no limit. ``send`` raises for what no other form of the request would mend."""

    def __init__(
        self, send: Callable[[Ask], Awaitable[Answer]], ask: Ask, wished: int | None
    ) -> None:
        self._send = send
        self._ask = ask
        self._wished = wished
        self._tried: dict[Terms, Answer] = {}

    async def agree(self, wanted: frozenset[str]) -> Agreed:
        """The richest form of the request that the server takes."""
        terms = Terms(wanted, None if self._wished is None else FEW)
        answer = await self._try(terms)
        refused: set[str] = set()
        doubted: set[str] = set()
        while answer.refuses and (other := self._without_named(terms, answer)) is not None:
            left_out = set(terms.extras - other.extras - {NEWER})
            # Named alone it was the cause; with others, that is still to be seen.
            (refused if len(left_out) == 1 else doubted).update(left_out)
            terms, answer = other, await self._try(other)
        if answer.refuses and (terms.extras or terms.tokens != self._wished):
            refused, doubted = set(), set(wanted)
            terms, answer = await self._plain(terms)
        if answer.refuses:
            return self._in_vain(wanted)
        if answer.outcome is not Outcome.OK:  # nothing more can be learned of it
            terms = terms._replace(extras=terms.extras | doubted)
            return Agreed(answer, terms, frozenset(refused))
        for extra in (each for each in _WORDS if each in doubted):
            if extra == "continuous_usage" and "usage" in refused:
                refused.add(extra)  # it is a field of what was refused
                continue
            more = terms._replace(extras=terms.extras | {extra})
            got = await self._try(more)
            if got.outcome is Outcome.OK:
                terms, answer = more, got
            elif got.refuses:
                refused.add(extra)
        return Agreed(answer, terms, frozenset(refused))

    async def takes(self, terms: Terms) -> Answer:
        """The answer to the request in this form."""
        return await self._try(terms)

    async def fewest(self, agreed: Agreed) -> Agreed:
        """The same with about the fewest tokens of output that the server takes: within a factor
        of two. What it took at first may be many."""
        while (tokens := agreed.terms.tokens) is not None and tokens // 2 > FEW:
            fewer = agreed.terms._replace(tokens=tokens // 2)
            answer = await self._try(fewer)
            if answer.outcome is not Outcome.OK:
                break
            agreed = agreed._replace(answer=answer, terms=fewer)
        return agreed

    async def _try(self, terms: Terms) -> Answer:
        if terms in self._tried:
            return self._tried[terms]
        ask = replace(self._ask, extras=terms.extras, max_tokens=terms.tokens)
        answer = await self._send(ask)
        for _ in range(_BUSY_TRIES - 1):
            if answer.outcome is not Outcome.RATE_LIMITED:
                break
            asked = answer.retry_after_s
            await asyncio.sleep(min(_BUSY_S, 0.5 if asked is None else asked))
            answer = await self._send(ask)
        self._tried[terms] = answer
        return answer

    # ------------------------------------------------------------------ other forms
    def _without_named(self, terms: Terms, answer: Answer) -> Terms | None:
        """The form without the fields that the refusal names, or with another limit where it
        speaks of that; None where it names nothing that could be changed."""
        text = answer.refusal.lower()
        named = {e for e in terms.extras & _WORDS.keys() if any(w in text for w in _WORDS[e])}
        if "continuous_usage" in named and "include_usage" not in text:
            named.discard("usage")  # its container is named with it
        elif "usage" in named and "continuous_usage" in terms.extras:
            named.add("continuous_usage")
        if named:
            return terms._replace(extras=terms.extras - named)
        if _LIMIT.search(text):
            return next(self._other_limits(terms, text), None)
        return None

    def _other_limits(self, terms: Terms, text: str) -> Iterator[Terms]:
        """The same with limits that were not tried yet, the likeliest first."""
        if terms.tokens is None or self._wished is None:
            return
        newer, tokens = NEWER in terms.extras, terms.tokens
        most = max(self._wished, _MANY)
        stated = sorted({int(n) for n in _NUMBER.findall(text) if tokens < int(n) <= most})
        forms = [(True, tokens)] if NEWER in text and not newer else []
        forms += [(newer, n) for n in stated[:1]]
        forms += [(name, n) for n in (FEW, self._wished, most) for name in (False, True)]
        bare = terms.extras - {NEWER}
        had = {each.limit for each in self._tried if each.extras - {NEWER} == bare}
        for by_newer, n in dict.fromkeys(forms):
            if (by_newer, n) not in had:
                yield Terms(bare | {NEWER} if by_newer else bare, n)

    async def _plain(self, terms: Terms) -> tuple[Terms, Answer]:
        """Without any extra, by one limit after the other."""
        terms = terms._replace(extras=terms.extras & {NEWER})
        answer = await self._try(terms)
        while answer.refuses and answer.outcome is Outcome.HTTP_ERROR:
            other = next(self._other_limits(terms, answer.refusal.lower()), None)
            if other is None:
                break
            terms, answer = other, await self._try(other)
        return terms, answer

    def _in_vain(self, wanted: frozenset[str]) -> Agreed:
        """The refusal that tells most: of the form with least of our own, and where there are
        several one that speaks of no limit of ours."""

        def ours(tried: tuple[Terms, Answer]) -> tuple[int, bool, bool]:
            terms, answer = tried
            extras = len(terms.extras - {NEWER})
            return extras, bool(_LIMIT.search(answer.refusal)), terms.tokens != self._wished

        terms, answer = min(self._tried.items(), key=ours)
        # A server that fails whatever it is asked refuses no field.
        return Agreed(answer, Terms(wanted, terms.tokens), frozenset())
