"""Kinds of world whose server limits what it takes: by refusing, or by slowing down."""

from __future__ import annotations

from .costs import S, log_uniform
from .draft import Draft, press, sharing
from .gateways import Bucket, InFlight, PerSecond, PerWindow


def limits(draft: Draft) -> None:
    """429 and 503, by requests in flight or per second."""
    draw = draft.draw
    wait_s = draw.choice((None, 1.0, 2.0, 5.0))
    if draw.random() < 0.6:
        most, status = draw.choice((2, 4, 6, 8, 12)), draw.choice((429, 429, 503))
        draft.gateways.append(lambda clock: InFlight(most, status, wait_s))
        draft.say(f"{status} beyond {most} in flight")
    else:
        rate, burst = log_uniform(draw, 1, 10), draw.choice((5, 10, 20, 60))
        draft.gateways.append(lambda clock: PerSecond(clock, rate, burst, wait_s))
        draft.say(f"429 beyond {rate:.1f} requests/s, {burst} at once")


def limit_rate(draft: Draft) -> None:
    """429 by requests in a time: buckets, even spacing, windows; with and without Retry-After."""
    draw = draft.draw
    way = draw.choice(("bucket", "bucket", "spacing", "window", "window"))
    rate, wait_s = log_uniform(draw, 0.8, 12), draw.choice((None, None, 1.0, 2.0))
    if way == "window":
        window, tells = draw.choice((5, 10, 20, 30)), draw.random() < 0.5
        number, phase = max(3, round(rate * window)), draw.randrange(window * S)
        draft.gateways.append(lambda clock: PerWindow(clock, number, window * S, phase, tells))
        draft.say(f"429 beyond {number} requests in {window} s, told {tells}")
        return
    burst = 1 if way == "spacing" else draw.choice((3, 8, 15, 30))
    draft.gateways.append(lambda clock: PerSecond(clock, rate, burst, wait_s))
    draft.say(f"429 beyond {rate:.2f} requests/s, {burst} at once")


def limit_tokens(draft: Draft) -> None:
    """A bucket of tokens of a key that the streams wait for, from much slower than one stream to
    the pace of several."""
    draw = draft.draw
    rate = 1e9 / draft.token * log_uniform(draw, 0.3, 3.0)
    burst = draw.choice((1, 10, 40))
    draft.gateways.append(lambda clock: Bucket(clock, rate, burst))
    draft.say(f"a bucket of {rate:.0f} tokens/s for all, {burst} at once")


def limit_one(draft: Draft) -> None:
    """One stream at a time: one after the other, or each by turns."""
    draw = draft.draw
    if draw.random() < 0.5:
        draft.reshape(most=lambda now: 1)
        draft.say("one request after the other")
    else:
        draft.engine = sharing(1.0)
        draft.say("one stream at a time, by turns")
    press(draft, 1)
