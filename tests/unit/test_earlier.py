"""``probe --like RUN``: the workload of an earlier probe, read from its run and sent again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from latdiag.measurement.stages import BEHIND, WORKLOAD, Stage
from latdiag.model.errors import RunFault, UsageFault
from latdiag.probe.budget import MAX_TOKENS
from latdiag.probe.cost import cost
from latdiag.probe.earlier import Earlier, earlier
from latdiag.probe.limits import limits_like
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header

from .fake_server import FakeServer, probed

MS = 1_000_000
SINCE = 10**15
ASKED = {"max_tokens": 9_000, "max_model_len": None, "isl": "uniform:10-90", "osl": "8"}
#: (segment, ISL, OSL, ms from the first of its segment)
OPEN = [(1, 40, 8, 0), (1, 77, 8, 130), (1, 13, 8, 131), (2, 20, 8, 0), (2, 90, 8, 700)]


def saved(
    path: Path,
    rows: Sequence[tuple[int, int, int, int]],
    *,
    closed: bool = False,
    limits: dict[str, Any] | None = None,
    budget: str | None = "standard",
    lasts_ms: int = 50,
) -> str:
    """A probe's run with such a workload, the last request of which failed, and other stages."""
    limits = ASKED | {"rate": None, "concurrency": None} | (limits or {})
    plan = {"designed": True, "budget": budget, "limits": limits, "seed": 3}
    create_run(str(path), header("probe", plan=plan))
    table: dict[str, list[Any]] = {}
    for number, (segment, isl, osl, at_ms) in enumerate(reversed(rows)):
        sent = SINCE + segment * 10**10 + at_ms * MS
        row = {
            "request_id": f"r{number}",
            "attempt": 1,
            "stage": WORKLOAD,
            "scenario": f"segment-{segment}",
            "due_ns": None if closed else sent - 1000,
            "sent_ns": sent,
            "done_ns": sent + lasts_ms * MS if number else None,
            "isl_wanted": isl,
            "osl_wanted": osl,
            # What came back is not what was asked for.
            "isl": isl + 9,
            "osl": osl - 3,
            "outcome": "ok" if number else "timeout",
        }
        other = {**row, "request_id": f"d{number}", "stage": "S3", "scenario": ""}
        for each in (row, other):
            for key, value in each.items():
                table.setdefault(key, []).append(value)
    if table:
        RunWriter(str(path), "w").write_part(table)
    return str(path)


def test_an_open_loop_is_read_as_it_was_asked_for(tmp_path: Path) -> None:
    found = earlier(saved(tmp_path / "a.run", OPEN))
    assert [stage.segment for stage in found.segments] == [1, 2]
    again = [
        (stage.segment, shot.isl, shot.osl, shot.at_ns / MS)
        for stage in found.segments
        for shot in stage.shots
    ]
    assert again == OPEN and not any(stage.slots for stage in found.segments)
    assert (found.budget, found.max_tokens, found.seed) == ("standard", 9_000, 3)
    assert (found.isl, found.osl, found.rate) == ("uniform:10-90", "8", None)


def test_a_closed_loop_keeps_its_order_and_its_slots(tmp_path: Path) -> None:
    rows = [(1, 10 + k, 8, 30 * k) for k in range(6)]
    found = earlier(saved(tmp_path / "a.run", rows, closed=True, limits={"concurrency": 7}))
    (stage,) = found.segments
    assert stage.slots == 7 and [shot.isl for shot in stage.shots] == [10, 11, 12, 13, 14, 15]
    assert {shot.at_ns for shot in stage.shots} == {-1}
    # A server's limit made an open loop a closed one: so many were under way.
    limited = earlier(saved(tmp_path / "b.run", rows, closed=True))
    assert limited.segments[0].slots == 2


def test_the_design_sends_that_workload_and_nothing_else(tmp_path: Path) -> None:
    """Whatever the server: a slow one does not slow it down."""
    rows = [(1 + k % 3, 20 + k, 5 + k % 7, 40 * k) for k in range(120)]
    found = earlier(saved(tmp_path / "a.run", rows))
    for server in (FakeServer(), FakeServer(base_ms=800.0, slots=1)):
        limits = limits_like(found, "quick", None, None)
        stages = probed(server, limits).stages
        sent = [each for each in stages if isinstance(each, Stage) and each.name == WORKLOAD]
        assert [each.shots for each in sent] == [each.shots for each in found.segments]
        assert len(rows) < cost(limits).requests
    both = probed(FakeServer(), limits_like(found, "quick", None, None, behind=True)).stages
    names = [each.name for each in both if getattr(each, "segment", 0)]
    assert names == [WORKLOAD, BEHIND, BEHIND, WORKLOAD, WORKLOAD, BEHIND]


def test_what_may_be_spent_is_that_of_the_earlier_run_or_as_asked(tmp_path: Path) -> None:
    found = earlier(saved(tmp_path / "a.run", OPEN, limits={"rate": 2.5}))
    limits = limits_like(found, None, None, None)
    assert (limits.budget, limits.rate, limits.max_tokens) == ("standard", 2.5, 1_000_000)
    assert limits.seed != found.seed
    more = limits_like(found._replace(max_tokens=7_000_000), None, None, 11)
    assert (more.max_tokens, more.seed) == (7_000_000, 11)
    assert limits_like(found, "quick", None, None).max_tokens == MAX_TOKENS["quick"]
    with pytest.raises(UsageFault, match="more than"):
        limits_like(found, None, 100, None)
    with pytest.raises(UsageFault, match="cached"):
        limits_like(found, None, None, 3)


def test_what_has_no_workload_is_refused(tmp_path: Path) -> None:
    create_run(str(tmp_path / "load.run"), header("load"))
    for path, words in (
        (str(tmp_path / "load.run"), "not a run of probe"),
        (saved(tmp_path / "none.run", []), "no request of its workload"),
        (saved(tmp_path / "odd.run", OPEN, budget="vast"), "not a run of probe"),
        (str(tmp_path / "*.run"), "3 runs"),
    ):
        with pytest.raises(UsageFault, match=words):
            earlier(path)
    with pytest.raises(RunFault, match="does not exist"):
        earlier(str(tmp_path / "nothing.run"))


def test_it_passes_between_processes() -> None:
    from latdiag.runtime.channel import packed, unpacked

    said = Earlier((Stage(WORKLOAD, (), 3, "", 1),), "quick", 1, 2, None, "8", 1.5, None)
    assert unpacked(packed(said)) == said
