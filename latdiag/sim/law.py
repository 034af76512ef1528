"""How long a step takes, and how its time splits over those who are in it."""

from __future__ import annotations

import math
import random

from latdiag.sim.params import Params

_MS, _US = 1e6, 1e3  # ns


class StepLaw:
    """``T = overhead + max(weights, compute*tokens) + kv*context + seq*B + attention*work + comm``

    In nanoseconds as floats. Every term grows with its argument and all are added in one order,
    so the time of a part of a step never exceeds the time of the whole, after rounding too.
    """

    __slots__ = (
        "_centre",
        "_comm",
        "_comm_token",
        "_noise",
        "alone",
        "attention",
        "compute",
        "kv",
        "overhead",
        "seq",
        "weights",
    )

    def __init__(self, params: Params) -> None:
        self.overhead = params.overhead_ms * _MS
        self.weights = params.weights_ms * _MS
        self.compute = params.compute_us * _US
        self.kv = params.kv_ns
        self.seq = params.seq_us * _US
        self.attention = params.attention_ns
        self._comm = params.comm_ms * _MS
        self._comm_token = params.comm_us * _US
        #: a step of one token, less context and sequence
        self.alone = self.overhead + max(self.weights, self.compute)
        self._noise = params.noise
        self._centre = -params.noise * params.noise / 2

    def step(self, tokens: int, context: int, sequences: int, work: float = 0.0) -> float:
        """A step without collectives. ``context``: tokens that decodes read; ``work``: the sum
        of ``chunk_work`` over the prefill chunks."""
        linear = self.overhead + max(self.weights, self.compute * tokens)
        return linear + self.kv * context + self.seq * sequences + self.attention * work

    def comm(self, tokens: int) -> float:
        """Collectives of a step that nothing hides."""
        return self._comm + self._comm_token * tokens

    def factor(self, rng: random.Random) -> float:
        """The noise of one step: log-normal with mean 1."""
        if self._noise == 0.0:
            return 1.0
        return math.exp(rng.gauss(0.0, self._noise) + self._centre)


def chunk_work(tokens: int, context: int) -> float:
    """Token pairs that the attention of a prefill chunk covers on top of ``context`` tokens."""
    return tokens * (context + tokens / 2)


def whole_ns(value: float) -> int:
    """Nearest integer nanosecond of a time >= 0; monotone, as the split of a step needs."""
    return int(value + 0.5)
