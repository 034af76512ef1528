"""How long steps and prompts take, ns: shapes that real accelerators show, none of them a sum of
ramps or a maximum of a weight and a slope.

Staircases of padded batches (CUDA graphs), smooth rooflines, plateaus that end, tiles of a GEMM,
pages of a cache, powers. All are drawn from ``random.Random``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

US, MS, S = 1_000, 1_000_000, 1_000_000_000

#: Streams of a step and tokens of context that they hold -> ns.
StepCost = Callable[[int, int], float]
#: Tokens of a prompt's piece, and of the context before it -> ns.
PromptCost = Callable[[int, int], float]


def log_uniform(draw: random.Random, least: float, most: float) -> float:
    return math.exp(draw.uniform(math.log(least), math.log(most)))


def padded(draw: random.Random, alone: float) -> StepCost:
    """A captured graph for each power of two: a batch costs what the next larger graph costs."""
    growth = draw.uniform(1.02, 1.25)
    sizes = [alone * growth**k * draw.uniform(0.97, 1.03) for k in range(10)]
    stairs = [max(sizes[: k + 1]) for k in range(10)]
    page = draw.uniform(0.2, 3.0) * US

    def cost(streams: int, context: int) -> float:
        stair = stairs[min((max(streams, 1) - 1).bit_length(), 9)]
        return stair + page * math.ceil(context / 256)

    return cost


def roofline(draw: random.Random, alone: float) -> StepCost:
    """Memory and compute overlap, but not wholly: a p-norm of the two."""
    knee, p = log_uniform(draw, 8, 200), draw.uniform(1.5, 4.0)
    read = alone * draw.uniform(0.5e-6, 6e-6)

    def cost(streams: int, context: int) -> float:
        memory = alone + read * context
        compute = alone * streams / knee
        return float((memory**p + compute**p) ** (1 / p))

    return cost


def plateau(draw: random.Random, alone: float) -> StepCost:
    """Flat while the weights are what is read; from some batch size on it saturates."""
    ends, steep = draw.randint(4, 24), draw.uniform(1.0, 1.6)

    def cost(streams: int, context: int) -> float:
        over = max(1.0, streams / ends) ** steep
        return float(alone * over * (1 + 2e-6 * context))

    return cost


def tall(draw: random.Random, alone: float) -> StepCost:
    """Attention rules: each stream reads its own long context, in pages of 16."""
    share = draw.uniform(0.05, 0.3)

    def cost(streams: int, context: int) -> float:
        pages = math.ceil(context / 16) * 16
        return alone * (1 - share) * (1 + 0.01 * math.sqrt(streams)) + alone * share * pages / 1024

    return cost


STEPS = (padded, roofline, plateau, tall)


def tiles(draw: random.Random, token: float) -> PromptCost:
    """A GEMM is done in tiles: 127 tokens cost what 128 do."""
    tile = draw.choice((64, 128, 256))
    launch = log_uniform(draw, 0.5, 6.0) * MS

    def cost(tokens: int, before: int) -> float:
        return launch + token * tile * math.ceil(tokens / tile) + token * 4e-5 * tokens * before

    return cost


def power(draw: random.Random, token: float) -> PromptCost:
    """Long prompts use the machine better: the exponent is below one."""
    exponent, launch = draw.uniform(0.82, 0.97), log_uniform(draw, 0.5, 8.0) * MS
    unit = token * 512 ** (1 - exponent)

    def cost(tokens: int, before: int) -> float:
        return float(launch + unit * ((before + tokens) ** exponent - before**exponent))

    return cost


def quadratic(draw: random.Random, token: float) -> PromptCost:
    """Attention without a fast kernel."""
    bend, launch = log_uniform(draw, 1500, 12000), log_uniform(draw, 1.0, 10.0) * MS

    def cost(tokens: int, before: int) -> float:
        return launch + token * tokens * (1 + (before + tokens / 2) / bend)

    return cost


def eager(draw: random.Random, token: float) -> PromptCost:
    """Short prompts run in captured graphs; longer ones are launched kernel by kernel."""
    bound, launch = draw.choice((256, 512)), log_uniform(draw, 6.0, 30.0) * MS

    def cost(tokens: int, before: int) -> float:
        return token * max(tokens, 16) + (launch if tokens > bound else launch / 8)

    return cost


PROMPTS = (tiles, power, quadratic, eager)


def drawn(
    draw: random.Random,
    shapes: Sequence[Callable[[random.Random, float], Callable[[int, int], float]]],
    unit: float,
) -> Callable[[int, int], float]:
    return draw.choice(shapes)(draw, unit)
