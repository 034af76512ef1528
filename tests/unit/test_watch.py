"""Spans in, windows out: the same shares as a diagnosis, and every span accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.spans import columns, explain
from latdiag.ingest.importers.span_files import FileCounts
from latdiag.ingest.importers.trace_files import exports
from latdiag.ingest.otlp.keep import Keep
from latdiag.ingest.otlp.rows import SpanRows
from latdiag.stacks import catalogue
from latdiag.store.columns import arrow_batch
from latdiag.store.evidence import to_said
from latdiag.watch.bins import BIN_NS, EDGES, counted, quantile
from latdiag.watch.names import MOST, OTHER, Names
from latdiag.watch.ring import SETTLE_NS, Ring, Tally
from latdiag.watch.state import Watch
from tests.profiles import examples

S = 1_000_000_000
CAPTURES = Path(__file__).parents[1] / "captures"
VLLM = CAPTURES / "vllm-0.24.0-h200" / "tp1" / "spans.otlp.jsonl.gz"
SGLANG = CAPTURES / "sglang-0.5.16-h200" / "pd" / "spans.otlp.jsonl.gz"


def _columns(path: Path) -> dict[str, Any]:
    """All spans of a capture, as the receiver would have them."""
    stacks = catalogue.stacks()
    rows = SpanRows(Keep.of(stacks))
    for request in exports(path, FileCounts()):
        rows.add(request, "otlp/file", 0)
    return rows.take()


def _slice(all_: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """Some spans of many, with their labels as mappings."""
    labels = all_["labels"]
    offsets = labels.offsets.tolist()
    made = {
        name: [all_[name][row] for row in rows]
        for name in ("kind", "foreign_name", "trace_id", "span_id", "parent_span_id", "replica")
    }
    for name in ("start_ns", "end_ns"):
        made[name] = [int(all_[name].values[row]) for row in rows]
    made["labels"] = [
        dict(
            zip(
                labels.keys[offsets[row] : offsets[row + 1]],
                labels.values[offsets[row] : offsets[row + 1]],
                strict=True,
            )
        )
        for row in rows
    ]
    return made


@pytest.mark.parametrize("path", [VLLM, SGLANG], ids=["vllm", "sglang-pd"])
def test_shares_of_a_capture_are_those_of_collect(path: Path) -> None:
    """Whatever batches the spans come in."""
    spans = _columns(path)
    n = len(spans["trace_id"])
    reader = columns.Reader(catalogue.stacks())
    batch = arrow_batch("evidence", _slice(spans, list(range(n))))
    reader.add(to_said(batch, reader.kinds, reader.wanted))
    parts, _ = explain.server_only(reader.spans())
    assert parts is not None
    watch, now = Watch(catalogue.stacks(), {}, 0), S
    by_trace: dict[str, list[int]] = {}
    for row, trace in enumerate(spans["trace_id"]):
        by_trace.setdefault(trace, []).append(row)
    for rows in by_trace.values():
        watch.add(_slice(spans, rows), now)
        now += S // 8
        watch.tick(now)
        assert watch.tally.exact
    watch.tick(now, everything=True)
    found = watch.look(now // BIN_NS + 1).windows["60m"]
    assert watch.tally.open == 0 and watch.tally.received == n
    assert found.n == len(parts.total)
    whole = int(parts.total.sum())
    for name, column in parts.parts.items():
        assert found.shares.get(name, 0.0) == pytest.approx(int(column.sum()) / whole, abs=1e-3)


def _row(trace: int, span: int, name: str = "llm_request") -> dict[str, Any]:
    return {
        "kind": "span", "foreign_name": name, "trace_id": f"{trace:032x}",
        "span_id": f"{span:016x}", "parent_span_id": None, "start_ns": 10 * S, "end_ns": 11 * S,
        "replica": "a", "labels": {"gen_ai.latency.time_in_queue": "0.5"},
    }  # fmt: skip


def _of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: [row[name] for row in rows] for name in rows[0]}


_NAMES = st.sampled_from(["llm_request", "x"])
_EVENTS = st.lists(
    st.tuples(
        st.lists(
            st.tuples(
                st.integers(1, 30), st.integers(1, 5), st.sampled_from(["llm_request", "x"])
            ),
            min_size=1,
            max_size=20,
        ),
        st.integers(0, 12),
    ),
    max_size=15,
)


@examples(60)
@given(_EVENTS)
def test_every_span_has_one_fate(events: list[tuple[list[tuple[int, int, str]], int]]) -> None:
    """Repeated, late and unknown ones too, in a ring that is too small."""
    watch, now, sent = Watch(catalogue.stacks(), {}, 0), S, 0
    watch.ring = Ring(watch.tally, most_spans=40)
    for spans, pause in events:
        watch.add(_of([_row(*each) for each in spans]), now)
        sent += len(spans)
        now += pause * S
        watch.tick(now)
        assert watch.tally.exact and watch.tally.received == sent
        assert watch.tally.open <= 44
    watch.tick(now, everything=True)
    assert watch.tally.exact and watch.tally.open == 0


def test_a_span_that_comes_too_late_is_told() -> None:
    ring = Ring(Tally())
    ring.add(_of([_row(1, 1)]), 0)
    assert ring.settled(SETTLE_NS - 1).spans == 0
    assert ring.settled(SETTLE_NS).spans == 1
    ring.add(_of([_row(1, 2), _row(2, 1)]), SETTLE_NS + 1)
    assert ring.tally.dropped == {"late": 1} and ring.traces == 1


def test_a_million_values_of_a_label_are_one() -> None:
    """And one that is really used is told apart even so."""
    names, kept = Names(), set()
    for start in range(0, 1_000_000, 50_000):
        values = np.array([f"v{i}" for i in range(start, start + 50_000)], dtype=object)
        kept |= set(names.fold(values, start).tolist())
    assert len(kept) <= MOST + 1 and OTHER in kept
    assert names.folded > 999_000
    used = np.array(["used"] * 20, dtype=object)
    assert set(names.fold(used, 1).tolist()) == {"used"}


def test_quantiles_are_near() -> None:
    values = np.random.default_rng(3).lognormal(18, 1, 5000).astype(np.int64)
    for level in (0.5, 0.95):
        found = quantile(counted(values), level)
        assert found == pytest.approx(float(np.quantile(values, level)), rel=0.05)
    assert quantile(np.zeros(len(EDGES) + 1, np.int64), 0.5) is None


def test_an_answer_that_takes_long_is_waited_for() -> None:
    """What a prefill server says comes at once, what the other says after the answer's end: the
    first such requests teach that, and those to come are whole."""
    ring, whole = Ring(Tally(), known=lambda name: name != "x"), 0
    for at in range(60):
        begin = at * 100 * S
        ring.add(_of([_row(at, 1, "prefill")]), begin)
        ring.settled(begin + 11 * S)
        ring.add(_of([_row(at, 2, "decode"), _row(at, 3, "x")]), begin + 40 * S)
        ring.settled(begin + 41 * S)
        whole += ring.settled(begin + 60 * S).spans == 3
    assert whole >= 45
    assert ring.tally.dropped["late"] <= 2 * 15
    ring.add(_of([_row(1000, 1, "prefill")]), 10_000 * S)  # and its other part never comes
    assert ring.settled(10_100 * S).spans == 0 and ring.settled(10_181 * S).spans == 1
