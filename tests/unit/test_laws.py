"""Laws from designed requests, against servers whose constants the test has chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.laws.laws import Laws, learn
from tests.profiles import examples, repetitions

from .probe_rows import MS, Reply, any_replies, gets, refusals, reply, seen

LENGTHS = (32, 53, 86, 141, 231, 380, 624, 768, 1024)
Curve = Callable[[float], float]


def base(isl: float) -> float:
    """A prompt alone, ms: 12 ms and 0.05 ms a token, as one would measure."""
    return 12.0 + 0.05 * isl


def ladder(
    own: Curve, random: np.random.Generator, noise: float = 0.01, times: int = 3
) -> list[Reply]:
    """S3: every length ``times`` over, four tokens each at 10 ms."""
    found = []
    for place, isl in enumerate(LENGTHS * times):
        server = own(isl) * random.normal(1.0, noise)
        found.append(reply("S3", isl, 1000 + 1000 * place, server, [10.0] * 3))
    return found


def streams(
    random: np.random.Generator,
    step: float,
    per_other: float = 0.0,
    per_context: float = 0.0,
    noise: float = 0.02,
    own: Curve = base,
) -> list[Reply]:
    """S5 with a short and a long context, S6 in bursts: every step's time by its law, ms."""
    found = []
    for place, isl in enumerate((32, 4096, 32, 4096)):
        gaps = [
            (step + per_context * (isl + k)) * random.lognormal(0, noise) for k in range(1, 97)
        ]
        found.append(reply("S5", isl, 100_000 + 10_000 * place, own(isl), gaps))
    for place, size in enumerate((2, 4, 8, 16)):
        law = [step + per_other * (size - 1) + per_context * size * (32 + k) for k in range(1, 33)]
        gaps = [gap * random.lognormal(0, noise) for gap in law]
        found += [reply("S6", 32, 200_000 + 10_000 * place, 30.0, gaps)] * size
    return found


def taught(replies: Sequence[Reply]) -> Laws:
    laws = learn(seen(replies))
    assert laws is not None
    return laws


def own_ms(laws: Laws, isl: int) -> float:
    return float(laws.own.at(np.array([isl]))[0]) / MS


# ---------------------------------------------------------------------- a prompt alone
@pytest.mark.parametrize(
    "own",
    [
        base,
        lambda n: 5.0 + max(8.0, 0.08 * n),
        lambda n: 3.0 + 0.02 * n + 5e-5 * n * n,
        lambda n: 40.0,
        lambda n: 0.5 + 0.001 * n,
    ],
    ids=["line", "floor of a step", "square", "constant", "fast"],
)
@pytest.mark.parametrize("seed", range(4))
def test_the_prompt_law_is_recovered_between_the_lengths_too(own: Curve, seed: int) -> None:
    random = np.random.default_rng(seed)
    laws = taught(ladder(own, random) + streams(random, 10.0, own=own))
    for isl in (32, 100, 300, 500, 900, 1024):
        assert own_ms(laws, isl) == pytest.approx(own(isl), rel=0.04, abs=0.05), isl


@pytest.mark.parametrize("seed", range(6))
def test_prompts_that_met_others_do_not_bend_the_law(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = ladder(base, random)
    for place in random.choice(len(rows), 4, replace=False).tolist():
        late = 200 + 800 * random.random()
        rows[place] = reply("S3", rows[place].isl, 1000 + 1000 * place, late, [10.0] * 3)
    laws = taught(rows + streams(random, 10.0))
    for isl in (64, 256, 1024):
        assert own_ms(laws, isl) == pytest.approx(base(isl), rel=0.05)


@examples(60)
@given(any_replies(), st.integers(0, 9))
def test_no_law_costs_less_for_more(rows: list[Reply], seed: int) -> None:
    laws = learn(seen(rows))
    if laws is None:
        return
    tokens = np.arange(1, 5000, 7)
    for each in (laws, *laws.drawn(np.random.default_rng(seed), 1)):
        assert (np.diff(each.own.at(tokens)) >= -1e-3).all()
        assert np.isfinite(each.own.at(tokens)).all()
    assert min(laws.step.base, laws.step.stream, laws.step.context) >= 0


def test_too_little_teaches_nothing() -> None:
    random = np.random.default_rng(0)
    rows = ladder(base, random)
    assert learn(seen([])) is None
    assert learn(seen(rows[:3])) is None
    assert learn(seen([r for r in rows if r.isl == 32])) is None
    assert learn(seen(gets([1.0] * 20))) is None
    single = [reply("S3", isl, 1000 * k, base(isl), []) for k, isl in enumerate(LENGTHS)]
    assert learn(seen(single)) is None


@pytest.mark.repeated
def test_laws_drawn_again_scatter_as_laws_of_other_probes_do() -> None:
    """Sixty probes of one server: what they differ by is what one of them says of itself."""
    values, drawn = [], []
    for seed in range(max(16, repetitions(60))):
        random = np.random.default_rng(seed)
        laws = taught(ladder(base, random, noise=0.05) + streams(random, 10.0))
        values.append(own_ms(laws, 500))
        again = [own_ms(each, 500) for each in laws.drawn(random, 20)]
        drawn.append(float(np.std(again)))
    assert 0.6 < float(np.median(drawn)) / float(np.std(values)) < 1.8


# ---------------------------------------------------------------------- path and frontend
@pytest.mark.parametrize(("path", "is_way"), [(0.4, False), (4.0, False), (42.0, True)])
def test_a_long_way_is_told_from_an_http_layer_and_taken_off_the_prompts(
    path: float, is_way: bool
) -> None:
    random = np.random.default_rng(1)

    def far(isl: float) -> float:
        return path + base(isl)

    rows = ladder(far, random, 0.002) + streams(random, 10.0, own=far)
    laws = taught(rows + gets(path * random.normal(1.0, 0.02, 20)))
    assert laws.path is not None and laws.path.is_way == is_way
    assert laws.path.floor_ns == pytest.approx(path * MS, rel=0.02)
    expected = base(500) + (0.0 if is_way else path)
    assert own_ms(laws, 500) == pytest.approx(expected, rel=0.02)


def test_a_path_that_is_drawn_longer_leaves_less_to_the_prompt() -> None:
    """GETs and prompts share the way: the sum of both laws does not move with it."""
    random = np.random.default_rng(2)

    def far(isl: float) -> float:
        return 100.0 + base(isl)

    rows = ladder(far, random, 0.0) + streams(random, 10.0, own=far)
    laws = taught(rows + gets(100 + random.normal(0, 8.0, 12)))
    again = laws.drawn(random, 40)
    paths = np.array([each.path.floor_ns / MS for each in again if each.path is not None])
    owns = np.array([own_ms(each, 500) for each in again])
    assert paths.std() > 1.0 and (paths + owns).std() < 0.1
    assert (paths + owns).mean() == pytest.approx(far(500), rel=0.01)


def test_without_enough_gets_there_is_no_path() -> None:
    random = np.random.default_rng(3)
    rows = ladder(base, random) + streams(random, 10.0)
    assert taught(rows + gets([1.0] * 3)).path is None
    assert taught(rows + gets([-0.000001] * 9)).path is None


def read_first(laws: Laws) -> bool:
    """Whether refused requests show that their prompts were read."""
    return laws.refusals is not None and laws.refusals.curve is not None


def test_refused_requests_teach_the_frontend() -> None:
    random = np.random.default_rng(4)
    parse = [(n, (1.0 + 0.004 * n) * random.normal(1, 0.02)) for n in (32, 512, 1024) * 4]
    rows = ladder(base, random) + streams(random, 10.0) + gets([0.3] * 10)
    laws = taught(rows + refusals(parse, 422))
    assert laws.refusals is not None and laws.refusals.curve is not None
    for isl in (32, 700, 1024):
        found = float(laws.refusals.at(np.array([isl]))[0]) / MS
        assert found == pytest.approx(1.0 + 0.004 * isl, rel=0.05)


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ([(32, 1.0), (512, 2.0), (1024, 3.0)], 400),
        ([(32, 1.0)] * 9, 400),
        ([(32, 1.0), (512, 2.0)] * 5, 404),
        ([(32, 1.0), (512, 2.0)] * 5, 200),
    ],
    ids=["three", "one length", "not found", "not refused"],
)
def test_what_is_no_refusal_after_parsing_teaches_no_frontend(
    answers: list[tuple[int, float]], status: int
) -> None:
    random = np.random.default_rng(5)
    rows = ladder(base, random) + streams(random, 10.0) + refusals(answers, status)
    assert not read_first(taught(rows))


# ---------------------------------------------------------------------- the decode step
@pytest.mark.parametrize(
    ("step", "other", "context"),
    [(10.0, 0.0, 0.0), (10.0, 0.5, 0.0), (4.0, 0.1, 0.0005), (60.0, 4.0, 0.0)],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_step_law_is_recovered(step: float, other: float, context: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    laws = taught(ladder(base, random) + streams(random, step, other, context))
    found = laws.step
    size = step + 15 * other + 16 * 48 * context
    stated = found.base + 15 * found.stream + 16 * 48 * found.context
    assert stated / MS == pytest.approx(size, rel=0.03)
    alone = (found.base + 4096 * found.context) / MS
    assert alone == pytest.approx(step + 4096 * context, rel=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_delivery_that_jitters_by_more_than_a_step_does_not_bias_it(seed: int) -> None:
    """Tokens 4 ms apart on a way that holds each by 0 to 20 ms, in order: a median of gaps fails
    by half, sums of gaps do not."""
    random = np.random.default_rng(seed)

    def jittered(stage: str, isl: int, at: float, n: int) -> Reply:
        sent = 4.0 * np.arange(n)
        arrived = np.maximum.accumulate(sent + random.exponential(6.0, n))
        return reply(stage, isl, at, base(isl) + arrived[0], np.diff(arrived).tolist())

    rows = [jittered("S3", isl, 1000 * k, 4) for k, isl in enumerate(LENGTHS * 2)]
    rows += [jittered("S5", 32, 50_000 + 5000 * k, 400) for k in range(4)]
    laws = taught(rows)
    medians = [float(np.median(np.diff(r.arrivals))) / MS for r in rows if r.stage == "S5"]
    assert abs(float(np.median(medians)) / 4.0 - 1) > 0.4
    assert laws.step.base / MS == pytest.approx(4.0, rel=0.12)


def test_arrivals_of_several_tokens_are_counted_as_what_they_bring() -> None:
    random = np.random.default_rng(6)
    rows = ladder(base, random)
    for place in range(4):
        gaps = [30.0] * 40
        rows.append(reply("S5", 32, 90_000 + 9000 * place, 15.0, gaps, brought=(1, *[3] * 40)))
    assert taught(rows).step.base / MS == pytest.approx(10.0, rel=0.02)


# ---------------------------------------------------------------------- KV transfer
def handed_over(
    random: np.random.Generator, extra: Callable[[int], float], noise: float = 0.3
) -> list[Reply]:
    """S3 with a second token that comes later than a step by ``extra(isl)`` ms."""
    rows = []
    for place, isl in enumerate(LENGTHS * 3):
        gaps = [10.0 + extra(isl) + random.normal(0, noise), 10.0, 10.0]
        rows.append(reply("S3", isl, 1000 + 1000 * place, base(isl), gaps))
    return rows + streams(random, 10.0)


def test_a_transfer_shows_between_the_first_and_the_second_token() -> None:
    random = np.random.default_rng(7)
    laws = taught(handed_over(random, lambda isl: 30.0 + 0.08 * isl))
    assert laws.transfer is not None
    # The middle of nine lengths; S5 has no transfer and four rows, two of each length.
    assert laws.transfer.extra_ns / MS == pytest.approx(30.0 + 0.08 * 231, rel=0.15)
    assert laws.transfer.per_token_ns / MS == pytest.approx(0.08, rel=0.15)


@pytest.mark.parametrize(
    "extra",
    [lambda _: 0.0, lambda _: 3.0, lambda isl: 500.0 if isl == 624 else 0.0],
    ids=["none", "less than half a step", "one length, by a hiccup"],
)
def test_what_is_no_transfer_is_not_called_one(extra: Callable[[int], float]) -> None:
    assert taught(handed_over(np.random.default_rng(8), extra)).transfer is None


def test_noise_as_large_as_a_step_is_no_transfer() -> None:
    found = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        found += taught(handed_over(random, lambda _: 0.0, noise=10.0)).transfer is not None
    assert found <= 1


# ---------------------------------------------------------------------- prefill against decode
def thrown(lost: float, prompts: int = 2, step: float = 10.0, own: Curve = base) -> list[Reply]:
    """S8: four streams; each prompt takes what its law says, and every stream stands still for
    ``lost`` of what grows with it."""
    took = own(4096)
    at, instants, now, pauses = 300_000.0, [0.0], 0.0, [500.0 + 1500.0 * k for k in range(prompts)]
    for pause in pauses:
        while now < pause:
            now += step
            instants.append(now)
        now += (took - own(0)) * lost
        instants.append(now)
    while now < 1500.0 * (prompts + 1):
        now += step
        instants.append(now)
    gaps = np.diff(instants).tolist()
    rows = [reply("S8", 32, at, 20.0, gaps) for _ in range(4)]
    # The prompts arrive as the streams' own clock says: 20 ms behind their begin.
    return rows + [reply("S8", 4096, at + 20.0 + pause, took, [step]) for pause in pauses]


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [(0.0, "separate"), (0.03, "separate"), (0.17, "unknown"), (0.5, "shared"), (0.98, "shared")],
)
def test_streams_that_stand_still_share_their_engine(lost: float, verdict: str) -> None:
    random = np.random.default_rng(9)
    laws = taught(ladder(base, random) + streams(random, 10.0) + thrown(lost))
    assert laws.sharing.verdict == verdict
    # The pace of a stream holds what it lost to the other prompt, so this reads a little low.
    assert laws.sharing.lost == pytest.approx(lost, abs=0.08)


def test_a_prompt_of_a_step_or_two_says_nothing_of_sharing() -> None:
    random = np.random.default_rng(10)
    rows = ladder(base, random) + streams(random, 10.0)
    assert taught(rows + thrown(0.0, step=300.0)).sharing.verdict == "unknown"
    assert taught(rows).sharing.verdict == "unknown"
    assert taught(rows + thrown(0.0)[:2]).sharing.verdict == "unknown"


# ---------------------------------------------------------------------- where little was taught
def test_refusals_that_cost_the_same_whatever_the_prompt_teach_no_frontend() -> None:
    """The server refused them before it had read anything."""
    random = np.random.default_rng(11)
    rows = ladder(base, random) + streams(random, 10.0)
    flat = [(n, 2.0 + 0.02 * random.random()) for n in (32, 512, 1024) * 4]
    assert not read_first(taught(rows + refusals(flat)))
    assert not read_first(taught(rows + refusals([(n, 2.0) for n in (32, 512, 1024) * 4])))


def test_short_replies_teach_a_pace_and_no_law() -> None:
    """Four tokens each: too few blocks for what streams and context add."""
    laws = taught(ladder(base, np.random.default_rng(12)))
    assert laws.step.n == 0 and laws.step.base == pytest.approx(10.0 * MS)
    assert (laws.step.stream, laws.step.context) == (0.0, 0.0)


def test_a_transfer_is_proven_where_it_grows_or_prompts_slow_nobody() -> None:
    random = np.random.default_rng(13)
    steady, growing = lambda _: 60.0, lambda isl: 30.0 + 0.08 * isl
    for extra, lost, proven in (
        (steady, None, False),
        (steady, 0.0, True),
        (steady, 0.9, False),
        (growing, None, True),
        (growing, 0.9, False),
    ):
        rows = handed_over(random, extra) + (thrown(lost) if lost is not None else [])
        found = taught(rows).transfer
        assert found is not None and found.proven == proven, (extra(100), lost)


def test_a_refusal_that_grows_by_less_than_any_tokeniser_was_not_read() -> None:
    """A body of 16 kB is read in some 40 us, tokenised in 400 at least."""
    random = np.random.default_rng(41)

    def curve(per_token_ns: float) -> bool:
        rows = ladder(base, random) + streams(random, 10.0)
        rows += refusals(
            (n, 2.0 + per_token_ns * n / 1e6 + random.normal(0, 0.005))
            for n in (32, 1024, 4096) * 4
        )
        return read_first(taught(rows))

    assert not curve(10.0) and curve(200.0)
