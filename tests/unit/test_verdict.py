"""The verdict: which sentence follows from which rows, and when there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from latdiag.attribution.accounts import Rank
from latdiag.attribution.client_only import partition
from latdiag.attribution.parts import Parts, Source
from latdiag.diagnosis.breakdown import breakdown, leaves
from latdiag.diagnosis.health import Health
from latdiag.diagnosis.result import Verdict
from latdiag.diagnosis.verdict import Case, verdict
from latdiag.measurement.frame import frame

SOURCES = partition(frame([])).sources

MS = 1_000_000
NAMES = ("client", "network", "queue", "decode", "unattributed")
CONFIDENCES = {"measured", "bounded", "inferred", "insufficient"}

Shares = dict[str, float]


def parts(
    shares: Shares,
    tail: Shares | None = None,
    n: int = 1000,
    spread: float = 0.1,
    sources: dict[str, Source] | None = None,
    **more: Any,
) -> Parts:
    """n requests of 100 ms with these shares (the rest is queue), each moved by ``spread``; the
    slowest 6 % take 300 ms with shares of their own."""
    random = np.random.default_rng(n)
    slow = np.arange(n) % 16 == 7 if tail is not None else np.zeros(n, dtype=bool)
    names = [*NAMES, *(name for name in shares if name not in NAMES)]
    columns = {}
    for name in names:
        ms = np.where(slow, 300 * _share(tail or {}, name), 100 * _share(shares, name))
        columns[name] = np.rint(ms * random.lognormal(0, spread, n) * MS).astype(np.int64)
    total = np.sum(list(columns.values()), axis=0)
    flags = np.zeros(n, dtype=bool)
    known = {name: SOURCES.get(name, Source("C", "a test")) for name in names} | (sources or {})
    fine = dict.fromkeys(more.get("leaves", ()), Source("C", "a law"))
    return Parts(total, total, columns, flags, 0, known, leaf_sources=fine, **more)


def _share(shares: Shares, name: str) -> float:
    return shares.get(name, 0.0) + (1 - sum(shares.values()) if name == "queue" else 0.0)


def of(found: Parts, valid: bool = True, health: Health | None = None, **more: Any) -> Verdict:
    shares = {p: e for p in ("mean", "p95_tail") if (e := breakdown(found, "client_e2e", p))}
    fine = {p: leaves(found, p) for p in shares}
    said = verdict(Case(shares, found, valid, fine, health, **more))
    assert said.sentence.endswith(".") and said.next.endswith(".")
    assert said.confidence in CONFIDENCES
    return said


QUEUE, DECODE, NETWORK = {"decode": 0.3}, {"decode": 0.8}, {"network": 0.6}
CLIENT, EVEN = {"client": 0.9}, {"decode": 0.5}
#: Nothing merged: what a probe that has learned everything rests on.
APART = {"queue": Source("C", "a test", settles="prefill")}

TABLE = [
    # mean, tail, valid -> dominant, population, confidence, kind
    (QUEUE, QUEUE, True, "queue", "p95_tail", "bounded", "bottleneck"),
    (QUEUE, DECODE, True, "decode", "p95_tail", "measured", "bottleneck"),
    (DECODE, None, True, "decode", "p95_tail", "measured", "bottleneck"),
    (NETWORK, NETWORK, True, "network", "p95_tail", "measured", "bottleneck"),
    (CLIENT, CLIENT, True, "client", "p95_tail", "measured", "client_limited"),
    (EVEN, EVEN, True, None, "p95_tail", "bounded", "ambiguous"),
    (QUEUE, QUEUE, False, None, "p95_tail", "insufficient", "client_limited"),
    (CLIENT, None, False, None, "p95_tail", "insufficient", "client_limited"),
]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: f"{case[6]}-{case[3]}-{case[4]}")
def test_the_table(case: tuple[Any, ...]) -> None:
    mean, slow, valid, dominant, population, confidence, kind = case
    said = of(parts(mean, slow), valid)
    assert said.dominant == dominant
    assert said.population == population
    assert said.kind == kind
    assert said.confidence == confidence or kind == "ambiguous"


@pytest.mark.parametrize("valid", [True, False])
@pytest.mark.parametrize("n", [0, 1, 29])
def test_too_few_requests_bear_no_verdict(n: int, valid: bool) -> None:
    said = of(parts(QUEUE, n=n), valid)
    assert said.kind == said.confidence == "insufficient" and said.dominant is None
    assert f"{n} requests" in said.sentence


def test_requests_that_took_no_time_bear_no_verdict() -> None:
    found = parts(QUEUE)
    flat = {name: np.zeros(1000, dtype=np.int64) for name in NAMES}
    none = flat["queue"]
    still = Parts(none, none, flat, found.delayed, 0, SOURCES)
    assert of(still).kind == "insufficient"


def test_a_thin_tail_leaves_the_word_to_the_mean() -> None:
    said = of(parts(DECODE, QUEUE, n=400))
    assert (said.population, said.dominant) == ("mean", "decode")
    assert "all requests" in said.sentence
    assert "slowest 5 %" in of(parts(DECODE, QUEUE, n=1000)).sentence


def test_a_tail_of_one_queue_leaves_the_word_to_the_mean() -> None:
    """1,000 requests that queued behind each other, twenty times over; in four segments the tail
    may speak."""
    columns = {name: np.zeros(1000, dtype=np.int64) for name in NAMES}
    wave = 500 + 400 * np.sin(np.arange(1000) * 2 * np.pi / 50)
    columns["queue"] = np.rint(wave * MS).astype(np.int64)
    columns["decode"] = np.full(1000, 200 * MS)
    total = columns["queue"] + columns["decode"]
    flags = np.zeros(1000, dtype=bool)
    for segment, population in ((None, "mean"), (np.arange(1000) // 250, "p95_tail")):
        found = Parts(total, total, columns, flags, 0, SOURCES, segment=segment)
        assert of(found).population == population


def test_a_leader_leads_only_beyond_doubt() -> None:
    """52 % against 48 %: of steady requests it is certain, of scattered ones it is not."""
    sure, open_ = (of(parts({"decode": 0.52}, spread=spread, n=400)) for spread in (0.1, 1.2))
    assert sure.kind == "bottleneck"
    assert "(decode) takes 52 % [52, 52] of the end-to-end time of all requests" in sure.sentence
    assert "(mean 52.2 ms of 100 ms, measured)" in sure.sentence
    assert open_.kind == "ambiguous" and open_.dominant is None
    assert "The two largest parts are" in open_.sentence and " % " in open_.sentence


def test_the_merged_class_is_named_whole_and_the_next_step_splits_it() -> None:
    said = of(parts(QUEUE))
    assert said.sentence.startswith("Queue, prefill, frontend and gateway together")
    assert "latdiag probe" in said.next


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("network", Source("C", "GETs", ("network", "gateway")), "Network and gateway"),
        ("prefill", Source("E", "laws", ("prefill", "interconnect")), "Prefill and interconnect"),
    ],
)
def test_a_merged_leader_is_bounded_and_says_with_what(
    name: str, source: Source, words: str
) -> None:
    said = of(parts({name: 0.8}, sources={name: source} | APART))
    assert (said.dominant, said.confidence) == (name, "bounded")
    assert f"{words} together (nothing in this run separates them)" in said.sentence


@pytest.mark.parametrize(
    ("grade", "confidence"), [("A", "measured"), ("C", "inferred"), ("D", "bounded")]
)
def test_confidence_is_that_of_the_evidence(grade: str, confidence: str) -> None:
    said = of(parts(DECODE, sources={"decode": Source(grade, "a test")} | APART))
    assert said.confidence == confidence


# ---------------------------------------------------------------------- leaves
@pytest.mark.parametrize(
    ("leaf", "words", "remedy"),
    [
        ("base", "the model's own step", "quantised"),
        ("batch", "other requests in the batch", "--max-num-seqs"),
        ("interference", "the prefill of other requests", "--max-num-batched-tokens"),
        ("stall", "pauses that no step explains", "garbage collection"),
    ],
)
def test_the_larger_leaf_of_the_leader_is_named_with_its_own_remedy(
    leaf: str, words: str, remedy: str
) -> None:
    whole = parts(DECODE).parts["decode"]
    fine = {f"decode.{leaf}": whole * 6 // 10}
    rest = "decode.batch" if leaf != "batch" else "decode.base"
    fine[rest] = whole - fine[f"decode.{leaf}"]
    said = of(parts(DECODE, leaves=fine))
    assert words in said.sentence and remedy in said.next


def test_no_leaf_is_named_where_none_holds_half() -> None:
    whole = parts(DECODE).parts["decode"]
    fine = {f"decode.{leaf}": whole * 2 // 5 for leaf in ("base", "batch")}
    fine["decode.interference"] = whole - sum(fine.values())
    assert "most of it" not in of(parts(DECODE, leaves=fine)).sentence


# ---------------------------------------------------------------------- nothing to complain of
WELL = Health(over_alone=1.1, ttft_ns=200.0 * MS, tpot_ns=15.0 * MS, n=1000)


def test_a_server_that_does_what_it_can_is_healthy() -> None:
    said = of(parts(DECODE, sources=APART), health=WELL)
    assert (said.kind, said.dominant) == ("healthy", None)
    assert "1.10 times" in said.sentence
    assert "95 % of them met TTFT 500 ms and TPOT 30.0 ms" in said.sentence


@pytest.mark.parametrize(
    ("found", "health"),
    [
        (parts({"network": 0.6}), WELL),
        (parts({"decode": 0.75, "network": 0.25}), WELL),
        (parts({"decode": 0.55}), WELL),
        (parts({"prefill": 0.8, "decode": 0.2}), WELL),
        (parts(DECODE), None),
        (parts({"decode": 0.9}), Health(1.6, 200.0 * MS, 15.0 * MS, 1000)),
        (parts({"decode": 0.9}), Health(1.1, 900.0 * MS, 15.0 * MS, 1000)),
        (parts({"decode": 0.9}), Health(1.1, 200.0 * MS, 60.0 * MS, 1000)),
    ],
    ids=[
        "network",
        "far",
        "waits",
        "prefill",
        "not known",
        "slowed",
        "slow to begin",
        "slow to stream",
    ],
)
def test_whoever_could_do_better_is_not_healthy(found: Parts, health: Health | None) -> None:
    assert of(found, health=health).kind in ("bottleneck", "ambiguous")


def test_an_invalid_measurement_is_not_healthy() -> None:
    said = of(parts(DECODE), valid=False, health=WELL)
    assert (said.kind, said.confidence) == ("client_limited", "insufficient")


# ---------------------------------------------------------------------- what else is known
def test_failures_are_part_of_the_sentence_and_no_sign_of_health() -> None:
    for failed, healthy in ((0.0, True), (0.01, True), (0.02, False)):
        said = of(parts(DECODE, sources=APART), health=WELL, failed=failed)
        assert (said.kind == "healthy") == healthy
    assert "2 % of the requests failed" in said.sentence


def test_a_short_load_says_nothing_of_health() -> None:
    brief = Health(1.1, 200.0 * MS, 15.0 * MS, 1000, 2.0, long_enough=False)
    assert of(parts(DECODE, sources=APART), health=brief).kind != "healthy"


@pytest.mark.parametrize(("admitted", "remedy"), [(4, "--max-num-seqs"), (None, "KV memory")])
def test_what_to_do_about_a_queue_depends_on_whether_there_is_a_limit(
    admitted: int | None, remedy: str
) -> None:
    said = of(parts({"decode": 0.2}, sources=APART), admitted=admitted, probed=True)
    assert said.dominant == "queue" and remedy in said.next


def test_without_a_probe_nobody_says_that_all_requests_were_admitted() -> None:
    said = of(parts({"decode": 0.2}, sources=APART))
    assert "burst" not in said.next and "--max-num-seqs" in said.next
    measured = {"queue": Source("A", "its span")}
    said = of(parts({"decode": 0.2}, sources=APART | measured), probed=True)
    assert "burst" not in said.next, "the server's own queue held them back"


MERGED = {"queue": Source("E", "laws", ("queue", "prefill"))}


@pytest.mark.parametrize(
    ("given", "probed", "asked", "not_asked"),
    [
        ((), False, "latdiag probe", "--otlp"),
        ((), True, "--otlp", "latdiag probe"),
        ((Rank.SPANS,), True, "--metrics URL", "--otlp"),
        ((Rank.SPANS, Rank.METRICS), True, "does not separate", "--metrics"),
    ],
)
def test_advice_asks_for_no_evidence_that_the_run_has(
    given: tuple[Rank, ...], probed: bool, asked: str, not_asked: str
) -> None:
    found = parts({"decode": 0.2}, sources=MERGED)
    said = of(found, given=frozenset(given), probed=probed)
    assert asked in said.next and not_asked not in said.next


def test_a_pace_beside_a_queue_is_not_all_that_there_is() -> None:
    whole = parts({"decode": 0.7}).parts["decode"]
    found = parts({"decode": 0.7}, leaves={"decode.base": whole}, sources=APART)
    said = of(found, health=Health(2.0, 200.0 * MS, 15 * MS, 1000))
    assert "own speed" not in said.next and "quantised" in said.next


@pytest.mark.parametrize(("tpot", "words"), [(15, "own speed"), (60, "quantised")])
def test_a_pace_that_readers_notice_has_another_remedy(tpot: int, words: str) -> None:
    whole = parts(DECODE).parts["decode"]
    found = parts(DECODE, leaves={"decode.base": whole}, sources=APART)
    slow = Health(2.0, 200.0 * MS, tpot * MS, 1000)
    assert words in of(found, health=slow).next


def test_time_that_nothing_covers_is_never_a_bottleneck() -> None:
    said = of(parts({"unattributed": 0.7, "decode": 0.3}))
    assert said.kind == "ambiguous" and said.dominant is None


def test_a_leader_of_less_than_a_fifth_is_none() -> None:
    """Six parts of a sixth each, one of them a little larger: certain, and of no use."""
    even = dict.fromkeys(("network", "prefill", "frontend", "interconnect", "decode"), 0.16)
    said = of(parts({**even, "decode": 0.19}, spread=0.02, sources=APART))
    assert said.kind == "ambiguous"


def test_time_that_nothing_explains_is_no_race_of_two_parts() -> None:
    said = of(parts({"unattributed": 0.99, "frontend": 0.01}))
    assert said.kind == "ambiguous" and said.dominant is None and not said.sure
    assert said.sentence.startswith("No evidence explains 99 % ")


@pytest.mark.parametrize(
    ("listened", "asked", "not_asked"),
    [
        (frozenset[str](), "(--otlp): they state", "listened"),
        (frozenset({"spans"}), "latdiag listened for spans", "Measure again"),
    ],
)
def test_spans_are_not_asked_for_where_latdiag_listened(
    listened: frozenset[str], asked: str, not_asked: str
) -> None:
    said = of(parts(QUEUE), probed=True, listened=listened)
    assert asked in said.next and not_asked not in said.next


def test_too_few_of_many_requests_lack_evidence_and_no_requests() -> None:
    few = of(parts(QUEUE, n=20), requests=400)
    assert "Fewer than 30 of 400" in few.sentence and "Send more requests" not in few.next
    assert "Send more requests" in of(parts(QUEUE, n=20), requests=20).next
