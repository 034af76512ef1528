"""What is asked: the bodies of a run's requests, each computed from (seed, index) alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from latdiag.load.dialects.event import EXTRAS, Ask, Dialect
from latdiag.load.work.lengths import Lengths
from latdiag.load.work.promptfile import Prompt
from latdiag.load.work.prompts import Calibration, TokenIds, Words
from latdiag.model.errors import UsageFault

#: Tokens of output that a request asks for which is to be refused.
_REFUSED_OSL = 16
#: How exact input lengths are: token ids are exact; text of one-token words is exact but for the
#: server's template; calibrated text is about right, and the server's own count is what is
#: stored; a file's prompts are as long as they are.
IslSource = Literal["ids", "tokenizer", "text", "file"]


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests by number. Any process that holds an equal workload makes equal bodies.

    ``isl``, ``osl``: input and output lengths in tokens; ``isl`` is not used with ``prompts``,
    and ``osl`` None leaves the end of the reply to the model. The output length is exact where
    the extras ``min_tokens`` and ``ignore_eos`` are on. ``shared_prefix``: tokens at the start
    that are the same in all prompts, part of ``isl``; at least one token is a prompt's own.
    ``unique`` False: all prompts are the beginning of one and the same text.
    ``words``: a :class:`Words` from a tokenizer makes text exact. ``token_ids``: send prompts as
    token ids; None: wherever the dialect takes them and no tokenizer was named.
    """

    dialect: Dialect
    model: str
    isl: Lengths
    osl: Lengths | None
    seed: int
    extras: frozenset[str] = frozenset()
    overlay: Mapping[str, object] | None = field(default=None, repr=False)
    prompts: Sequence[Prompt] | None = field(default=None, repr=False)
    shared_prefix: int = 0
    unique: bool = True
    ids: TokenIds = field(default_factory=TokenIds)
    words: Words | None = field(default=None, repr=False)
    token_ids: bool | None = None
    calibration: Calibration | None = None
    #: fewer tokens of output the server does not take; what latdiag thinks up keeps to it
    floor: int = 1

    def __post_init__(self) -> None:
        unknown = self.extras - EXTRAS
        if unknown:
            raise ValueError(f"unknown extras: {sorted(unknown)}")
        if self.shared_prefix < 0:
            raise UsageFault("a shared prefix cannot be negative", "give 0 or more")
        if self.token_ids and not self.dialect.takes_token_ids:
            raise UsageFault(
                f"{self.dialect.path} takes text, not token ids", "use --path /v1/completions"
            )
        if self.shared_prefix and self.prompts is not None:
            raise UsageFault(
                "--shared-prefix does not apply to prompts from a file",
                "put the prefix into the prompts of the file",
            )
        for prompt in self.prompts or ():
            self._check(prompt)
        object.__setattr__(self, "isl", self.isl.seeded(self.seed, "isl"))
        osl = _overlay_output(self.overlay) or self.osl
        object.__setattr__(self, "osl", osl.seeded(self.seed, "osl") if osl else None)

    def _check(self, prompt: Prompt) -> None:
        """Whether the dialect can say a line of the prompts file."""
        ids = self.dialect.takes_token_ids
        if prompt.messages is not None and ids:
            problem = "has messages, and {} takes a prompt"
        elif prompt.messages is None and not isinstance(prompt.prompt, str) and not ids:
            problem = "has token ids, and {} takes text"
        else:
            return
        text = f"line {prompt.line} of the prompts " + problem.format(self.dialect.path)
        raise UsageFault(text, "choose the other path with --path")

    @property
    def isl_source(self) -> IslSource:
        """How the input lengths come about."""
        if self.prompts is not None:
            return "file"
        by_ids = self.token_ids
        if by_ids is None:
            by_ids = self.dialect.takes_token_ids and self.words is None
        if by_ids:
            return "ids"
        return "text" if self.words is None else "tokenizer"

    @property
    def wants_calibration(self) -> bool:
        """Whether lengths get better with counts from the server: see :meth:`calibrating_body`.

        Fit them with :func:`calibrate` (with ``words_per_token=1.0`` where ``isl_source`` is
        ``tokenizer``: one reply will do) and go on with ``replace(workload, calibration=...)``.
        """
        return self.calibration is None and self.isl_source in ("text", "tokenizer")

    def wanted(self, index: int) -> tuple[int | None, int | None]:
        """Input and output tokens that request ``index`` is to have; None: not laid down."""
        if self.prompts is not None:
            limit = self.prompts[index % len(self.prompts)].max_tokens
            return None, limit or (self.osl.draw(index) if self.osl else None)
        return self.isl.draw(index), self.osl.draw(index) if self.osl else None

    def body(self, index: int) -> bytes:
        """The body of request ``index``."""
        isl, osl = self.wanted(index)
        if self.prompts is not None:
            line = self.prompts[index % len(self.prompts)]
            return self._said(line.prompt or "", osl, line.messages)
        assert isl is not None
        return self._said(self._prompt(isl, index if self.unique else 0), osl)

    def shot(self, index: int, isl: int, osl: int) -> bytes:
        """The body of request ``index`` with lengths that a design lays down, not the laws."""
        return self._said(self._prompt(isl, index), osl)

    def refusable(self, index: int, isl: int) -> bytes:
        """A body that is ordinary but for a temperature that no model can have; it asks for as
        many tokens as many do, since who lets requests in may weigh them by that."""
        overlay = {**(self.overlay or {}), "temperature": -1}
        return replace(self, overlay=overlay).shot(index, isl, max(_REFUSED_OSL, self.floor))

    def calibrating_body(self, words: int, index: int) -> bytes:
        """A request of few tokens of output with a prompt of so many words, unlike any."""
        table = self.words or Words()
        return self._said(table.make(self.seed, "calibration", index, words, 0), self.floor)

    def _prompt(self, isl: int, index: int) -> str | list[int]:
        shared = min(self.shared_prefix, isl - 1)
        if self.isl_source == "ids":
            return self.ids.make(self.seed, "prompt", index, isl, shared)
        counted = self.calibration or Calibration()
        length = counted.words(isl)
        shared = min(round(shared * counted.words_per_token), length - 1)
        return (self.words or Words()).make(self.seed, "prompt", index, length, shared)

    def _said(
        self,
        prompt: str | Sequence[int],
        osl: int | None,
        messages: Sequence[Mapping[str, object]] | None = None,
    ) -> bytes:
        asked = Ask(self.model, prompt, osl, self.extras, self.overlay, messages)
        return self.dialect.body(asked)


def parse_overlay(text: str) -> dict[str, object]:
    """The object of ``--body-json``; UsageFault for anything else (the text is not repeated)."""
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UsageFault("--body-json is not JSON", "quote it for the shell") from None
    if not isinstance(found, dict):
        raise UsageFault("--body-json is not an object", "write for example '{\"top_p\": 0.9}'")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def _overlay_output(overlay: Mapping[str, object] | None) -> Lengths | None:
    """The output length that the user's own fields ask for: then ``min_tokens`` must follow it."""
    for key in ("max_completion_tokens", "max_tokens"):
        value = (overlay or {}).get(key)
        if type(value) is int and value >= 1:
            return Lengths.parse(str(value))
    return None
