"""What excludes a component from a piece of time: every component asked at every piece."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from latdiag.attribution.laws.delivery import Delivery
from latdiag.attribution.laws.engine_time import Before
from latdiag.attribution.laws.laws import Laws, Step, Transfer, learn
from latdiag.attribution.laws.path import Loaded, Refusals
from latdiag.attribution.laws.pieces import BEFORE_FIRST, Piece, limits, merged, piece, room
from latdiag.attribution.laws.sharing import Sharing
from latdiag.attribution.laws.suspicion import PIECES, pieces_of
from latdiag.attribution.laws.turns import Turns

from .probe_rows import MS, seen
from .test_blackbox import WAITS, probe

COLUMNS = (
    "way",
    "refusal",
    "before",
    "launch",
    "prompt",
    "crowd",
    "door",
    "misfit",
    "full",
    "wait",
    "end",
)
ROWS = 3


def laws(**known: object) -> Laws:
    """Those of a plain server of which nothing but prompts and steps was learned."""
    found = learn(seen(probe(WAITS)))
    assert found is not None
    none = np.zeros(ROWS)
    plain = replace(
        found,
        refusals=None,
        before=None,
        loaded=None,
        transfer=None,
        pacing=None,
        delivery=Delivery(none, none, 1.0, False, None, None),
        step=Step(20.0 * MS, 0.1 * MS, 0.0, 0.0, 20, 20),
        sharing=Sharing("unknown", 0.0, 0.0, 0),
        turns=Turns(None, None, 0),
    )
    return replace(plain, **known)  # type: ignore[arg-type]


def suspects(of: Laws) -> Mapping[str, frozenset[str]]:
    columns = {name: np.full(ROWS, 10 * MS) for name in COLUMNS}
    zero = np.zeros(ROWS, dtype=np.int64)
    return {each.name: each.suspects for each in pieces_of(of, columns, zero.astype(float), zero)}


SHARED = Sharing("shared", 0.9, 0.9, 4)
BEFORE = Before(0.0, 0.0, 5.0 * MS, np.zeros(2), np.array([1024.0, 4096.0]))
FAR = replace(BEFORE, constant_ns=250.0 * MS)
QUICK = Loaded(0.0, 0.0, 0.1 * MS)
GATEWAY, FRONT = {"gateway"}, {"frontend"}


def test_what_nobody_tried_excludes_nobody_but_a_gateway_that_nothing_shows() -> None:
    found = suspects(laws())
    assert found["wait"] == BEFORE_FIRST - GATEWAY
    assert found["launch"] == BEFORE_FIRST - GATEWAY
    assert found["prompt"] == {"frontend", "prefill", "interconnect"}
    assert found["full"] == {"queue", "gateway"}, "a gateway's limit looks like an engine's"
    assert found["way"] == {"network", "gateway"} and found["end"] == {"frontend", "gateway"}


@pytest.mark.parametrize(
    ("known", "where", "leaves"),
    [
        # Streams that stop for a prompt: nothing moves between engines, and the engine works.
        ({"sharing": SHARED}, "wait", {"frontend", "queue", "prefill"}),
        ({"sharing": SHARED}, "prompt", {"frontend", "prefill"}),
        ({"sharing": SHARED, "before": BEFORE}, "prompt", {"prefill"}),
        # They stop 250 ms late: somebody before the engine, and it may be a gateway.
        ({"sharing": SHARED, "before": FAR}, "before", {"gateway", "frontend", "queue"}),
        ({"sharing": SHARED, "before": FAR}, "wait", {"gateway", "frontend", "queue", "prefill"}),
        # Requests that bring no token are quick beside the workload.
        ({"loaded": QUICK}, "wait", {"queue", "prefill", "interconnect"}),
        ({"loaded": QUICK}, "full", {"queue", "gateway"}),
        # The second token comes late: the transfer is there.
        ({"transfer": Transfer(90.0 * MS, 0.0, 20, True)}, "prompt", {"frontend", "prefill"}),
        ({"transfer": Transfer(90.0 * MS, 0.0, 20, True)}, "interconnect", {"interconnect"}),
        (
            {"transfer": Transfer(90.0 * MS, 0.0, 20, False)},
            "interconnect",
            {"interconnect", "decode"},
        ),
        # Of two prompts at once one waits, and streams cost a prompt nothing.
        ({"turns": Turns(True, 0.02, 4)}, "wait", {"frontend", "queue", "interconnect"}),
        ({"turns": Turns(True, 0.5, 4)}, "wait", {"frontend", "queue", "prefill", "interconnect"}),
        ({"turns": Turns(False, 0.0, 4)}, "wait", BEFORE_FIRST - GATEWAY),
    ],
)
def test_each_experiment_excludes_whom_it_should_and_nobody_else(
    known: dict[str, object], where: str, leaves: set[str]
) -> None:
    assert suspects(laws(**known))[where] == leaves


def test_refusals_that_were_read_clear_what_stands_before_the_engine() -> None:
    read = learn(seen(probe(WAITS)))
    assert read is not None and read.refusals is not None and read.refusals.curve is not None
    found = suspects(laws(refusals=read.refusals, loaded=QUICK))
    assert found["full"] == {"queue"} and found["launch"] & {"gateway", "frontend"} == set()
    assert found["prompt"] == {"prefill", "interconnect"}


def test_a_server_may_keep_a_door_of_its_own_unless_it_is_known_to_keep_none() -> None:
    flat = Refusals(2.0 * MS, np.full(9, 2.0 * MS), None)
    assert suspects(laws(refusals=flat))["door"] == {"gateway", "frontend"}
    assert suspects(laws(refusals=replace(flat, engine=True)))["door"] == {"gateway"}


def test_an_engine_that_waits_for_a_batch_while_idle_may_hold_a_queue() -> None:
    """Prompts beside running streams are quicker than alone."""
    slow = laws(sharing=SHARED, before=BEFORE, turns=Turns(True, -1.0, 4))
    assert slow.idle_waits and "queue" in suspects(slow)["launch"]
    assert not laws(sharing=SHARED, before=BEFORE, turns=Turns(True, 0.1, 4)).idle_waits


def test_replies_that_come_at_once_leave_decode_before_the_first_token() -> None:
    found = suspects(laws(at_once=True, sharing=SHARED, before=BEFORE))
    assert found["prompt"] >= GATEWAY | FRONT
    assert "decode" in found["prompt"] & found["launch"]
    assert "decode" not in suspects(laws())["prompt"]


def test_refusals_in_an_engine_s_words_came_as_far_whatever_they_took() -> None:
    flat = Refusals(2.0 * MS, np.full(9, 2.0 * MS), None, True)
    assert suspects(laws(refusals=flat, loaded=QUICK))["full"] == {"queue"}
    nobody = suspects(laws(refusals=replace(flat, engine=False), loaded=QUICK))
    assert nobody["full"] == {"queue", "gateway"}
    # What they took says nothing of what the prompt cost.
    assert "frontend" in suspects(laws(refusals=flat, loaded=QUICK))["prompt"]


def test_refusals_that_are_slow_beside_the_workload_clear_nobody() -> None:
    vague = Loaded(0.0, 0.0, 500.0 * MS)
    assert suspects(laws(loaded=vague))["wait"] == suspects(laws())["wait"]
    slow = suspects(laws(loaded=Loaded(0.0, 40.0 * MS, 1.0 * MS)))
    assert "gateway" in slow["wait"] and slow["crowd"] == {"gateway", "frontend"}


def test_every_piece_has_words_for_what_it_rests_on() -> None:
    known = laws(sharing=SHARED, before=BEFORE, loaded=QUICK)
    columns = {name: np.full(ROWS, MS) for name in (*COLUMNS, "held")}
    for each in pieces_of(known, columns, np.zeros(ROWS), np.zeros(ROWS, dtype=np.int64)):
        if each.name != "paced":
            origin = PIECES[each.name](known, each)
            assert origin.grade in "ABCDE" and origin.text


# ---------------------------------------------------------------------- what follows from them
TOTAL = np.full(40, 1000)


def of(name: str, ns: int, *names: str) -> Piece:
    return piece(name, np.full(40, ns), {}, names[:1], names)


def test_large_pieces_merge_and_one_that_hangs_on_two_merges_both() -> None:
    found = merged([of("a", 100, "queue", "gateway"), of("b", 90, "network", "gateway")], TOTAL)
    assert found["queue"] == ("network", "gateway", "queue")
    assert merged([of("a", 100, "queue"), of("b", 5, "network", "gateway")], TOTAL) == {}


def test_a_piece_that_is_large_for_the_slowest_alone_merges_too() -> None:
    ns = np.zeros(40, dtype=np.int64)
    ns[-2:] = 400
    total = TOTAL + 20 * ns
    slow = Piece("wait", ns, frozenset({"queue", "prefill"}), "queue", {})
    assert merged([slow], total)["queue"] == ("queue", "prefill")


def test_a_small_piece_widens_the_others_by_itself_and_no_more() -> None:
    small = [of("a", 20, "prefill", "frontend", "gateway")]
    moves = room(small, {})
    assert {(m.giver, m.taker) for m in moves} == {("prefill", "gateway"), ("prefill", "frontend")}
    assert (limits(small, {})["prefill"] == 20).all(), "it can be lost once"
    whole = dict.fromkeys(("gateway", "frontend", "prefill"), ("gateway", "frontend", "prefill"))
    assert room(small, whole) == [] and limits(small, whole) == {}
