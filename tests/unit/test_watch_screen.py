"""The screen of ``watch``: 24 lines of 79 columns, whatever comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from latdiag.report.watch_screen import screen, words_of
from latdiag.stacks import catalogue
from latdiag.watch.bins import BIN_NS
from latdiag.watch.change import Change
from latdiag.watch.state import Watch

S = 1_000_000_000


def _live(watch: Watch, now_ns: int) -> Any:
    """As much of a live watch as a screen needs."""
    return SimpleNamespace(
        watch=watch,
        now_ns=lambda: now_ns,
        begun_ns=0,
        grpc="127.0.0.1:4317",
        http=None,
        looped=0,
        forwarding=None,
        plan=SimpleNamespace(sampled=None),
        intake=SimpleNamespace(rows=SimpleNamespace(senders=SimpleNamespace(seen={}))),
    )


def _change(at: int) -> Change:
    name = "\x1b[31m" + "x" * 200
    return Change("ttft", "queue", name, name, 1.8e8, 1e8, at, "component", 1e9, 1.18e9)


def test_a_screen_has_room_for_all_that_is_hostile() -> None:
    watch, random = Watch(catalogue.stacks(), {}, 0), np.random.default_rng(1)
    rows = []
    for at in range(400):
        q, p, d = random.lognormal(-2, 1, 3)
        rows.append(
            {
                "kind": "span", "foreign_name": "llm_request", "trace_id": f"{at:032x}",
                "span_id": f"{at:016x}", "parent_span_id": None, "start_ns": 10 * S,
                "end_ns": 10 * S + int((q + p + d) * S), "replica": "a\x1b[2J" * 20,
                "labels": {
                    "gen_ai.latency.time_in_queue": repr(q),
                    "gen_ai.latency.time_to_first_token": repr(q + p),
                    "gen_ai.latency.time_in_model_prefill": repr(p),
                    "gen_ai.latency.time_in_model_decode": repr(d),
                    "gen_ai.latency.e2e": repr(q + p + d),
                    "gen_ai.response.model": f"model{at % 7}\x1b[31m" * 9,
                },
            }
        )  # fmt: skip
    watch.add({name: [row[name] for row in rows] for name in rows[0]}, S)
    watch.tick(S, everything=True)
    report = watch.look(1)
    report.active = [_change(n) for n in range(12)]
    lines = screen(_live(watch, BIN_NS), report)
    assert len(lines) <= 24 and all(len(line) <= 79 for line in lines)
    text = "\n".join(lines)
    assert "\x1b" not in text and "more changes" in text
    assert lines[-1].startswith("400 spans: 400 used, 0 open")


def test_before_anything_came_the_screen_says_where_to_send() -> None:
    lines = screen(_live(Watch(catalogue.stacks(), {}, 0), S), None)
    assert "127.0.0.1:4317" in "\n".join(lines)


def test_a_change_says_what_moved_since_when_and_where() -> None:
    change = Change("ttft", "queue", "m", "replica-3", 1.5e8, 1e8, 4, "component", 1e9, 1.18e9)
    text = words_of(change)
    assert text.startswith("TTFT p95 (m) +180 ms since ")
    assert text.endswith(": queue +150 ms (+150%), replica replica-3.")
