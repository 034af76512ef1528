"""The files and columns of a run, their types, and the history of these.

Types are written as words here so that the table can be read without pyarrow. Nulls are allowed
in every column but not inside a list. ``*_ns`` columns are integer nanoseconds: instants of the
clock named by the row's ``clock_id``, or durations where the comment says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEMA_VERSION = 1
#: The folders of a run; beside them lies run.json.
FOLDERS = ("writers", "requests", "evidence")
_PART = re.compile(r"part-(?P<writer>.+)-(?P<number>[0-9]{6,9})\.parquet")
_OPEN = re.compile(r"open-(?P<writer>.+)\.parquet")


@dataclass(frozen=True, slots=True)
class Version:
    """One entry of the history: what changed, and how a run of that version is read today."""

    number: int
    changed: str
    read_today: str


#: Every schema version there has been. A change adds an entry here and columns below; a column
#: that a run's version did not have yet is read as null. A newer version than the last one here
#: is refused; columns unknown here are ignored (a newer writer may add some within a version).
HISTORY = (Version(1, "the first", "as it is"),)

REQUESTS: dict[str, str] = {
    "request_id": "text",
    "attempt": "int",
    "response_id": "text",
    "trace_id": "text",
    "span_id": "text",
    "scenario": "text",
    "stage": "text",
    "clock_id": "text",
    "node": "text",
    "worker": "text",
    "due_ns": "int",
    "sent_ns": "int",
    "dns_ns": "int",
    "tcp_ns": "int",
    "tls_ns": "int",
    "written_ns": "int",
    "wire_ns": "int",
    "wire_last_ns": "int",
    "acked_ns": "int",
    "headers_ns": "int",
    "arrivals_ns": "list<int64>",
    "arrivals_user_ns": "list<int64>",
    "tokens": "list<int32>",
    "kinds": "list<int8>",
    "censored": "list<bool>",
    "done_ns": "int",
    "isl": "int",
    "osl": "int",
    "isl_wanted": "int",
    "osl_wanted": "int",
    "cached_tokens": "int",
    "token_source": "text",
    "stamp_source": "text",
    "min_rtt_ns": "int",  # duration
    "retransmits": "int",
    "resent_ns": "int",
    "retry_ns": "int",  # duration
    "out_of_order": "int",
    "reused": "bool",
    "clock_step": "bool",
    "retry_after_s": "float",
    "reply_timings": "text",
    "outcome": "text",
    "status": "int",
    "error": "text",
}

EVIDENCE: dict[str, str] = {
    "evidence_id": "text",
    "kind": "text",
    "signal": "text",
    "request_id": "text",
    "attempt": "int",
    "trace_id": "text",
    "span_id": "text",
    "parent_span_id": "text",
    "start_ns": "int",
    "end_ns": "int",
    "clock_id": "text",
    "window_start_ns": "int",
    "window_end_ns": "int",
    "value": "float",
    "lo": "float",
    "hi": "float",
    "unit": "text",
    "bucket_le": "list<double>",  # upper bounds, +Inf included: as many as counts
    "bucket_count": "list<int64>",
    "labels": "map",
    "replica": "text",
    "rank": "text",
    "role": "text",
    "stack": "text",
    "stack_version": "text",
    "source": "text",
    "foreign_name": "text",
    "foreign_value": "text",
    "grade": "text",
}

TABLES = {"requests": REQUESTS, "evidence": EVIDENCE}
#: What every part must have: the columns by which its rows are known.
KEYS = {"requests": ("request_id", "attempt"), "evidence": ("evidence_id",)}

#: Text columns with a value of its own in nearly every row: a dictionary would only cost.
UNIQUE_TEXTS = frozenset(
    {"request_id", "response_id", "trace_id", "span_id", "evidence_id", "reply_timings"}
)

#: Longer texts, in bytes, and maps of more entries are neither written nor read. What we take
#: from others is bounded far below where it comes in.
MAX_TEXT = 64 * 1024
MAX_MAP = 10_000
#: Items of a list: twice the events that a reply may have.
MAX_LIST = 2**22


def part_of(file: str) -> tuple[str, int] | None:
    """(writer, number) from the name of a part file; None for any other name."""
    name = _PART.fullmatch(file)
    return (name["writer"], int(name["number"])) if name else None


def open_of(file: str) -> str | None:
    """The writer from the name of an open file; None for any other name."""
    name = _OPEN.fullmatch(file)
    return name["writer"] if name else None
