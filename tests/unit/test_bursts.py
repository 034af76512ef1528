"""Streams that come in bursts: what holds tokens back, and what only looks like it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from latdiag.measurement.bursts import Bursts, Trains, bursts_of, trains_of
from latdiag.measurement.held import Held, company_steps_ns, held_of, paces_of

MS = 1_000_000
#: Instants (ns) at which events left the server, and the tokens of each.
Made = list[tuple[float, int]]
Path = Callable[[Made, np.random.Generator], list[float]]


def made(
    rng: np.random.Generator, tokens: int = 96, step_ms: float = 6.5, noise: float = 0.03
) -> Made:
    """A server that writes a token a step."""
    first = rng.uniform(50, 900) * MS
    steps = step_ms * MS * np.exp(rng.normal(0, noise, tokens - 1))
    return [(at, 1) for at in first + np.concatenate(([0.0], np.cumsum(steps)))]


def chunked(events: Made, k: int) -> Made:
    """k tokens in an event, written when the last of them is made."""
    times = [at for at, _ in events]
    return [(times[min(i + k, len(times)) - 1], k) for i in range(0, len(times), k)]


def speculative(events: Made, rng: np.random.Generator, apart: bool) -> Made:
    """1 to 5 tokens a step after the first; ``apart``: an event for each, all at once."""
    out = [events[0]]
    for at, _ in events[1:30]:
        k = int(rng.integers(1, 6))
        out += [(at + 20_000 * i, 1) for i in range(k)] if apart else [(at, k)]
    return out


def straight(events: Made, rng: np.random.Generator) -> list[float]:
    return [at + rng.exponential(30_000) for at, _ in events]


def by_timer(period_ms: float, common: bool, ends: bool) -> Path:
    """All that has come leaves at each beat: of one clock, or of one that starts with the stream.
    ``ends``: the end of a stream leaves at once."""

    def path(events: Made, rng: np.random.Generator) -> list[float]:
        phase = 0.0 if common else rng.uniform(0, period_ms * MS)
        period = period_ms * MS
        out = [float(np.ceil((at - phase) / period) * period + phase) for at, _ in events]
        last = events[-1][0]
        return [min(at, last) if ends else at for at in out]

    return path


def corked(period_ms: float) -> Path:
    """A timer starts with the first byte that is held: HAProxy, and TCP's cork."""

    def path(events: Made, rng: np.random.Generator) -> list[float]:
        out: list[float] = []
        leaves = -1.0
        for at, _ in events:
            if at > leaves:
                leaves = at + period_ms * MS
            out.append(min(leaves, events[-1][0]))
        return out

    return path


def by_size(events_each: int) -> Path:
    def path(events: Made, rng: np.random.Generator) -> list[float]:
        n = len(events)
        return [events[min((i // events_each + 1) * events_each, n) - 1][0] for i in range(n)]

    return path


def jittery(mean_ms: float) -> Path:
    """A path whose delay varies, and which keeps the order."""

    def path(events: Made, rng: np.random.Generator) -> list[float]:
        late = [at + rng.exponential(mean_ms * MS) for at, _ in events]
        return [float(at) for at in np.maximum.accumulate(late)]

    return path


def stalled(events: Made, rng: np.random.Generator) -> list[float]:
    """Twice in a stream the path stands still for 200 ms."""
    out = straight(events, rng)
    for begin in rng.uniform(events[0][0], events[-1][0], 2):
        out = [max(at, begin + 200 * MS) if begin < at < begin + 200 * MS else at for at in out]
    return out


def trains(streams: Sequence[Made], path: Path, rng: np.random.Generator) -> Trains:
    arrivals = [np.rint(path(events, rng)).astype(np.int64) for events in streams]
    offsets = np.concatenate(([0], np.cumsum([len(a) for a in arrivals])))
    flat = np.concatenate(arrivals)
    tokens = np.array([k for events in streams for _, k in events])
    return trains_of(flat, offsets, tokens, np.ones(len(flat), dtype=bool))


def seen(path: Path, n: int = 12, **server: float) -> Bursts | None:
    rng = np.random.default_rng(7)
    return bursts_of(trains([made(rng, **server) for _ in range(n)], path, rng))  # type: ignore[arg-type]


def test_steady_streams_are_no_bursts() -> None:
    assert seen(straight) is None
    assert seen(straight, step_ms=0.8) is None
    assert seen(straight, noise=0.5) is None


@pytest.mark.parametrize("k", [2, 4, 8])
def test_an_event_of_several_tokens_is_no_burst(k: int) -> None:
    rng = np.random.default_rng(k)
    assert bursts_of(trains([chunked(made(rng), k) for _ in range(12)], straight, rng)) is None


@pytest.mark.parametrize("apart", [False, True])
def test_several_tokens_of_a_step_hold_nothing_back(apart: bool) -> None:
    rng = np.random.default_rng(3)
    streams = [speculative(made(rng, step_ms=25), rng, apart) for _ in range(12)]
    of = trains(streams, straight, rng)
    found = bursts_of(of)
    if not apart:
        assert found is None
        return
    assert found is not None and not found.held
    held = held_of(of, found)
    assert not held.first_hi.any() and not held.last_hi.any()


@pytest.mark.parametrize("period_ms", [40, 100, 200])
@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_a_timer_is_named_with_its_period(period_ms: float, common: bool, ends: bool) -> None:
    found = seen(by_timer(period_ms, common, ends))
    assert found is not None and found.kind == "timer" and found.held
    assert found.period_ns == pytest.approx(period_ms * MS, rel=0.02)
    assert found.tokens == pytest.approx(period_ms / 6.5, rel=0.1)
    assert found.step_ns == pytest.approx(6.5 * MS, rel=0.05)
    assert found.share == 1.0 and found.streams == 12
    assert found.jitter_ns < 0.05 * found.period_ns


def test_a_timer_that_starts_with_what_it_holds() -> None:
    found = seen(corked(200))
    assert found is not None and found.kind == "timer"
    # The next one starts with the next token.
    assert 200 * MS <= found.period_ns <= 207 * MS
    assert found.tokens == pytest.approx(31, abs=1)


def test_a_buffer_is_told_from_a_timer_by_the_pace_of_streams() -> None:
    rng = np.random.default_rng(5)
    streams = [made(rng, step_ms=rng.uniform(4, 15)) for _ in range(16)]
    buffered = bursts_of(trains(streams, by_size(12), rng))
    assert buffered is not None and buffered.kind == "size"
    assert buffered.tokens == pytest.approx(12, abs=0.1)
    timed = bursts_of(trains(streams, by_timer(120, False, True), rng))
    assert timed is not None and timed.kind == "timer"
    assert timed.period_ns == pytest.approx(120 * MS, rel=0.02)


def test_a_buffer_at_a_noisy_pace() -> None:
    found = seen(by_size(10), noise=0.4)
    assert found is not None and found.kind == "size"
    assert found.tokens == pytest.approx(10, abs=0.5)


def test_stalls_are_no_bursts() -> None:
    assert seen(stalled) is None


def test_a_path_whose_delay_varies_has_no_rhythm() -> None:
    assert seen(jittery(20)) is None


def test_bursts_without_a_rhythm_are_held_where_no_path_varies_so_much() -> None:
    """HAProxy's first burst is followed by one after 44 ms, and these by all lengths up to 220."""

    def path(events: Made, rng: np.random.Generator) -> list[float]:
        out: list[float] = []
        leaves, first = -1.0, True
        for at, _ in events:
            if at > leaves:
                leaves = at + (44 if first and out else rng.uniform(90, 220)) * MS
                first = first and not out
            out.append(min(leaves, events[-1][0]))
        return out

    found = seen(path)
    assert found is not None and found.kind == "irregular" and found.held
    assert 100 * MS < found.period_ns < 200 * MS


def test_a_reply_that_comes_whole() -> None:
    whole = seen(lambda events, rng: [events[-1][0]] * len(events))
    assert whole is not None and whole.kind == "whole" and whole.period_ns == 0
    assert whole.tokens == 96


def test_half_of_the_streams_are_not_all() -> None:
    rng = np.random.default_rng(9)
    streams = [made(rng) for _ in range(20)]
    held_back = by_timer(100, False, True)

    def mixed(share: int) -> Path:
        turn = iter(range(100))
        return lambda events, rng: (held_back if next(turn) < share else straight)(events, rng)

    assert bursts_of(trains(streams, mixed(8), rng)) is None
    most = bursts_of(trains(streams, mixed(15), rng))
    assert most is not None and most.share == pytest.approx(0.75)


def test_what_a_late_reader_joined_is_no_burst() -> None:
    """Stamps that were overwritten before they were read prove nothing."""
    rng = np.random.default_rng(11)
    stamps, exact, offsets = [], [], [0]
    for _ in range(10):
        times = np.array([at for at, _ in made(rng)])
        reads = np.maximum.reduceat(times, np.arange(0, 96, 8))
        stamps.append(np.repeat(reads, 8).astype(np.int64))
        exact.append(np.arange(96) % 8 == 7)
        offsets.append(offsets[-1] + 96)
    ones = np.ones(offsets[-1], dtype=np.int64)
    flat = np.concatenate(stamps), np.array(offsets), ones, np.concatenate(exact)
    assert bursts_of(trains_of(*flat)) is None
    together = trains_of(*flat[:3], np.ones(offsets[-1], dtype=bool))
    assert bursts_of(together) is not None


def test_nothing_is_nothing() -> None:
    empty = np.zeros(0, dtype=np.int64)
    assert bursts_of(trains_of(empty, np.zeros(1, np.int64), empty, empty.astype(bool))) is None
    # Streams without output, between those that have some.
    offsets = np.array([0, 0, 3, 3])
    few = trains_of(np.array([1, 2, 3]) * MS, offsets, np.array([0, 0, 0]), np.ones(3, dtype=bool))
    assert few.groups.tolist() == [0, 3, 0] and bursts_of(few) is None


@pytest.mark.parametrize(
    ("path", "ends"),
    [
        (by_timer(200, True, False), False),
        (by_timer(90, False, True), True),
        (corked(200), True),
        (by_size(10), True),
    ],
)
def test_the_time_that_tokens_were_held(path: Path, ends: bool) -> None:
    """Against the truth: when each token was made, and when it left."""
    rng = np.random.default_rng(13)
    streams = [made(rng, tokens=int(rng.integers(40, 140))) for _ in range(60)]
    out = [path(events, rng) for events in streams]
    turn = iter(out)
    of = trains(streams, lambda events, rng: next(turn), rng)
    found = bursts_of(of)
    assert found is not None and found.held
    held: Held = held_of(of, found)
    first = np.array([a[0] - e[0][0] for a, e in zip(out, streams, strict=True)])
    last = np.array([a[-1] - e[-1][0] for a, e in zip(out, streams, strict=True)])
    step = found.step_ns
    assert abs(float(held.first.mean() - first.mean())) < step / 2
    assert abs(float(held.last.mean() - last.mean())) < step
    assert np.mean((held.first_lo - step <= first) & (first <= held.first_hi + step)) > 0.95
    assert np.mean((held.last_lo - step <= last) & (last <= held.last_hi + step)) > 0.95
    assert (last > 0).any() != ends


@pytest.mark.parametrize("common", [False, True])
def test_a_path_that_shakes_draws_bursts_out_and_hides_no_timer(common: bool) -> None:
    """A few ms between the tokens of a burst, beside 112 ms between bursts."""

    def path(events: Made, rng: np.random.Generator) -> list[float]:
        held = by_timer(112, common, False)(events, rng)
        late = [at + (rng.random() < 0.2) * rng.uniform(1, 3.5) * MS for at in held]
        return [float(at) for at in np.maximum.accumulate(late)]

    found = seen(path, step_ms=5.2)
    assert found is not None and found.kind == "timer" and found.held
    assert found.period_ns == pytest.approx(112 * MS, rel=0.03)


def test_one_stall_does_not_make_small_bursts_one() -> None:
    """Two tokens a step, an event each, and a second in which nothing comes."""
    rng = np.random.default_rng(11)

    def path(events: Made, rng: np.random.Generator) -> list[float]:
        return [at + (1000 * MS if n > 40 else 0) for n, (at, _) in enumerate(events)]

    streams = []
    for _ in range(12):
        events = made(rng, tokens=40, step_ms=10)
        streams.append([events[0]] + [(at + n * 20_000, 1) for at, _ in events for n in (0, 1)])
    found = bursts_of(trains(streams, path, rng))
    assert found is None or found.tokens < 3


def test_short_replies_that_a_path_drew_out_do_not_hide_a_long_one_s_timer() -> None:
    """Most replies end within a period: the end comes at once, spread over less than a ms."""
    rng = np.random.default_rng(13)
    streams = [made(rng, tokens=300, step_ms=8)] + [made(rng, tokens=48, step_ms=8)] * 30

    def path(events: Made, rng: np.random.Generator) -> list[float]:
        held = by_timer(1174, False, False)(events, rng)
        late = [at + rng.exponential(30_000) for at in held]
        if len(events) < 100:
            late = [events[-1][0] + at for at in np.sort(rng.uniform(0, 500_000, len(events)))]
        return [float(at) for at in np.maximum.accumulate(late)]

    found = bursts_of(trains(streams, path, rng))
    assert found is not None and found.held
    assert found.period_ns == pytest.approx(1174 * MS, rel=0.01)


@pytest.mark.parametrize("ends", [False, True])
def test_a_stream_in_company_shows_its_own_pace_where_ends_leave_at_once(ends: bool) -> None:
    """Alone 8 ms a token, in company 14; most replies see one burst of the timer."""
    rng = np.random.default_rng(17)
    alone = [made(rng, tokens=400, step_ms=8) for _ in range(3)]
    streams = alone + [made(rng, tokens=64, step_ms=14) for _ in range(40)]
    of = trains(streams, by_timer(752, True, ends), rng)
    bursts = bursts_of(of)
    assert bursts is not None
    company = paces_of(of, bursts)[len(alone) :]
    told = company[~np.isnan(company)] / MS
    # Where every end waits for a burst, the time after the last full one is the timer's.
    assert len(told) > 30 if ends else len(told) < 10
    assert float(np.median(told)) == pytest.approx(14, rel=0.03)
    assert np.all(np.abs(told - 14) < 3)


def test_where_few_streams_show_a_pace_the_others_lie_between() -> None:
    """Alone 8 ms a token, in company 14, and every end waits for a burst: two of 40 are longer."""
    rng = np.random.default_rng(19)
    company = [made(rng, tokens=44, step_ms=14) for _ in range(40)]
    company += [made(rng, tokens=160, step_ms=14) for _ in range(2)]
    out = [by_timer(752, True, False)(events, rng) for events in company]
    turn = iter(out)
    of = trains(company, lambda events, rng: next(turn), rng)
    bursts = bursts_of(of)
    assert bursts is not None
    least, most = company_steps_ns(of, bursts, 8 * MS)
    assert least == 8 * MS
    assert 13 * MS < most < 16 * MS
    held = held_of(of, bursts, least, most)
    first = np.array([a[0] - e[0][0] for a, e in zip(out, company, strict=True)])
    within = (held.first_lo - 14 * MS <= first) & (first <= held.first_hi + 14 * MS)
    # A stream of one burst may have waited for it when all its tokens were made.
    several = of.groups > 1
    assert several.sum() > 20
    assert within[several].mean() > 0.95
