"""Servers of which it is known how a probe reads them wrongly; each has a test of its name.

Each is built twice or more: as it was met first, and others of its kind on other servers. Rows of
the same list that need no such server have their tests elsewhere: limits and changes in time with
those of the probe's design; evidence behind gateways in ``test_behind_gateway``, gateways named by
their replies in ``test_overheads``, bursts that are no fault of the client in ``test_held_back``,
decode's leaves beside spans in ``test_never_coarser``, sampled spans in ``test_sampled_spans``,
what makes a run invalid in ``test_validity``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from latdiag.diagnosis.diagnose import result_of
from latdiag.diagnosis.result import Result
from latdiag.report.console import compose
from latdiag.store.run import Run

from .client import limits_of
from .clock import Clock
from .costs import MS, S
from .draft import EPOCH, Draft, ordinary
from .engines import Stalls, StepEngine
from .gateways import Bucket, Delay, Flush
from .judge import Book, Judged, answer_of, book_of, judge
from .kinds import healthy
from .pools import TwoPools
from .rundir import probed
from .truth import by_cause

Fault = Callable[[Draft], None]


class Case(NamedTuple):
    """What a probe said, and what was true."""

    result: Result
    book: Book
    judged: Judged
    page: str
    #: shares of causes by their leaf
    leaves: dict[str, float]

    @property
    def dominant(self) -> frozenset[str]:
        return answer_of(self.result.to_json()).dominant

    @property
    def advice(self) -> str:
        assert self.result.verdict is not None
        return self.result.verdict.next

    def share(self, name: str) -> tuple[float, float]:
        """(stated, true) of the class that holds a component."""
        (error,) = (e for e in self.judged.errors if name in e.members)
        return error.said, error.true

    @property
    def covered(self) -> bool:
        """Whether every interval holds the truth."""
        return all(error.covers for error in self.judged.errors)


def case(fault: Fault, seed: str, path: Path, base: Fault = healthy) -> Case:
    draft = ordinary(random.Random(seed))
    base(draft)
    fault(draft)
    world = draft.built(Clock(EPOCH))
    run = path / "world.run"
    rows = probed(world, limits_of("quick", 7, draft.workload), run, random.Random(seed))
    workload = [row for row in rows if row.stage == "S10"]
    result = result_of(Run.open(str(run)), "diagnose")
    book = book_of(workload)
    page = "\n".join("".join(s.text for s in line) for line in compose(result, True).lines)
    spent = by_cause([row.truth() for row in workload if row.ok])
    leaves: dict[str, float] = {}
    for cause, took in spent.items():
        leaves[cause.leaf] = leaves.get(cause.leaf, 0.0) + took / book.total
    return Case(result, book, judge(answer_of(result.to_json()), book), page, leaves)


def plain(_draft: Draft) -> None:
    """An ordinary server, as it was drawn."""


def asked(isl: int, osl: int, **more: object) -> dict[str, object]:
    return {"isl": (isl,), "osl": (osl,), **more}


# ---------------------------------------------------------------------- before the engine
def delay(ns: float, spread: float, refused_at: str) -> Fault:
    def fault(draft: Draft) -> None:
        draft.gateways.append(lambda clock: Delay(clock, draft.draw, ns, 0.0, False, spread))
        draft.refused_at = refused_at
        draft.workload = asked(256, 8)

    return fault


@pytest.mark.parametrize(
    ("fault", "seed", "base"),
    [
        (delay(250 * MS, 0.03, "frontend"), "one", healthy),
        (delay(700 * MS, 0.3, "gateway"), "two", plain),
        pytest.param(*(delay(400 * MS, 0.1, "entry"), "three", plain), marks=pytest.mark.bench),
    ],
)
def test_a_gateway_that_delays_every_post_and_no_get(
    fault: Fault, seed: str, base: Fault, tmp_path: Path
) -> None:
    """Truth gateway 73 %; it was frontend, more surely the larger the budget."""
    found = case(fault, seed, tmp_path, base)
    assert found.book.ranked("mean")[0] == "gateway"
    assert found.judged.mark == "right" and "gateway" in found.dominant
    assert found.covered
    assert "--behind" in found.advice and "api-server-count" not in found.advice


def flush(period: int, size: int, ticks: bool) -> Fault:
    def fault(draft: Draft) -> None:
        draft.gateways.append(lambda clock: Flush(clock, period, size, ticks, True, 0))
        draft.workload = asked(128, 48)

    return fault


@pytest.mark.parametrize(
    ("fault", "seed", "base", "period"),
    [
        (flush(200 * MS, 0, False), "one", healthy, 200.0),
        (flush(350 * MS, 1 << 16, True), "two", plain, 350.0),
    ],
)
def test_a_gateway_that_flushes_the_stream_every_so_often(
    fault: Fault, seed: str, base: Fault, period: float, tmp_path: Path
) -> None:
    """Truth gateway 46 to 61 %; the period was seen and not said, and decode was 0 to 10 %."""
    found = case(fault, seed, tmp_path, base)
    assert found.judged.mark == "right" and found.covered
    bursts = found.result.bursts
    assert bursts is not None and bursts.period_ns is not None
    assert bursts.period_ns / MS == pytest.approx(period, rel=0.1)
    assert f"every {bursts.period_ns / MS:.0f} ms" in found.page
    assert found.result.valid


def bucket(rate: float, burst: float) -> Fault:
    def fault(draft: Draft) -> None:
        draft.gateways.append(lambda clock: Bucket(clock, rate, burst))

    return fault


@pytest.mark.parametrize(("rate", "seed", "base"), [(30.0, "one", healthy), (75.0, "two", plain)])
def test_a_token_bucket_of_a_key(rate: float, seed: str, base: Fault, tmp_path: Path) -> None:
    """Truth gateway 97 %; it was ambiguous between queue and decode, "--max-num-seqs"."""
    found = case(bucket(rate, 10), seed, tmp_path, base)
    assert found.book.shares["gateway"] > 0.5
    assert found.judged.mark == "right" and "gateway" in found.dominant
    assert found.covered
    assert "max-num-seqs" not in found.page


# ---------------------------------------------------------------------- what tokens show
def hidden(tokens: int, counts: str) -> Fault:
    def fault(draft: Draft) -> None:
        draft.habit = replace(draft.habit, hidden=(1.0, tokens), counts=counts, usage=True)

    return fault


@pytest.mark.parametrize(
    ("fault", "seed", "base"),
    [(hidden(100, "nothing"), "one", healthy), (hidden(200, "ids"), "two", plain)],
)
def test_reasoning_tokens_that_are_made_and_not_sent(
    fault: Fault, seed: str, base: Fault, tmp_path: Path
) -> None:
    """Truth decode 98 %; it was prefill, TPOT 4 ms instead of 16, and a reply that went on
    "stopped by itself"."""
    found = case(fault, seed, tmp_path, base)
    assert found.judged.mark == "right" and found.covered
    said, true = found.share("decode")
    assert said == pytest.approx(true, abs=0.03)
    tpot = found.result.metrics["tpot"].statistics["mean"]
    step = found.result.learned
    assert step is not None
    # Over the tokens that came, or not at all.
    assert tpot.value is None or 0.9 < tpot.value / MS / step.step_ms < 1.6
    assert "by itself" not in found.page


@pytest.mark.parametrize(
    ("chunk", "seed", "base"),
    [
        (8, "one", healthy),
        (5, "two", plain),
        pytest.param(*(10, "three", plain), marks=pytest.mark.bench),
    ],
)
def test_several_tokens_in_a_chunk_from_the_first_on(
    chunk: int, seed: str, base: Fault, tmp_path: Path
) -> None:
    """Truth decode 91 %; it was 24 points off, and its leaves were empty."""

    def fault(draft: Draft) -> None:
        draft.habit = replace(draft.habit, chunk=chunk, hidden=(0.0, 0), counts="ids")
        draft.workload = asked(256, 96)

    found = case(fault, seed, tmp_path, base)
    assert found.judged.mark == "right" and found.covered
    said, true = found.share("decode")
    assert said == pytest.approx(true, abs=0.03)
    assert found.result.leaves["mean"]["decode.base"].share > 0.4


# ---------------------------------------------------------------------- silences
@pytest.mark.parametrize(
    ("every", "ms", "seed", "base"), [(2.0, 800, "one", healthy), (1.2, 250, "two", healthy)]
)
def test_stalls_of_all_streams(
    every: float, ms: int, seed: str, base: Fault, tmp_path: Path
) -> None:
    """They were "steps stretched by others' prefills: cut prefills smaller, or disaggregate"."""

    def fault(draft: Draft) -> None:
        draft.reshape(stalls=Stalls(draft.draw, every * S, ms * MS))
        draft.workload = asked(128, 96)

    found = case(fault, seed, tmp_path, base)
    assert found.judged.mark == "right" and found.covered
    leaves = found.result.leaves["mean"]
    stalls, others = (leaves[f"decode.{name}"].share for name in ("stall", "interference"))
    assert stalls == pytest.approx(found.leaves["decode.stall"], abs=0.04)
    assert stalls > others
    assert "prefill chunks" not in found.page


@pytest.mark.parametrize(
    ("cache", "streams", "seed"),
    [
        (1500, 14, "one"),
        (4000, 16, "two"),
        pytest.param(*(2500, 12, "three"), marks=pytest.mark.bench),
    ],
)
def test_one_stream_silent_while_others_go_on_was_preempted(
    cache: int, streams: int, seed: str, tmp_path: Path
) -> None:
    """Memory for fewer tokens than the streams come to: it is no stall, no decode and no other
    request's prompt."""

    def fault(draft: Draft) -> None:
        draft.reshape(cache=cache, most=lambda now: 64)
        draft.workload = {"isl": (256, 400), "osl": (96,), "concurrency": streams}

    found = case(fault, seed, tmp_path)
    assert found.leaves["queue.preempted"] > 0.01
    assert found.judged.mark == "right"
    parts = found.result.parts
    assert parts is not None
    (waits,) = (s for n, s in parts.sources.items() if "queue" in (n, *s.members))
    assert "preemption" in waits.evidence
    assert all(error.covers for error in found.judged.errors if "decode" in error.members)


# ---------------------------------------------------------------------- the link
@pytest.mark.parametrize(
    ("handover", "token", "seed"), [(55 * MS, 100.0, "one"), (5 * MS, 900_000.0, "two")]
)
def test_a_hand_over_is_no_link(handover: int, token: float, seed: str, tmp_path: Path) -> None:
    """55 ms of waiting between two pools were "interconnect, measured": whoever reads that buys
    network cards. What does not grow with the prompt may be anybody's."""

    def fault(draft: Draft) -> None:
        draft.shared, draft.workload = False, asked(512, 24)
        draft.engine = lambda given, clock, emit, causes: TwoPools(
            clock, draft.draw, given.shape.prompt, 2, handover, token,
            StepEngine(clock, draft.draw, given.shape, given.habit, emit, causes, True),
            given.habit, emit, causes,
        )  # fmt: skip

    found = case(fault, seed, tmp_path)
    assert found.judged.mark in ("right", "none") and found.covered
    parts = found.result.parts
    assert parts is not None
    (whose,) = (s for n, s in parts.sources.items() if "interconnect" in (n, *s.members))
    assert len(whose.members) > 1 and whose.grade not in ("A", "B")
