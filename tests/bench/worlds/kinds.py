"""Kinds of world: each an ordinary server with one fault, drawn in one of its forms.

``KINDS`` has a function for each; what leads in the end, the truth says.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from . import costs
from .clock import Clock
from .costs import MS, US, S, log_uniform
from .course import Happening
from .draft import EPOCH, Draft, ordinary, press, sharing
from .engines import Causes, Emit, Engine, Shape, Stalls, StepEngine
from .gateways import (
    Admission,
    Bucket,
    Delay,
    Flush,
    HoldEnd,
    PerEvent,
)
from .limit_kinds import limit_one, limit_rate, limit_tokens, limits
from .path import Frontend, LoopFrontend, Network
from .pools import Replicas, StaticBatches, TwoPools
from .turns import changes, cold_start, drift, others, overload, step
from .world import Tenants, World


def gateway_constant(draft: Draft) -> None:
    """Authorisation, a guardrail, a lookup: each POST takes longer, a GET perhaps not."""
    draw = draft.draw
    ns, gets = log_uniform(draw, 60, 2500) * MS, draw.random() < 0.35
    byte = log_uniform(draw, 20, 800) * US if draw.random() < 0.3 else 0.0
    spread = draw.choice((0.03, 0.08, 0.3))
    if byte:
        ns /= 20
    gets = gets and not byte
    draft.gateways.append(lambda clock: Delay(clock, draw, ns, byte, gets, spread))
    draft.refused_at = draw.choice(("gateway", "entry", "frontend"))
    draft.say(
        f"a gateway delays {'all' if gets else 'POSTs'} by {ns / MS:.0f} ms"
        f" + {byte / US:.0f} us a byte; refusals come from the {draft.refused_at}"
    )


def gateway_flush(draft: Draft) -> None:
    """nginx with proxy_buffering, HAProxy without http-no-delay, a compressing proxy."""
    draw = draft.draw
    way = draw.choice(("period", "ticks", "size", "both", "end"))
    period = round(log_uniform(draw, 80, 2000) * MS)
    size = draw.choice((1024, 4096, 8192))
    end = draw.random() < 0.6
    if way == "end":
        hold = log_uniform(draw, 60, 3000) * MS
        draft.gateways.append(lambda clock: HoldEnd(clock, draw, hold))
        # Without an event of its own there is nothing at the end that could be held.
        draft.habit = replace(draft.habit, usage=True)
        draft.say(f"a gateway holds the end of the reply {hold / MS:.0f} ms")
        return
    by = {"period": (period, 0), "ticks": (period, 0), "size": (0, size), "both": (period, size)}
    held, room = by[way]
    phase = draw.randrange(period)
    if way == "size":
        end = False
    draft.gateways.append(lambda clock: Flush(clock, held, room, way == "ticks", end, phase))
    draft.say(
        f"a gateway lets the stream go every {held / MS:.0f} ms or {room} bytes ({way}), the end"
        f" {'too' if end else 'at once'}"
    )


def gateway_admission(draft: Draft) -> None:
    """A limit of requests at once, with a queue of the gateway's own."""
    draw = draft.draw
    places, all_posts = draw.choice((1, 1, 2, 2, 3, 4, 6)), draw.random() < 0.4
    draft.gateways.append(lambda clock: Admission(clock, places, all_posts=all_posts))
    # Nothing marks a POST that will be refused: whoever lets it pass without a place has read it.
    draft.refused_at = "frontend" if all_posts else "gateway"
    press(draft, places)
    draft.say(f"a gateway lets {places} in at once{', refused ones too' if all_posts else ''}")


def gateway_work(draft: Draft) -> None:
    """A proxy that opens every event, or paces tokens."""
    draw = draft.draw
    if draw.random() < 0.3:
        rate, burst = log_uniform(draw, 15, 120), draw.choice((1, 10, 40, 200))
        draft.gateways.append(lambda clock: Bucket(clock, rate, burst))
        draft.say(f"a bucket of {rate:.0f} tokens/s for all, {burst} at once")
        return
    shared = draw.random() < 0.6
    ns = log_uniform(draw, 1, 20) * MS if shared else draft.token * draw.uniform(0.3, 4.0)
    draft.gateways.append(lambda clock: PerEvent(clock, draw, ns, shared))
    draft.say(f"a gateway works {ns / MS:.1f} ms on each event, {'one process' if shared else ''}")


# ---------------------------------------------------------------------- engines
def engine_queue(draft: Draft) -> None:
    """Too few places, another order of service, windows, batches that nobody joins."""
    draw = draft.draw
    way = draw.choice(("places", "places", "order", "window", "static", "sharing", "cache"))
    most = draw.choice((1, 2, 2, 4, 6, 8))
    draft.say(f"{way}, {most} streams")
    if way in ("places", "order"):
        order = draw.choice(("shortest", "priority")) if way == "order" else "fifo"
        draft.reshape(most=lambda now: most, order=order)
    elif way == "window":
        window = round(log_uniform(draw, 20, 400) * MS)
        draft.reshape(window=window, gather=most, most=lambda now: max(most, 2))
        draft.say(f"collects for {window / MS:.0f} ms")
    elif way == "static":
        window = round(log_uniform(draw, 5, 300) * MS)
        draft.engine, draft.shared = _static(max(most, 2), window), False
        draft.say(f"static batches, {window / MS:.0f} ms")
    elif way == "sharing":
        power = draw.uniform(1.0, 4.0)
        draft.engine = sharing(power)
        draft.say(f"processor sharing, {power:.1f} times one")
    else:
        cache = draw.choice((2000, 4000, 8000))
        draft.reshape(cache=cache)
        draft.say(f"room for {cache} tokens")
    press(draft, most)


def _static(most: int, window: int) -> Callable[[Draft, Clock, Emit, Causes], Engine]:
    def made(draft: Draft, clock: Clock, emit: Emit, causes: Causes) -> Engine:
        step, prompt = draft.shape.step, draft.shape.prompt
        return StaticBatches(
            clock, draft.draw, step, prompt, most, window, draft.habit, emit, causes
        )

    return made


def engine_work(draft: Draft) -> None:
    """Slow prompts, slow steps, a slow way or a slow frontend: what every tool should know."""
    draw = draft.draw
    way = draw.choice(("prompt", "prompt", "step", "network", "frontend", "frontend", "prefix"))
    draft.say(f"slow {way}")
    if way == "prompt":
        token = log_uniform(draw, 300, 5000) * US
        draft.reshape(prompt=costs.drawn(draw, costs.PROMPTS, token))
        draft.say(f"{token / US:.0f} us a token")
    elif way == "step":
        draft.token = log_uniform(draw, 40, 150) * MS
        draft.reshape(step=costs.drawn(draw, costs.STEPS, draft.token))
    elif way == "prefix":
        tokens, misses = draw.choice((2000, 4000, 8000)), draw.uniform(0.05, 0.6)
        token = log_uniform(draw, 20, 300) * US
        draft.reshape(prefix=(tokens, misses), prompt=costs.drawn(draw, costs.PROMPTS, token))
        draft.say(f"a prefix of {tokens} tokens, missed {misses:.0%}")
    elif way == "network":
        base = log_uniform(draw, 40, 400) * MS
        jitter, rate = base * draw.uniform(0.01, 0.2), log_uniform(draw, 0.001, 0.1)
        loss = draw.choice((0.0, 0.0, 0.001))
        if draw.random() < 0.35:
            draft.gateways.insert(
                0, lambda clock: Network(clock, draw, round(base), jitter, rate, loss, False)
            )
        else:
            draft.network = lambda clock: Network(clock, draw, round(base), jitter, rate, loss)
        draft.say(f"a way of {base / MS:.0f} ms")
    else:
        parse, token = log_uniform(draw, 10, 800) * MS, log_uniform(draw, 20, 2500) * US
        event = log_uniform(draw, 0.1, 4.0) * MS
        front = draw.choice((Frontend, LoopFrontend))
        draft.frontend = lambda clock: front(clock, draw, parse, token, event)
        draft.say(f"{front.__name__} {parse / MS:.0f} ms + {token / US:.0f} us a token")


def replicas(draft: Draft) -> None:
    """Several engines, of which one is slower, or has fewer places, or a cold cache."""
    draw = draft.draw
    number, slow = draw.choice((2, 2, 3, 4)), draw.uniform(1.5, 5.0)
    rule = draw.choice(("turn", "turn", "load", "chance"))
    way = draw.choice(("all", "prompt", "places"))
    # A long prompt stretches only the streams that are where it is.
    draft.unlike, draft.shared = way != "places", False
    if way == "prompt":
        draft.reshape(prompt=costs.drawn(draw, costs.PROMPTS, log_uniform(draw, 100, 2500) * US))
    draft.say(f"{number} replicas by {rule}, one of them {slow:.1f} times slower in {way}")

    def made(given: Draft, clock: Clock, emit: Emit, causes: Causes) -> Engine:
        return Replicas(
            draw,
            [
                StepEngine(clock, draw, shape, given.habit, emit, causes)
                for shape in (*[given.shape] * (number - 1), _slower(given.shape, way, slow))
            ],
            rule,
        )

    draft.engine = made


def _slower(shape: Shape, way: str, factor: float) -> Shape:
    if way == "all":
        return replace(shape, speed=lambda now: factor)
    if way == "prompt":
        prompt = shape.prompt
        return replace(shape, prompt=lambda tokens, before: factor * prompt(tokens, before))
    return replace(shape, most=lambda now: 1)


def stalls(draft: Draft) -> None:
    """All streams are silent now and then, or one is; or others use the server too."""
    draw = draft.draw
    way = draw.choice(("stalls", "stalls", "preemption", "tenants", "tenants"))
    if way == "stalls":
        every, ns = log_uniform(draw, 0.6, 6) * S, log_uniform(draw, 150, 1500) * MS
        draft.reshape(stalls=Stalls(draw, every, ns))
        draft.say(f"stands still {ns / MS:.0f} ms each {every / S:.1f} s")
    elif way == "preemption":
        cache = draw.choice((1500, 2500, 4000))
        draft.reshape(cache=cache)
        draft.workload |= {"isl": (256, 400), "osl": (96,), "concurrency": draw.randint(6, 16)}
        draft.say(f"memory for {cache} tokens, asked with {draft.workload}")
    else:
        spells = draw.random() < 0.5
        isl, osl = draw.choice((100, 500, 2000)), draw.choice((40, 100, 200))
        on, off = (draw.uniform(1, 5) * S, draw.uniform(1, 6) * S) if spells else (0.0, 0.0)
        most = draw.choice((4, 8, 16, 64))
        draft.reshape(most=lambda now: most)
        # What they ask for is less than what the places can do, or nobody would be served.
        holds_s = (osl * draft.token * 1.3 + isl * draft.prompt_token * 2) / S
        rate = min(most, 12) / holds_s * draw.uniform(0.2, 0.85)
        draft.say(f"{most} streams")
        draft.tenants = Tenants(draw, rate, isl, osl, on, off)
        if spells:
            draft.course.happenings.append(Happening("spell", of="others"))
        draft.say(
            f"others send {rate:.1f}/s of {isl}+{osl} tokens{' in spells' if spells else ''}"
        )


def chunks(draft: Draft) -> None:
    """Several tokens in an event, from the first on."""
    draw = draft.draw
    chunk = draw.choice((2, 4, 5, 8, 10, 16))
    draft.habit = replace(draft.habit, chunk=chunk)
    draft.say(f"{chunk} tokens an event, counted by {draft.habit.counts}")


def hidden_tokens(draft: Draft) -> None:
    """Tokens that are made and paid for and never seen, or whose text comes late."""
    draw = draft.draw
    way = draw.choice(("hidden", "hidden", "hidden", "mute", "elsewhere"))
    if way == "elsewhere":
        field, share = draw.choice(("thinking", "reasoning_details")), draw.uniform(0.2, 0.8)
        draft.habit = replace(draft.habit, thinks=share, thought=field)
        draft.say(f"{share:.0%} of the text stands in {field}")
    elif way == "hidden":
        share, most = draw.choice((1.0, 1.0, 0.6)), draw.choice((20, 60, 100, 250))
        counts = draw.choice(("ids", "nothing", "nothing"))
        draft.habit = replace(draft.habit, hidden=(share, most), counts=counts, usage=True)
        draft.say(f"up to {most} hidden tokens in {share:.0%} of the replies")
    else:
        mute = draw.choice((4, 8, 16, 30))
        draft.habit = replace(draft.habit, mute=mute)
        draft.say(f"the text of the first {mute} tokens comes with the next")


def disaggregated(draft: Draft) -> None:
    """Prompts on servers of their own, and a link between."""
    draw = draft.draw
    workers, early = draw.choice((1, 1, 2, 4)), draw.random() < 0.4
    handover = log_uniform(draw, 1, 600) * MS
    token = log_uniform(draw, 2, 2000) * US
    serial = draw.random() < 0.5
    if draw.random() < 0.4:
        prompt = log_uniform(draw, 100, 2000) * US
        draft.reshape(prompt=costs.drawn(draw, costs.PROMPTS, prompt))
    draft.shared = False
    draft.say(
        f"{workers} prompt workers, hand-over {handover / MS:.0f} ms + {token / US:.0f} us a token"
        f"{', after the first token' if early else ''}{', one at a time' if serial else ''}"
    )

    def made(given: Draft, clock: Clock, emit: Emit, causes: Causes) -> Engine:
        decoder = StepEngine(clock, draw, given.shape, given.habit, emit, causes, True)
        return TwoPools(
            clock, draw, given.shape.prompt, workers, handover, token, decoder, given.habit,
            emit, causes, early, serial,
        )  # fmt: skip

    draft.engine = made


def healthy(draft: Draft) -> None:
    """Nothing is wrong: quick steps, short ways, room for all."""
    draw = draft.draw
    draft.token = log_uniform(draw, 5, 18) * MS
    draft.reshape(
        step=costs.drawn(draw, (costs.padded, costs.roofline, costs.plateau), draft.token),
        prompt=costs.drawn(draw, costs.PROMPTS, log_uniform(draw, 6, 30) * US),
        stalls=None,
    )
    draft.workload = {"osl": (64, 96)} if draw.random() < 0.5 else {}
    draft.say(f"healthy, {draft.token / MS:.0f} ms a token, {draft.workload}")


KINDS: Mapping[str, Callable[[Draft], None]] = {
    "gateway-constant": gateway_constant,
    "gateway-flush": gateway_flush,
    "gateway-admission": gateway_admission,
    "gateway-work": gateway_work,
    "engine-queue": engine_queue,
    "engine-work": engine_work,
    "replicas": replicas,
    "stalls": stalls,
    "chunks": chunks,
    "hidden-tokens": hidden_tokens,
    "limits": limits,
    "limit-rate": limit_rate,
    "limit-tokens": limit_tokens,
    "limit-one": limit_one,
    "changes": changes,
    "overload": overload,
    "cold-start": cold_start,
    "step": step,
    "drift": drift,
    "others": others,
    "disaggregated": disaggregated,
    "healthy": healthy,
}


def drawn(kind: str, seed: str, clock: Clock | None = None) -> tuple[World, Draft]:
    """The world of this kind and seed; any text is a seed. ``clock``: of a world that is served on
    a socket: the way to it is a real one."""
    draft = ordinary(random.Random(f"{kind} {seed}"))
    KINDS[kind](draft)
    if clock is not None:
        draft.network = lambda clock: Network(clock, draft.draw, 0, 0.0, 1e9)
    return draft.built(clock or Clock(EPOCH)), draft
