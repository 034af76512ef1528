"""Two arms of a noisy server that is known: what the gate is judged against.

It shares no code with the analysis. A FIFO queue (Lindley) with Poisson arrivals that both arms
share, prompts of three classes, AR(1) noise of service, congestion that comes and goes, Pareto
stalls, two modes of decoding, a machine that drifts (Ornstein-Uhlenbeck), contaminated blocks, and
arms that are a little unlike for no reason of the code (restart effect).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Columns = dict[str, Any]
_WARMUP = 15
_PREFILL_MS = np.array([25.0, 60.0, 180.0])  # cached, chat, long
#: The least stall: with it, stalls of 2.5 % in place of 0.7 % make the p99 of TTFT 10 % longer.
_STALL_MS = 100.0
_CLASSES = np.array(["cached", "chat", "rag"])


@dataclass(frozen=True)
class Regime:
    """Noise, the same for both arms. ``rho``: the queue's utilisation; shares are of 1.

    ``restart``: standard deviation of the arms' ratio for no reason of the code: each is a process
    that was started once. (What gate.md measured at 2 %, .095 of runs red with no margin and .005
    with one of 3 %, is what this reading gives; if each start had 2 % of its own, it would be .14
    and .03: ``EACH_START``.)
    """

    name: str
    rho: float = 0.05
    stalls: float = 0.007
    contaminated: float = 0.03
    drift: float = 0.04
    restart: float = 0.0
    lost: float = 0.002
    late_blocks: float = 0.01
    unlike: float = 0.005


REGIMES = (
    Regime("quiet, rho .05"),
    Regime("rho .3", rho=0.3),
    Regime("rho .5", rho=0.5),
    Regime("heavy stalls", stalls=0.03),
    Regime("contaminated", contaminated=0.15, drift=0.10, late_blocks=0.04),
    Regime("restart 2 %", restart=0.02),
)
#: Outside of the six: the start of each arm has 2 % of its own.
EACH_START = Regime("each start 2 %", restart=0.02 * 2**0.5)


@dataclass(frozen=True)
class Fault:
    """What the candidate does worse: factors on its parts, its own rates. ``all``: a factor on
    every time, to the nanosecond; ``outliers``: a share of requests that take ten times theirs."""

    prefill: float = 1.0
    decode: float = 1.0
    stalls: float | None = None
    wait_ms: float = 0.0
    network_ms: float = 0.0
    all: float = 1.0
    outliers: float = 0.0
    fails: float = 0.0
    longer: float = 1.0
    cached: bool = False

    def uniform(self, factor: float) -> Fault:
        """The same slowdown of all that the server does."""
        return replace(self, prefill=factor, decode=factor)


def measure(regime: Regime, fault: Fault, pairs: int, block: int, seed: int) -> Columns:
    """A whole run: a column of (pairs * block * 2) for each name, in the order of time."""
    random = np.random.default_rng(seed)
    size, both = _WARMUP + block, (pairs, 2)
    order = random.integers(0, 2, pairs)  # 1: the candidate's block is second
    kinds = random.choice(3, (pairs, size), p=[0.25, 0.5, 0.25])
    gaps = random.exponential(_PREFILL_MS.mean() / regime.rho, (pairs, size))
    tokens = np.clip(random.lognormal(3.2, 0.4, (pairs, size)), 8, 64).astype(int)
    machine = _machine(random, regime, pairs, order)
    arm = np.exp(regime.restart / 2**0.5 * random.standard_normal(2))
    slow = machine * arm
    noise = _autoregressive(random, both, size)
    congested = _congestion(random, both, size)
    prefill = _PREFILL_MS[kinds][:, :, None] * noise * congested * slow[:, None, :]
    prefill[:, :, 1] *= fault.prefill
    if fault.cached:
        prefill[:, :, 1] *= 0.7
    wait = _waits(gaps, prefill)
    rates = np.array([regime.stalls, regime.stalls if fault.stalls is None else fault.stalls])
    stall = (
        (random.random((pairs, size, 2)) < rates)
        * _STALL_MS
        * (1 + random.pareto(2.0, (pairs, size, 2)))
    )
    wait[:, :, 1] += fault.wait_ms
    mode = np.where(random.random((pairs, size)) < 0.7, 10.0, 16.0)
    tpot = mode[:, :, None] * np.exp(0.05 * random.standard_normal((pairs, size, 2)))
    tpot = tpot * slow[:, None, :] * np.sqrt(noise)
    tpot[:, :, 1] *= fault.decode
    out = np.repeat(tokens[:, :, None], 2, axis=2)
    out[:, :, 1] = np.round(out[:, :, 1] * fault.longer)
    odd = random.random((pairs, size, 2)) < regime.unlike / 2
    out = np.maximum(2, out - odd * random.integers(1, 5, (pairs, size, 2)))
    decode = tpot * (out - 1)
    parts = {"network": np.full_like(wait, 1.5), "queue": wait, "prefill": prefill + stall}
    parts["network"][:, :, 1] += fault.network_ms
    parts["decode"] = decode
    slower = np.full((pairs, size), fault.all)
    if fault.outliers:
        slower[random.random((pairs, size)) < fault.outliers] *= 10.0
    for each in (*parts.values(), tpot):
        each[:, :, 1] *= slower
    failed = random.random((pairs, size, 2)) < regime.lost + np.array([0.0, fault.fails])
    late = (random.random((pairs, 1, 2)) < regime.late_blocks) & (
        random.random((pairs, size, 2)) < 0.6
    )
    return _columns(parts, tpot, out, kinds, order, failed, late, block, fault.cached)


def _columns(
    parts: dict[str, Any], tpot: Any, out: Any, kinds: Any, order: Any, failed: Any, late: Any,
    block: int, cached: bool,
) -> Columns:  # fmt: skip
    def flat(values: Any) -> Any:
        return np.ascontiguousarray(values[:, _WARMUP:, :]).reshape(-1)

    pairs = len(order)
    ns = {name: np.round(flat(each) * 1e6).astype(np.int64) for name, each in parts.items()}
    ttft = ns["network"] + ns["queue"] + ns["prefill"]
    shape = (pairs, block, 2)
    place = np.indices(shape).reshape(3, -1)
    prompt = np.round(np.repeat(_PREFILL_MS[kinds][:, :, None] * 8, 2, axis=2))
    hits = prompt * np.array([0.0, 0.5 if cached else 0.0])
    return {
        "pair": place[0],
        "index": place[1],
        "arm": place[2],
        "second": (order[place[0]] == place[2]),
        "ttft": ttft,
        "tpot": np.round(flat(tpot) * 1e6).astype(np.int64),
        "itl": np.round(flat(tpot) * 1.3e6).astype(np.int64),
        "e2e": ttft + ns["decode"],
        "tokens": flat(out).astype(np.int64),
        "ok": ~flat(failed),
        "late": flat(late),
        "prompt": flat(prompt).astype(np.int64),
        "cached": flat(hits).astype(np.int64),
        "class": _CLASSES[flat(np.repeat(kinds[:, :, None], 2, axis=2))],
        "parts": ns,
    }


def _machine(random: Any, regime: Regime, pairs: int, order: Any) -> Any:
    """(pairs, 2): how slow the machine is during each block, which follow each other in time."""
    level = np.empty(2 * pairs)
    now = regime.drift * random.standard_normal()
    for at in range(2 * pairs):
        now = 0.9 * now + regime.drift * np.sqrt(1 - 0.81) * random.standard_normal()
        level[at] = now
    slow = np.exp(level)
    slow[random.random(2 * pairs) < regime.contaminated] *= 1.6
    first_second = slow.reshape(pairs, 2)
    # The candidate's place in time is ``order``.
    mine = first_second[np.arange(pairs), order]
    other = first_second[np.arange(pairs), 1 - order]
    return np.stack([other, mine], axis=1)


def _autoregressive(random: Any, both: tuple[int, int], size: int) -> Any:
    """(pairs, size, 2): noise of 10 % that requests share with their neighbours."""
    steps = random.standard_normal((size, *both))
    now = steps[0]
    out = np.empty((both[0], size, 2))
    for at in range(size):
        now = 0.9 * now + np.sqrt(1 - 0.81) * steps[at] if at else now
        out[:, at, :] = now
    return np.exp(0.10 * out)


def _congestion(random: Any, both: tuple[int, int], size: int) -> Any:
    """(pairs, size, 2): 1.4 while something else is busy: 5 % of the time, some 20 requests."""
    draws = random.random((size, *both))
    busy = draws[0] < 0.05
    out = np.empty((both[0], size, 2))
    for at in range(size):
        busy = np.where(busy, draws[at] > 0.05, draws[at] < 0.0026) if at else busy
        out[:, at, :] = busy
    return np.where(out > 0, 1.4, 1.0)


def _waits(gaps: Any, service: Any) -> Any:
    """(pairs, size, 2): Lindley's recursion, each block from an empty queue."""
    wait = np.zeros_like(service)
    for at in range(1, gaps.shape[1]):
        before = wait[:, at - 1, :] + service[:, at - 1, :] - gaps[:, at, None]
        wait[:, at, :] = np.maximum(0.0, before)
    return wait
