"""How many tokens a request brings or asks for: a fixed number or a distribution."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from latdiag.load.work.draws import uniforms
from latdiag.model.errors import UsageFault

#: No context window is longer; it also keeps the tail of a wide distribution from memory's end.
LONGEST = 10_000_000
#: As many lengths as the largest probe has requests, and more.
_DRAWS = 4096

_FORMS = "write 512, uniform:100-200, normal:512,64, lognormal:512,0.8 or choice:128,512"

Law = Callable[[tuple[float, ...], float, float], float]


def _gauss(u: float, v: float) -> float:
    """A standard normal number from two uniform ones (Box and Muller 1958)."""
    return math.sqrt(-2.0 * math.log(u)) * math.cos(2.0 * math.pi * v)


def _lognormal(params: tuple[float, ...], u: float, v: float) -> float:
    median, sigma = params
    # exp() overflows past 709; anything near it is beyond LONGEST anyway.
    return median * math.exp(min(sigma * _gauss(u, v), 100.0))


_LAWS: dict[str, Law] = {
    "fixed": lambda p, u, v: p[0],
    "uniform": lambda p, u, v: p[0] + math.floor(u * (p[1] - p[0] + 1)),
    "normal": lambda p, u, v: p[0] + p[1] * _gauss(u, v),
    "lognormal": _lognormal,
    "choice": lambda p, u, v: p[math.floor(u * len(p))],
}

_MEANS: dict[str, Callable[[tuple[float, ...]], float]] = {
    "fixed": lambda p: p[0],
    "uniform": lambda p: (p[0] + p[1]) / 2,
    "normal": lambda p: p[0],
    "lognormal": lambda p: p[0] * math.exp(min(p[1] ** 2 / 2, 100.0)),
    "choice": lambda p: sum(p) / len(p),
}


@dataclass(frozen=True, slots=True)
class Lengths:
    """A law of token counts: whole numbers from 1 to ``LONGEST``.

    ``params``: fixed (n) · uniform (first, last), both included · normal (mean, deviation) ·
    lognormal (median, sigma of the logarithm) · choice (each value equally often).
    """

    kind: str
    params: tuple[float, ...]
    seed: int = 0
    stream: str = "lengths"

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """From one of the forms of the command line; UsageFault for anything else."""
        kind, colon, rest = text.strip().partition(":")
        if not colon:
            kind, rest = "fixed", kind
        numbers = _numbers(rest, "-" if kind == "uniform" else ",")
        if numbers is None or not _sound(kind, numbers):
            raise UsageFault(f"{text!r} is not a token length", _FORMS)
        return cls(kind, numbers)

    def seeded(self, seed: int, stream: str) -> Lengths:
        """The same law with draws of its own."""
        return replace(self, seed=seed, stream=stream)

    @property
    def mean(self) -> float:
        """The law's mean before rounding and clipping: for estimates of cost."""
        return min(max(_MEANS[self.kind](self.params), 1.0), float(LONGEST))

    def draw(self, index: int) -> int:
        """The length for request ``index``: the same in every process."""
        if self.kind == "fixed":
            return int(self.params[0])
        u, v = uniforms(self.seed, self.stream, index)
        return min(max(round(_LAWS[self.kind](self.params, u, v)), 1), LONGEST)


def _numbers(text: str, separator: str) -> tuple[float, ...] | None:
    parts = [part.strip() for part in text.split(separator)]
    if not all(re.fullmatch(r"\d{1,15}(\.\d{1,15})?", part) for part in parts):
        return None
    return tuple(float(part) for part in parts)


def _sound(kind: str, numbers: tuple[float, ...]) -> bool:
    """Whether the numbers are a law of that kind: lengths whole and from 1 to LONGEST."""
    if kind in ("normal", "lognormal"):
        return len(numbers) == 2 and 1 <= numbers[0] <= LONGEST and numbers[1] <= LONGEST
    wanted = {"fixed": 1, "uniform": 2, "choice": len(numbers)}.get(kind)
    return (
        len(numbers) == wanted
        and all(n.is_integer() and 1 <= n <= LONGEST for n in numbers)
        and (kind != "uniform" or numbers[0] <= numbers[1])
    )


def in_turn(text: str | None, seed: int, stream: str) -> tuple[int, ...] | None:
    """Draws of a law of lengths (as ``load`` takes them), to be used in turn; None for none."""
    if text is None:
        return None
    law = Lengths.parse(text).seeded(seed, stream)
    return tuple(law.draw(index) for index in range(1 if law.kind == "fixed" else _DRAWS))
