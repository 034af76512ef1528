"""What a row of the run says once, between the row that says it and the columns it goes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Scalars(NamedTuple):
    """What a row states once, under the names and in the units of the run's schema, but for the
    instants that depend on the clock series. ``tokens``: of each arrival, None where not known.
    """

    request_id: str
    attempt: int
    response_id: str | None
    trace_id: str
    span_id: str
    stage: str
    due_ns: int | None
    sent_ns: int
    dns_ns: int | None
    tcp_ns: int | None
    tls_ns: int | None
    written_ns: int | None
    reused: bool | None
    tokens: Sequence[int] | None
    isl: int | None
    osl: int | None
    isl_wanted: int | None
    osl_wanted: int | None
    cached_tokens: int | None
    token_source: str
    min_rtt_ns: int | None
    retransmits: int | None
    out_of_order: int | None
    resent_ns: int | None
    retry_ns: int | None
    retry_after_s: float | None
    reply_timings: str | None
    outcome: str
    status: int | None
    error: str | None
