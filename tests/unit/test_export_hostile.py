"""Runs that others wrote, as traces: texts are bounded, times are times, nothing is silent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan

from latdiag.export.attempts import Attempts, attempts_of
from latdiag.export.choice import Wanted
from latdiag.export.delivery import Answer, Delivery, Reply, deliver
from latdiag.export.spans import traces
from latdiag.model import span_names as names
from latdiag.store.batch import Lists
from latdiag.store.run import Run
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state

NOW_NS, DAY_NS = 1_790_000_000 * 10**9, 86_400 * 10**9
CLOCK = "c1"


def written(path: Path, rows: Sequence[dict[str, Any]], real_ns: int, **target: Any) -> str:
    """A run of ``rows``, whose monotonic clock was 0 at ``real_ns``."""
    create_run(str(path), header(**({"target": target} if target else {})))
    writer = RunWriter(str(path), "w")
    stamps: dict[str, list[Any]] = {"arrivals_ns": [], "kinds": []}
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        sent = row.get("sent_ns", DAY_NS + number * 10**9)
        whole = {
            "request_id": f"r{number}", "attempt": 1, "clock_id": CLOCK, "outcome": "ok",
            "scenario": "load", "status": 200, "done_ns": (sent or 0) + 2 * 10**9,
            "stamp_source": "user", "error": None, "response_id": None, "trace_id": None,
            "span_id": None, "isl": None, **row, "sent_ns": sent,
        }  # fmt: skip
        arrivals = [sent + 10**9, sent + 2 * 10**9] if whole["outcome"] == "ok" else []
        stamps["arrivals_ns"].append(arrivals)
        stamps["kinds"].append([3] * len(arrivals))
        for name, value in whole.items():
            columns.setdefault(name, []).append(value)
    flat = [at for each in stamps["arrivals_ns"] for at in each]
    offsets = [0]
    for each in stamps["arrivals_ns"]:
        offsets.append(offsets[-1] + len(each))
    lists = {
        "arrivals_ns": Lists.whole(np.array(flat, dtype=np.int64), np.array(offsets)),
        "arrivals_user_ns": Lists.whole(np.array(flat, dtype=np.int64), np.array(offsets)),
        "kinds": Lists.whole(np.full(len(flat), 3, dtype=np.int8), np.array(offsets)),
        "censored": Lists.whole(np.zeros(len(flat), dtype=bool), np.array(offsets)),
        "tokens": Lists.whole(np.ones(len(flat), dtype=np.int32), np.array(offsets)),
    }
    if rows:
        writer.write_part({**columns, **lists})
    series = [[at, real_ns + at, 200] for at in (0, 2 * DAY_NS)]
    writer.write_state(state("closed", clock_id=CLOCK, clock=series))
    return str(path)


def sent(run: str, wanted: Wanted | None = None) -> tuple[Attempts, list[list[ReadableSpan]]]:
    """The traces of a run; the encoder takes every one."""
    attempts = attempts_of(Run.open(run), wanted or Wanted())
    made = list(traces(attempts))
    encode_spans([span for trace in made for span in trace]).SerializeToString()
    assert len(made) == len(attempts)
    return attempts, made


@pytest.mark.parametrize(
    "model",
    [
        "<script>alert(1)</script>",
        "</script><!--",
        "ru\u202ele\u2066d",
        "half \ud800 a pair",
        "x" * 60_000,
        "\x1b[31mred",
        "1e308",
        "NaN",
    ],
)
def test_a_model_of_any_name(tmp_path: Path, model: str) -> None:
    target = {"url": "http://h:1/v1", "model": model, "dialect": "openai-chat", "peer": None}
    run = written(tmp_path / "x.run", [{}], NOW_NS, **target)
    _, ((root, *_),) = sent(run)
    told = (root.attributes or {})[names.MODEL]
    assert isinstance(told, str) and len(told) <= 1000 and told.isprintable()
    assert root.name == f"chat {told}"
    if model.isprintable() and len(model) < 1000:
        assert told == model  # what shows it has to escape it


def test_times_of_no_day_are_left_out_and_counted(tmp_path: Path) -> None:
    """The store refuses clocks before 1970 and after 2116."""
    rows = [{} for _ in range(4)]
    for name, real, placed in (
        ("1970", 0, 0),
        ("1999", 10_000 * DAY_NS, 0),
        ("now", NOW_NS, 4),
        ("2115", NOW_NS + 89 * 365 * DAY_NS, 4),
    ):
        run = written(tmp_path / f"{name}.run", rows, real)
        attempts, made = sent(run)
        assert (len(made), attempts.unplaced, attempts.choice.of) == (placed, 4 - placed, 4), name


def test_a_run_of_failures_has_a_span_for_each(tmp_path: Path) -> None:
    rows = [
        {"outcome": "timeout", "status": None, "done_ns": None, "error": "no reply"},
        {"outcome": "http_error", "status": 500, "error": "HTTP 500"},
        {"outcome": "refused", "status": None, "done_ns": None, "error": "connection refused"},
    ]
    _, made = sent(written(tmp_path / "x.run", rows, NOW_NS))
    assert [len(trace) for trace in made] == [1, 1, 1]
    for (root,), row in zip(made, rows, strict=True):
        attributes = root.attributes or {}
        assert attributes[names.ERROR_TYPE] == row["outcome"] and not root.status.is_ok
        assert attributes[names.ATTRIBUTED] is False and names.FIRST_CHUNK not in attributes
        assert root.start_time is not None and root.end_time is not None
        assert root.end_time >= root.start_time


def test_a_run_of_one_request_and_of_none(tmp_path: Path) -> None:
    attempts, made = sent(written(tmp_path / "one.run", [{}], NOW_NS))
    assert len(made) == 1 and names.NS in (made[0][0].attributes or {})
    attempts, made = sent(written(tmp_path / "none.run", [], NOW_NS))
    assert made == [] and attempts.choice.of == 0


def test_requests_named_alike_are_traces_of_their_own(tmp_path: Path) -> None:
    run = written(tmp_path / "x.run", [{"request_id": "same"}] * 3, NOW_NS)
    _, made = sent(run)
    contexts = [span.context for trace in made for span in trace]
    assert len({each.trace_id for each in contexts if each is not None}) == 3
    assert made[0][0].to_json() == sent(run)[1][0][0].to_json()


class Deaf:
    """Takes nothing, in any way."""

    def __init__(self, reply: Reply) -> None:
        self.reply, self.sizes = reply, list[int]()

    def send(self, batch: bytes) -> Reply:
        self.sizes.append(len(batch))
        return self.reply


@pytest.mark.parametrize("answer", list(Answer))
@pytest.mark.parametrize("answered", [True, False])
def test_every_span_is_counted_once_whatever_comes(
    tmp_path: Path, answer: Answer, answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latdiag.export.delivery._SPANS", 3)
    _, made = sent(written(tmp_path / "x.run", [{} for _ in range(9)], NOW_NS))
    found: Delivery = deliver(
        made, Deaf(Reply(answer, "no", 2, answered, None)), sleep=lambda _: None
    )
    assert found.spans == sum(map(len, made)) == 9
    assert found.delivered + found.rejected + found.lost + found.unsent == found.spans
    assert sum(found.reasons.values()) == found.spans - found.delivered
    assert found.complete is False


def test_batches_are_bounded_by_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latdiag.export.delivery._BYTES", 20_000)
    _, made = sent(written(tmp_path / "x.run", [{} for _ in range(90)], NOW_NS))
    taker = Deaf(Reply(Answer.TAKEN))
    found = deliver(made, taker, sleep=lambda _: None)
    assert found.complete and len(taker.sizes) > 3 and max(taker.sizes) <= 20_000


def test_a_receiver_cannot_make_up_reasons_without_end() -> None:
    found = Delivery()
    for number in range(1000):
        found.note(f"reason {number} " + "x" * 10_000, 1)
    assert len(found.reasons) <= 21 and sum(found.reasons.values()) == 1000
    assert max(map(len, found.reasons)) <= 200
