"""What a demo server is: its constants, the faults by name, and draws from wide ranges."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

#: Request fields that a server may be told to answer with 400.
REFUSABLE = frozenset(
    {"ignore_eos", "min_tokens", "return_token_ids", "continuous_usage", "temperature"}
)


@dataclass(frozen=True, slots=True)
class Params:
    """Constants of one demo server; the defaults are a healthy small one.

    Suffixes are units: ``_ms``, ``_us`` and ``_ns`` per what the comment says. Raises ValueError
    for values that no server can have.
    """

    overhead_ms: float = 1.0  # per step: scheduling, launch
    weights_ms: float = 3.5  # per step: reading the weights
    compute_us: float = 20.0  # per token of linear work; hidden behind the weights when small
    kv_ns: float = 20.0  # per context token that a decode reads
    seq_us: float = 20.0  # per sequence in a step
    attention_ns: float = 1.0  # per prefill token and context token
    comm_ms: float = 0.0  # exposed collectives, per step
    comm_us: float = 0.0  # exposed collectives, per token
    token_budget: int = 2048  # tokens per step
    chunked: bool = True  # decodes first and prompts in chunks; else whole prompts first
    max_seqs: int = 64
    kv_blocks: int = 25_000
    block_tokens: int = 16
    prefix_cache: bool = False
    noise: float = 0.02  # sigma of a log-normal factor (mean 1) on a whole step
    frontend_ms: float = 1.0  # per request; a delay, not a queue
    frontend_us: float = 1.0  # per input token
    disaggregated: bool = False
    kv_setup_ms: float = 0.0  # before a transfer; does not occupy the link
    kv_us: float = 0.0  # per prompt token on the link, one transfer at a time
    first_token: str = "prefill"  # "prefill": token 1 leaves before the transfer; "decode": after
    network_ms: float = 0.0  # one-way delay of the relay in front
    network_jitter_ms: float = 0.0  # exponential, on top of it, order kept
    gateway_ms: float = 0.0  # of each POST in the gateway in front; GETs pass at once
    gateway_token_ms: float = 0.0  # its work on each token, one after the other in a stream
    gateway_flush_ms: float = 0.0  # it holds a stream back, and lets it go by this timer
    gateway_admits: int = 0  # POSTs that it lets through at once; 0: all
    max_model_len: int = 32_768
    refuses: frozenset[str] = frozenset()  # of REFUSABLE
    eos_mean: int | None = None  # mean length of a reply that may end by itself

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, float | int) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; it must be a number that is not negative")
        for name in ("token_budget", "max_seqs", "kv_blocks", "block_tokens", "max_model_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.token_budget < self.max_seqs:
            raise ValueError("token_budget is below max_seqs: some decodes would never run")
        if self.first_token not in ("prefill", "decode"):
            raise ValueError(f"first_token is {self.first_token!r}, not prefill or decode")
        if self.eos_mean is not None and self.eos_mean < 1:
            raise ValueError("eos_mean must be at least 1")
        if not self.refuses <= REFUSABLE:
            raise ValueError(f"cannot refuse {sorted(self.refuses - REFUSABLE)}")

    @property
    def has_gateway(self) -> bool:
        """Whether a gateway stands in front."""
        return bool(
            self.gateway_ms
            or self.gateway_token_ms
            or self.gateway_flush_ms
            or self.gateway_admits
        )

    def to_json(self) -> str:
        """As one line of JSON; ``from_json`` reads it back."""
        return json.dumps(asdict(self) | {"refuses": sorted(self.refuses)})

    @classmethod
    def from_json(cls, text: str) -> Params:
        """Raises ValueError or TypeError for what ``to_json`` did not write."""
        found = json.loads(text)
        return cls(**(found | {"refuses": frozenset(found["refuses"])}))


def echo(ttft_ms: float = 50.0, itl_ms: float = 10.0) -> Params:
    """A server without a queue, without noise and with room for all: the first token leaves
    ``ttft_ms`` after the request came, each further one ``itl_ms`` after the one before.

    That is exact for a request that comes alone; one that comes while others run waits for the
    end of their step. With 0 and 0 all tokens leave at once. ValueError for a first token that
    would leave before a step has ended.
    """
    return Params(
        weights_ms=itl_ms,
        frontend_ms=ttft_ms - itl_ms,
        overhead_ms=0.0,
        compute_us=0.0,
        kv_ns=0.0,
        seq_us=0.0,
        attention_ns=0.0,
        frontend_us=0.0,
        noise=0.0,
        token_budget=1 << 30,
        max_seqs=1024,
        kv_blocks=2048,
        block_tokens=1 << 20,  # one block holds any request
        max_model_len=1 << 18,
    )


#: One server per fault, for a first look. Each holds under some three requests in flight with
#: prompts of 300 and replies of 36 tokens in the mean.
FAULTS: dict[str, Params] = {
    "healthy": Params(),
    # One seat, and some three requests for it: a mean one takes 0.4 to 0.5 s alone.
    "queue": Params(overhead_ms=2.0, weights_ms=11.0, max_seqs=1),
    # 300 tokens take 0.21 s on a prefill server of its own, a step of decodes 2.5 ms.
    "prefill": Params(
        overhead_ms=0.5,
        weights_ms=2.0,
        compute_us=700.0,
        disaggregated=True,
        kv_setup_ms=1.5,
        kv_us=3.0,
    ),
    "decode": Params(overhead_ms=3.0, weights_ms=42.0),
    # Whole prompts first: 300 tokens stop all streams for 60 ms, ten steps of theirs.
    "interference": Params(
        overhead_ms=1.0,
        weights_ms=5.0,
        compute_us=200.0,
        seq_us=800.0,
        chunked=False,
        token_budget=8192,
    ),
    # 300 tokens take 65 + 75 ms to the decode side; the link is busy for 0.45 of the time.
    "kv-transfer": Params(
        overhead_ms=0.7,
        weights_ms=2.0,
        disaggregated=True,
        kv_setup_ms=65.0,
        kv_us=250.0,
    ),
    "network": Params(overhead_ms=0.7, weights_ms=2.3, network_ms=120.0, network_jitter_ms=4.0),
    # A key is checked, or a guardrail asked, before each POST goes on.
    "gateway": Params(gateway_ms=300.0),
    # The gateway works on each token for longer than a step takes: streams pile up in it.
    "gateway-tokens": Params(gateway_token_ms=18.0),
    # 36 tokens at 16 ms come in three bursts and a rest.
    "gateway-flush": Params(overhead_ms=2.0, weights_ms=13.5, gateway_flush_ms=200.0),
    # One POST at a time, and some three that want through.
    "gateway-queue": Params(overhead_ms=2.0, weights_ms=11.0, gateway_admits=1),
}
#: The faults of the server alone, without a gateway in front.
OF_SERVER = tuple(name for name, params in FAULTS.items() if not params.has_gateway)

#: A mean request of the load that the draws are sized for: tokens in, decode steps.
_PROMPT, _STEPS = 300, 35
#: Longest that the prefill of 4096 tokens may take, in ns.
_LONG_PREFILL_NS = 3.8e9


def _spread(rng: random.Random, low: float, high: float) -> float:
    """Log-uniform, to four digits: each factor of the range is as likely as any other."""
    return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.4g}")


def _with_step(
    params: Params, rng: random.Random, total_ms: float, low: float = 0.1, high: float = 0.35
) -> Params:
    """With a step of ``total_ms``: overhead, a share between ``low`` and ``high``, and weights."""
    overhead_ms = total_ms * rng.uniform(low, high)
    return replace(
        params, overhead_ms=round(overhead_ms, 3), weights_ms=round(total_ms - overhead_ms, 3)
    )


def _sound(rng: random.Random) -> Params:
    """A healthy server: steps of 3 to 14 ms, prompts of 300 tokens in 2 to 9 ms of compute."""
    return replace(
        _with_step(Params(), rng, _spread(rng, 3.2, 14.0)),
        compute_us=_spread(rng, 6.0, 30.0),
        kv_ns=_spread(rng, 5.0, 60.0),
        seq_us=_spread(rng, 5.0, 60.0),
        attention_ns=_spread(rng, 0.2, 2.0),
        token_budget=rng.choice((512, 1024, 2048, 4096, 8192)),
        max_seqs=rng.choice((32, 48, 64, 128, 256)),
        kv_blocks=round(_spread(rng, 6_000, 60_000)),
        block_tokens=rng.choice((16, 32)),
        prefix_cache=rng.random() < 0.5,
        noise=_spread(rng, 0.01, 0.06),
        frontend_ms=_spread(rng, 0.3, 6.0),
        frontend_us=_spread(rng, 0.3, 3.0),
    )


def _queue(params: Params, rng: random.Random) -> Params:
    """Fewer seats than requests that want one: about 1.4 to 2.1 for one seat, 2.5 to 3 for two.
    Three seats are too few only where three in a batch are slower than one."""
    seats = rng.choice((1, 2, 3))
    least_ms, most_ms = {1: (240, 350), 2: (430, 800), 3: (550, 800)}[seats]
    step_ms = _spread(rng, least_ms, most_ms) / (_STEPS + 1)
    seq_ms = step_ms * (rng.uniform(0.35, 0.5) if seats == 3 else rng.uniform(0.0, 0.02))
    return replace(
        _with_step(params, rng, step_ms - seq_ms),
        seq_us=round(1e3 * seq_ms, 1),
        max_seqs=seats,
    )


def _prefill(params: Params, rng: random.Random) -> Params:
    """A mean prompt takes 0.13 to 0.24 s, and twice as long as its decode or more.

    On a server of its own: where both share one, every prompt that comes while another is in
    prefill stretches that one's decode, and decode is as large as prefill.
    """
    prompt_ms = _spread(rng, 130, 240)
    return replace(
        _with_step(params, rng, prompt_ms / rng.uniform(2.0, 3.5) / _STEPS, 0.1, 0.3),
        compute_us=round(1e3 * prompt_ms / _PROMPT, 1),
        kv_ns=_spread(rng, 2.0, 20.0),
        attention_ns=_spread(rng, 0.2, 30.0),
        disaggregated=True,
        kv_setup_ms=_spread(rng, 0.5, 5.0),
        kv_us=_spread(rng, 0.5, 10.0),
        # After the transfer nothing outside could tell the two apart.
        first_token="prefill",
    )


def _decode(params: Params, rng: random.Random) -> Params:
    """Slow whatever the batch, slow with the batch, or slow with the context."""
    kind = rng.choice(("weights", "batch", "context"))
    if kind == "weights":
        return _with_step(params, rng, _spread(rng, 32.0, 75.0), 0.05)
    if kind == "batch":
        return replace(
            _with_step(params, rng, _spread(rng, 5.0, 16.0)),
            seq_us=_spread(rng, 8_000, 24_000),
        )
    return replace(
        _with_step(params, rng, _spread(rng, 12.0, 32.0)),
        kv_ns=_spread(rng, 8_000, 30_000),
    )


def _interference(params: Params, rng: random.Random) -> Params:
    """Prompts stop or stretch all streams. At most 0.3 of the time is prefill at the load these
    are sized for, so decode's own parts are kept at the like of it."""
    prompt_ms = _spread(rng, 60, 170)
    quadratic = rng.uniform(0.0, 0.35)
    compute_us = 1e3 * prompt_ms * (1 - quadratic) / _PROMPT
    most_ns = (_LONG_PREFILL_NS - compute_us * 1e3 * 4096) / (4096**2 / 2)
    attention_ns = min(most_ns, quadratic * prompt_ms * 1e6 / (_PROMPT**2 / 2))
    step_ms = prompt_ms * rng.uniform(0.9, 1.4) / _STEPS
    seq_ms = step_ms * rng.uniform(0.35, 0.55)
    return replace(
        _with_step(params, rng, step_ms - seq_ms),
        seq_us=round(seq_ms * 1e3, 1),
        compute_us=round(compute_us, 1),
        attention_ns=round(attention_ns, 1),
        chunked=rng.random() < 0.3,
        token_budget=rng.choice((8192, 16_384)),
        kv_ns=_spread(rng, 2.0, 20.0),
    )


def _kv_transfer(params: Params, rng: random.Random) -> Params:
    """A mean prompt takes 0.13 to 0.26 s to the decode side, 1.7 times its decode or more; the
    link is busy for at most 0.55 of the time at six requests a second."""
    moved_ms = _spread(rng, 130, 260)
    link_ms = min(90.0, moved_ms * rng.uniform(0.1, 0.5))
    return replace(
        _with_step(params, rng, moved_ms / rng.uniform(1.7, 2.4) / _STEPS),
        disaggregated=True,
        kv_setup_ms=round(moved_ms - link_ms, 2),
        kv_us=round(1e3 * link_ms / _PROMPT, 1),
        first_token=rng.choice(("prefill", "decode")),
    )


def _network(params: Params, rng: random.Random) -> Params:
    """A relay of 60 to 200 ms each way, and at least 1.4 times as much as the decode."""
    one_way_ms = _spread(rng, 60, 200)
    step_ms = 2 * one_way_ms / rng.uniform(1.4, 2.5) / _STEPS
    return replace(
        _with_step(params, rng, min(8.0, max(1.8, step_ms))),
        network_ms=one_way_ms,
        network_jitter_ms=round(one_way_ms * rng.uniform(0.0, 0.08), 2),
    )


def _gateway(params: Params, rng: random.Random) -> Params:
    """Each POST takes 1.5 times its decode or more in the gateway."""
    return replace(
        _with_step(params, rng, _spread(rng, 3.0, 8.0)), gateway_ms=_spread(rng, 250, 600)
    )


def _gateway_tokens(params: Params, rng: random.Random) -> Params:
    """Work on a token takes 2.5 to 5 steps."""
    step_ms = _spread(rng, 3.0, 8.0)
    token_ms = round(step_ms * rng.uniform(2.5, 5.0), 2)
    return replace(_with_step(params, rng, step_ms), gateway_token_ms=token_ms)


def _gateway_flush(params: Params, rng: random.Random) -> Params:
    """Four bursts or more of a mean reply."""
    step_ms = _spread(rng, 8.0, 30.0)
    flush_ms = round(step_ms * rng.uniform(5.0, 9.0), 1)
    return replace(_with_step(params, rng, step_ms), gateway_flush_ms=flush_ms)


def _gateway_queue(params: Params, rng: random.Random) -> Params:
    """As many seats as ``_queue`` with one or two, in the gateway."""
    seats = rng.choice((1, 2))
    least_ms, most_ms = {1: (240, 350), 2: (430, 800)}[seats]
    step_ms = _spread(rng, least_ms, most_ms) / (_STEPS + 1)
    return replace(_with_step(params, rng, step_ms), gateway_admits=seats)


_SICK: dict[str, Callable[[Params, random.Random], Params]] = {
    "healthy": lambda params, rng: params,
    "queue": _queue,
    "prefill": _prefill,
    "decode": _decode,
    "interference": _interference,
    "kv-transfer": _kv_transfer,
    "network": _network,
    "gateway": _gateway,
    "gateway-tokens": _gateway_tokens,
    "gateway-flush": _gateway_flush,
    "gateway-queue": _gateway_queue,
}

#: The fields that are a fault; the others of its draw only fit the server to it.
_CAUSES: dict[str, tuple[str, ...]] = {
    "healthy": (),
    "queue": ("max_seqs",),
    "prefill": ("compute_us", "attention_ns"),
    "decode": ("overhead_ms", "weights_ms", "seq_us", "kv_ns"),
    "interference": ("chunked", "token_budget", "compute_us", "attention_ns"),
    "kv-transfer": ("disaggregated", "kv_setup_ms", "kv_us", "first_token"),
    "network": ("network_ms", "network_jitter_ms"),
    "gateway": ("gateway_ms",),
    "gateway-tokens": ("gateway_token_ms",),
    "gateway-flush": ("gateway_flush_ms",),
    "gateway-queue": ("gateway_admits",),
}
#: Where prefill and decode are apart, no prompt disturbs a decode, and who lacks a seat waits
#: between the two (interconnect.wait), not in the queue.
_APART = frozenset({"queue", "interference"})


def draw(fault: str, seed: int) -> Params:
    """A server with this fault, all its constants drawn from wide ranges. KeyError: no such."""
    rng = random.Random(f"{fault} {seed}")
    return _SICK[fault](_sound(rng), rng)


def can_be_both(first: str, second: str) -> bool:
    """Whether one server can have both faults."""
    pair = {first, second}
    if not pair <= set(OF_SERVER):
        return False
    return len(pair - {"healthy"}) == 2 and not ("kv-transfer" in pair and pair & _APART)


def draw_two(first: str, second: str, seed: int) -> Params:
    """A server with both faults. ValueError for two that exclude each other (``can_be_both``)."""
    if not can_be_both(first, second):
        raise ValueError(f"no server has both {first} and {second}")
    if second == "queue":  # the seats must fit the rest
        first, second = second, first
    rng = random.Random(f"{first} {second} {seed}")
    one = _SICK[first](_sound(rng), rng)
    other = _SICK[second](_sound(rng), rng)
    causes = set(_CAUSES[second])
    if "compute_us" in _CAUSES[first] and other.compute_us < one.compute_us:
        causes -= {"compute_us", "attention_ns"}  # the slower prefill is both
    fields = {name: getattr(other, name) for name in sorted(causes)}
    if second in _APART:
        fields.setdefault("disaggregated", False)
    if first == "queue":
        # Slow prompts keep the rate low; with one seat nothing is there to interfere.
        fields["max_seqs"] = 1 if second == "prefill" else 2
    return replace(one, **fields)
