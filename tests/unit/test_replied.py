"""Requests in components, out of what the reply to each states: one story per kind of server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from latdiag.attribution.replies.explain import explain
from latdiag.stacks import catalogue
from latdiag.stacks.figures import reply
from latdiag.stacks.signal import Stack, of

from .reply_rows import FIREWORKS, MS, VLLM, N, exact, means, said, told, waits


def test_queue_prefill_and_decode_are_as_stated_and_the_rest_is_of_nobody_in_particular() -> None:
    parts, facts = told(waits(), VLLM)
    assert means(parts) == pytest.approx(
        {
            "client": 1.0,
            "network": 2.0,
            "gateway": 17.0,
            "queue": 100.0,
            "prefill": 80.0,
            "decode": 295.0,
            "unattributed": 6.0,
        }
    )
    assert parts is not None
    assert parts.sources["gateway"].members == ("gateway", "frontend", "interconnect")
    assert parts.sources["gateway"].grade == "E"
    assert "metrics.queue_time_ms" in parts.sources["queue"].evidence
    assert (facts.stated, facts.told, facts.unsure) == (N, N, [])
    assert facts.stacks == ("vllm",)
    assert set(parts.leaves) == {"queue.admission"}


def test_what_a_server_does_not_state_is_merged_with_what_nobody_does() -> None:
    parts, _ = told(waits(), {"timings.prompt_ms": 150.0, "timings.predicted_ms": 290.0})
    found = means(parts)
    assert (found["prefill"], found["decode"], found["gateway"]) == (150.0, 290.0, 47.0)
    assert parts is not None
    assert parts.sources["gateway"].members == ("gateway", "frontend", "queue")
    assert parts.sources["prefill"].grade == "B"  # known from documents alone


def test_a_total_over_both_phases_adds_nothing() -> None:
    names = ("queue_time", "prompt_time", "completion_time", "total_time")
    ms = dict(zip(names, (50.0, 100.0, 280.0, 380.0), strict=True))
    parts, facts = told(waits(), {f"x_groq.usage.{name}": value for name, value in ms.items()})
    found = means(parts)
    assert [found[name] for name in ("queue", "prefill", "decode")] == [50.0, 100.0, 280.0]
    assert all("total" not in name for _, name in facts.used)


def test_what_lies_inside_a_longer_time_is_taken_out_of_it() -> None:
    parts, _ = told(waits(), {f"perf_metrics.{name}": v for name, v in FIREWORKS.items()})
    found = means(parts)
    # 190 less 60 and 120 is the frontend's: its tokenizer is inside of that.
    assert found["frontend"] == pytest.approx(10.0)
    assert (found["queue"], found["prefill"]) == (60.0, 120.0)
    # The hand-over comes after the first token, which the longer time ends with.
    assert parts is not None
    assert parts.inside("decode")["interconnect"].mean() == 30.0 * MS
    assert parts.inside("decode")["decode"].mean() == 260.0 * MS
    assert found["gateway"] == pytest.approx(7.0)
    assert parts.sources["gateway"].grade == "D" and not parts.sources["gateway"].members


def test_times_that_overlap_are_told_by_the_one_that_holds_both() -> None:
    ms = {"prefill_wait_time_ms": 20.0, "prefill_time_ms": 70.0, "ttft_ms": 90.0}
    parts, facts = told(waits(), {f"nvext.timing.{name}": v for name, v in ms.items()})
    assert [name for _, name in facts.used] == ["nvext.timing.ttft_ms"]
    found = means(parts)
    assert parts is not None
    # Its own router is told with what is behind it: a gateway is what stands before the server.
    assert parts.sources["frontend"].members == ("frontend", "queue", "prefill")
    assert found["frontend"] == 90.0
    # What is left is the link's, or of a gateway that no reply is of.
    assert parts.sources["gateway"].members == ("gateway", "interconnect")
    assert found["gateway"] == 107.0
    assert found["decode"] == 300.0  # the client's own stream


def test_a_part_of_a_frontend_is_not_all_of_it() -> None:
    names = ("tokenizer-duration", "prefill-queue-duration", "prefill-duration")
    parts, _ = told(waits(), {f"perf_metrics.{name}": FIREWORKS[name] for name in names})
    assert parts is not None
    assert parts.sources["gateway"].members == ("gateway", "frontend")
    assert means(parts)["gateway"] == 17.0


# ---------------------------------------------------------------------- whose reply it is
@pytest.mark.parametrize(
    ("queue", "prefill", "stream", "merged"),
    [
        # 77 left and 20 of prefill, less than what is called queue
        (100.0, 20.0, 300.0, [("gateway", "frontend", "prefill"), ("queue", "interconnect")]),
        # the transfer of a prompt that took long elsewhere
        (50.0, 10.0, 300.0, [("gateway", "frontend", "queue", "prefill", "interconnect")]),
        # a step of a large batch is long; 25 ms elsewhere are less than it
        (112.0, 60.0, 1800.0, [("gateway", "frontend", "prefill"), ("queue", "interconnect")]),
    ],
)
def test_a_queue_that_may_be_the_kv_transfer_is_not_called_a_queue(
    queue: float, prefill: float, stream: float, merged: list[tuple[str, ...]]
) -> None:
    stated = {
        "metrics.queue_time_ms": queue,
        "metrics.time_to_first_token_ms": prefill,
        "metrics.generation_time_ms": stream,
    }
    parts, facts = told(waits(stream_ms=stream), stated)
    found = means(parts)
    assert parts is not None
    assert facts.unsure == ["metrics.queue_time_ms"]
    assert [s.members for s in parts.sources.values() if s.members] == merged
    left = 197.0 - queue - prefill
    if len(merged) > 1:  # another server may have queued it too
        assert (parts.slack["queue"][1] == round(left * MS)).all()
        assert (parts.slack["gateway"][0] >= round(left * MS)).all()
    assert found["gateway"] == pytest.approx(left + prefill if len(merged) > 1 else 197.0)


def test_a_server_shows_that_it_computed_the_prompt_or_that_nobody_else_had_the_time() -> None:
    long = VLLM | {"metrics.time_to_first_token_ms": 35.0}  # three steps and a half
    short = VLLM | {"metrics.queue_time_ms": 186.5, "metrics.time_to_first_token_ms": 10.0}
    for stated in (long, short):
        parts, facts = told(waits(), stated)
        assert parts is not None and not (facts.unsure or parts.sources["queue"].members)
    # Of a reply in one chunk no step is known; of one with four tokens a chunk it is four long.
    assert told(waits(), long, chunks=1)[1].unsure
    assert told(waits(), long, chunks=8)[1].unsure
    # Without its decode, the stream may be what a proxy gathered.
    del long["metrics.generation_time_ms"]
    assert told(waits(), long)[1].unsure


def test_a_fleet_of_which_some_are_apart_is_not_told_as_one_that_is_not() -> None:
    seen = waits(n=100)
    times = {name: np.full(100, v * MS) for name, v in VLLM.items()}
    times["metrics.time_to_first_token_ms"][60:] = 10 * MS
    parts, facts = said(seen, times)
    assert facts.unsure and parts is not None
    assert parts.sources["queue"].members == ("queue", "interconnect")


def test_a_server_that_decoded_before_the_client_saw_a_token_made_it_wait_by_decode() -> None:
    """Reasoning that is not sent, a proxy that gathers: the stream is short, TTFT is long."""
    names = ("queue_time", "prompt_time", "completion_time")
    ms = dict(zip(names, (20.0, 60.0, 3300.0), strict=True))
    parts, facts = told(
        waits(ttft_ms=3200.0, stream_ms=300.0),
        {f"x_groq.usage.{name}": value for name, value in ms.items()},
    )
    assert parts is not None
    found = means(parts)
    assert found["decode"] == 3300.0 and found["gateway"] == pytest.approx(117.0)
    assert parts.inside("client_ttft")["decode"].mean() == 3000.0 * MS
    assert parts.inside("decode")["decode"].mean() == 300.0 * MS
    assert (facts.ahead, facts.ahead_ns) == (N, 3000.0 * MS)


def test_a_second_of_decode_before_the_token_shows_on_a_minute_of_stream() -> None:
    parts, facts = told(
        waits(ttft_ms=1100.0, stream_ms=59_000.0),
        VLLM | {"metrics.generation_time_ms": 59_900.0, "metrics.time_to_first_token_ms": 70.0},
        chunks=6000,
    )
    assert parts is not None and facts.ahead == N
    assert parts.inside("client_ttft")["decode"].mean() == 900.0 * MS
    assert means(parts)["gateway"] == pytest.approx(27.0)


@pytest.mark.parametrize(("more", "ahead"), [(5.0, 0), (5.2, 0), (5.4, N)])
def test_a_stream_that_is_a_little_shorter_than_its_decode_contradicts_nobody(
    more: float, ahead: int
) -> None:
    _, facts = told(waits(), VLLM | {"metrics.generation_time_ms": 300.0 + more})
    assert (facts.contradicted, facts.ahead, facts.told) == (0, ahead, N)


def test_a_hand_over_that_may_be_on_either_side_of_the_token_is_not_placed() -> None:
    ms = {"generation-queue-duration": 30.0, "prefill-duration": 120.0}
    parts, facts = told(waits(), {f"perf_metrics.{name}": v for name, v in ms.items()})
    assert [name for _, name in facts.used] == ["perf_metrics.prefill-duration"]
    assert "interconnect" not in means(parts)


# ---------------------------------------------------------------------- what does not fit
def test_what_is_after_the_token_has_to_fit_into_the_stream() -> None:
    late = {f"perf_metrics.{n}": v for n, v in FIREWORKS.items() if n != "generation-duration"}
    late["perf_metrics.generation-queue-duration"] = 290.0
    assert told(waits(stream_ms=60.0), late)[1].contradicted == N


def test_requests_that_contradict_the_client_show_nothing_of_a_role() -> None:
    """What is left of their wait is less than nothing."""
    seen = waits(n=100)
    times = {name: np.full(100, v * MS) for name, v in VLLM.items()}
    times["metrics.time_to_first_token_ms"][:] = 10 * MS
    times["metrics.queue_time_ms"][:48] = 400 * MS
    times["metrics.queue_time_ms"][48:96] = 186.5 * MS
    parts, facts = said(seen, times)
    assert facts.contradicted == 48 and facts.unsure and parts is not None


def test_a_gap_of_user_space_stamps_is_of_nobody() -> None:
    parts, _ = told(waits(kernel=False), VLLM)
    assert means(parts)["unattributed"] == pytest.approx(17.0 + 6.0)
    parts, _ = told(waits(kernel=False), {"timings.prompt_ms": 150.0})
    assert means(parts)["unattributed"] == pytest.approx(47.0 + 1.0)


def test_one_request_without_kernel_stamps_changes_no_other() -> None:
    seen = waits()
    seen.kernel[7] = False
    parts, _ = told(seen, VLLM)
    assert parts is not None
    exact(parts)
    assert parts.parts["gateway"][7] == 0
    assert (np.delete(parts.parts["gateway"], 7) == 17 * MS).all()


def test_requests_without_a_time_or_with_too_long_a_one_are_counted_and_left_out() -> None:
    seen = waits(n=100)
    times = {name: np.full(100, v * MS) for name, v in VLLM.items()}
    times["metrics.queue_time_ms"][:10] = np.nan
    for column in times.values():
        column[10:15] = np.nan
    times["metrics.queue_time_ms"][15:18] = 150 * MS  # with prefill more than the TTFT
    times["metrics.generation_time_ms"][18:20] = 500 * MS  # in all more than the whole
    parts, facts = said(seen, times)
    assert parts is not None
    assert (facts.stated, facts.partial, facts.contradicted, facts.told) == (95, 10, 5, 80)
    assert len(parts.total) == 80 and parts.left_out == 20
    assert facts.told_ns == facts.left_ns == 501.0 * MS


def test_a_transfer_after_the_first_token_does_not_pass_for_a_queue_on_a_long_stream() -> None:
    """The prefill server's token came after 200 ms; then the KV cache was on its way."""
    parts, facts = told(
        waits(ttft_ms=200.0, stream_ms=60_000.0),
        VLLM | {"metrics.queue_time_ms": 900.0, "metrics.generation_time_ms": 59_000.0},
        chunks=2000,
    )
    assert parts is None and facts.contradicted == N


def test_a_millisecond_too_much_is_no_contradiction_and_goes_into_unattributed() -> None:
    parts, facts = told(waits(), VLLM | {"metrics.queue_time_ms": 118.5})
    assert facts.contradicted == 0
    found = means(parts)
    assert (found["queue"], found["gateway"]) == (118.5, 0.0)
    assert found["unattributed"] == pytest.approx(6.0 - 1.5)


@pytest.mark.parametrize(("rows", "stands"), [(49, False), (50, True)])
def test_less_than_half_do_not_stand_for_all(rows: int, stands: bool) -> None:
    times = {name: np.full(100, np.nan) for name in VLLM}
    for name, value in VLLM.items():
        times[name][:rows] = value * MS
    parts, facts = said(waits(n=100), times)
    assert (parts is not None) is stands and facts.told == rows


def test_where_most_contradict_the_client_the_others_fit_by_chance() -> None:
    seen = waits(n=100)
    times = {name: np.full(100, v * MS) for name, v in VLLM.items()}
    times["metrics.queue_time_ms"][:51] = 400 * MS
    parts, facts = said(seen, times)
    assert parts is None and facts.contradicted == 51


def test_replies_of_two_stacks_are_counted_as_what_they_are() -> None:
    seen = waits(n=100)
    both = VLLM | {"timings.prompt_ms": 90.0, "timings.predicted_ms": 290.0}
    times = {name: np.full(100, v * MS) for name, v in both.items()}
    for name, column in times.items():
        column[slice(60, None) if name in VLLM else slice(0, 60)] = np.nan
    parts, facts = said(seen, times)
    assert (facts.stated, facts.told, facts.partial) == (100, 60, 40)
    assert facts.stacks == ("vllm",) and parts is not None and parts.left_out == 40


def test_nothing_stated_is_nothing_said() -> None:
    parts, facts = said(waits(), {})
    assert parts is None and facts.stated == 0
    empty = {name: np.full(N, np.nan) for name in VLLM}
    assert said(waits(), empty)[0] is None
    assert said(waits(n=0), {n: np.zeros(0) for n in VLLM})[0] is None


# ---------------------------------------------------------------------- stacks of others
def theirs(**given: Any) -> Stack:
    field = replace(reply("x.t", "x.t", of("queue"), "queue.admission"), **given)
    return Stack("x", "X", "engine", "documented", "1", (field,), ())


@pytest.mark.parametrize(
    "given",
    [
        {"unit": "1"},
        {"unit": "s|1"},
        {"rest": "network.dns"},
        {"rest": "nowhere"},
        {"bearer": "x.span", "unit": "s|ms"},
    ],
)
def test_a_time_that_cannot_be_used_is_refused_with_its_stack(given: dict[str, Any]) -> None:
    assert catalogue.unfit(theirs()) == ""
    assert "x.t" in catalogue.unfit(theirs(**given))


def test_leaves_that_no_server_has_are_not_taken_from_one() -> None:
    odd = theirs(covers=frozenset({"client.read_lag", "queue.admission"}), rest="")
    seen = waits()
    parts, facts = explain(seen, {"x.t": np.full(N, 5.0 * MS)}, [odd], np.full(N, 31))
    assert parts is None and facts.stated == 0
