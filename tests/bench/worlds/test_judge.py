"""The judge itself: for each of its rules an answer that keeps to it and one that does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from .board import figures, table, unmet
from .judge import Answer, Book, Stated, errors_of, judge
from .truth import COULD, SEND, Cause, Ledger, Truth, partable
from .work import LATDIAG, Record, Task

QUEUE = Book(
    {"queue": 0.7, "decode": 0.2, "gateway": 0.1},
    {"queue": 0.4, "decode": 0.6},
    False,
    frozenset({"queue", "decode"}),
    100,
    1000,
)
NEAR = replace(QUEUE, shares={"queue": 0.47, "decode": 0.43, "gateway": 0.1})
WELL = replace(QUEUE, shares={"decode": 0.97, "prefill": 0.03}, healthy=True)


def names(*members: str) -> Answer:
    return Answer("bottleneck", frozenset(members))


@pytest.mark.parametrize(
    ("answer", "book", "mark"),
    [
        (names("queue"), QUEUE, "right"),
        (names("queue", "gateway"), QUEUE, "right"),
        (names("gateway"), QUEUE, "wrong"),
        (names("decode", "prefill"), QUEUE, "wrong"),
        (Answer("healthy"), QUEUE, "wrong"),
        (Answer("ambiguous"), QUEUE, "none"),
        (Answer("insufficient"), QUEUE, "none"),
        (Answer("client_limited"), QUEUE, "none"),
        # Of two that are close either is right, and so is not to choose; a third is not.
        (names("decode"), NEAR, "right"),
        (names("gateway"), NEAR, "wrong"),
        (Answer("ambiguous"), NEAR, "right"),
        (Answer("insufficient"), NEAR, "none"),
        # Of the slowest, what leads there.
        (replace(names("decode"), population="p95_tail"), QUEUE, "right"),
        (replace(names("queue"), population="p95_tail"), QUEUE, "wrong"),
        (Answer("healthy"), WELL, "right"),
        (names("decode"), WELL, "alarm"),
        (names("queue"), WELL, "wrong"),
        (Answer("healthy"), replace(WELL, healthy=None), "right"),
        (names("decode"), replace(WELL, healthy=None), "right"),
        (Answer("insufficient"), Book({}, {}, None, frozenset(), 0, 0), "none"),
        (names("queue"), Book({}, {}, None, frozenset(), 0, 0), "wrong"),
        (Answer("healthy"), Book({}, {}, None, frozenset(), 0, 0), "wrong"),
    ],
)
def test_marks(answer: Answer, book: Book, mark: str) -> None:
    assert judge(answer, book).mark == mark


@pytest.mark.parametrize(
    ("answer", "book", "alone"),
    [
        (names("queue"), QUEUE, True),
        (names("queue", "prefill"), QUEUE, False),
        (names("decode"), QUEUE, False),
        (Answer("ambiguous"), QUEUE, False),
        (Answer("ambiguous"), NEAR, None),
        (names("queue"), replace(QUEUE, partable=frozenset({"decode"})), None),
        (Answer("healthy"), WELL, None),
    ],
)
def test_who_stands_alone(answer: Answer, book: Book, alone: bool | None) -> None:
    assert judge(answer, book).alone is alone


def stated(members: str, share: float, lo: float | None, hi: float | None) -> Stated:
    return Stated(frozenset(members.split("+")), share, lo, hi)


def test_a_merged_class_is_the_sum_of_its_members() -> None:
    answer = replace(
        names("queue"),
        classes=(stated("queue+gateway", 0.79, 0.75, 0.85), stated("decode", 0.2, 0.1, 0.15)),
    )
    first, second = errors_of(answer, QUEUE)
    assert (round(first.true, 6), first.covers) == (0.8, True)
    assert round(first.size, 6) == 0.01
    assert second.covers is False


def test_what_is_passed_over_is_stated_as_nothing() -> None:
    answer = replace(
        names("queue"),
        classes=(stated("queue", 0.7, 0.6, 0.8), stated("decode", 0.3, 0.2, 0.4)),
    )
    *_, gateway = errors_of(answer, QUEUE)
    assert (gateway.members, gateway.said, gateway.covers) == (frozenset({"gateway"}), 0.0, False)
    *_, gateway = errors_of(replace(answer, rest=0.12), QUEUE)
    assert gateway.covers is True


def test_a_class_without_an_interval_covers_nothing_and_misses_nothing() -> None:
    answer = replace(names("queue"), classes=(stated("queue", 0.7, None, None),))
    assert errors_of(answer, QUEUE)[0].covers is None


# ---------------------------------------------------------------------- figures
def record(kind: str, answer: Answer, book: Book) -> Record:
    made = Record(Task(kind, "0", "quick", Path()), book)
    made.judged[LATDIAG] = judge(answer, book)
    return made


def good() -> list[Record]:
    answer = replace(
        names("queue"),
        classes=(
            stated("queue", 0.70, 0.6, 0.8),
            stated("decode", 0.2, 0.1, 0.3),
            stated("gateway", 0.1, 0.0, 0.2),
        ),
    )
    return [record("replicas", answer, QUEUE) for _ in range(99)]


def test_figures_that_hold() -> None:
    assert not unmet(good(), "quick")
    assert "replicas" in table(good())


@pytest.mark.parametrize(
    ("answer", "book", "times", "words"),
    [
        (names("gateway"), QUEUE, 2, "confidently wrong"),
        (names("decode"), WELL, 1, "false alarms"),
        (Answer("ambiguous"), QUEUE, 20, "no answer"),
        (names("queue", "decode"), QUEUE, 40, "alone"),
        (names("queue", *"abcdefghi"), QUEUE, 30, "members"),
        (
            replace(names("queue"), classes=(stated("queue", 0.5, 0.4, 0.6),)),
            QUEUE,
            15,
            "covered",
        ),
        (
            replace(names("queue"), classes=(stated("queue", 0.5, 0.4, 0.9),)),
            QUEUE,
            40,
            "class error p95",
        ),
    ],
)
def test_figures_that_do_not(answer: Answer, book: Book, times: int, words: str) -> None:
    more = [record("replicas", answer, book) for _ in range(times)]
    assert words in " ".join(unmet(good() + more, "quick"))


def test_a_kind_that_is_not_covered_is_named() -> None:
    bad = replace(names("queue"), classes=(stated("queue", 0.5, 0.4, 0.6),))
    few = [record("stalls", bad, QUEUE)]
    assert "in stalls" in " ".join(unmet(good() + few, "quick"))


def test_what_could_not_be_judged_is_named() -> None:
    broken = record("stalls", Answer("insufficient"), QUEUE)
    broken.failed = "RuntimeError: a bug"
    assert "stalls/0" in " ".join(unmet([*good(), broken], "quick"))
    assert figures([broken]).unanswered == 1.0


# ---------------------------------------------------------------------- what can be parted
def spent(**shares: int) -> list[Truth]:
    causes = {
        "step": Cause("decode.base", "step", ("pace",)),
        "places": Cause("queue.admission", "places", ("slots-behind",)),
        "unknown": Cause("queue.admission", "places", ("slots",)),
        "delay": Cause("gateway.proc", "delay", ("constant",)),
        "paced": Cause("gateway.proc", "paced", ("paced",)),
    }
    return [Truth(0, sum(shares.values()), {causes[n]: took for n, took in shares.items()})]


def test_a_component_is_parted_by_what_excludes_the_others() -> None:
    assert partable("queue", spent(places=60, step=40))
    assert not partable("queue", spent(unknown=60, step=40))
    # A delay that may be a queue harms it as soon as it is more than a trifle.
    assert partable("queue", spent(places=60, step=39, delay=1))
    assert not partable("queue", spent(places=60, step=30, delay=10))
    assert partable("decode", spent(places=30, step=60, delay=10))
    assert not partable("decode", spent(step=60, paced=40))
    assert not partable("queue", [])


def test_causes_name_what_there_is() -> None:
    with pytest.raises(ValueError, match="names what there is not"):
        Cause("decode.bas", "step", ("pace",))
    with pytest.raises(ValueError, match="names what there is not"):
        Cause("decode.base", "step", ("pac",))
    assert all(COULD.values())


def test_a_ledger_adds_up_and_never_goes_back() -> None:
    ledger = Ledger(10)
    step, wait = (Cause("decode.base", "a", ("pace",)), Cause("decode.batch", "b", ("pace",)))
    ledger.book(15, SEND)
    ledger.book_parts(45, wait, (step, 20))
    ledger.book_parts(50, wait, (step, 20))
    assert ledger.spent == {SEND: 5, step: 25, wait: 10}
    with pytest.raises(ValueError, match="before it began"):
        ledger.book(49, step)
