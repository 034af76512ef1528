"""The words in a run's columns.

Values are stored: never renumber a ``Kind``, never rename a member of the string enums.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Kind(IntEnum):
    """What one arrival of a stream bore."""

    OTHER = 0
    ROLE = 1
    REASONING = 2
    ANSWER = 3
    TOOL = 4
    USAGE = 5
    REFUSAL = 6
    ERROR = 7


#: Kinds that bear output tokens: the first of them ends TTFT, their gaps are ITL.
OUTPUT_KINDS = (Kind.REASONING, Kind.ANSWER, Kind.TOOL, Kind.REFUSAL)
#: Output kinds that are not reasoning: the first of them ends ``ttft_answer``.
ANSWER_KINDS = (Kind.ANSWER, Kind.TOOL, Kind.REFUSAL)


class Outcome(StrEnum):
    """How an attempt ended. ``OK`` is the only success."""

    OK = "ok"
    HTTP_ERROR = "http_error"
    RATE_LIMITED = "rate_limited"
    TIMEOUT = "timeout"
    CUT = "cut"
    RESET = "reset"
    PROTOCOL = "protocol"
    REFUSED = "refused"
    DNS = "dns"
    TLS = "tls"
    CANCELLED = "cancelled"
    CUT_BY_CLIENT = "cut_by_client"


class TokenSource(StrEnum):
    """Where the token counts of a row come from, best first."""

    IDS = "ids"
    USAGE_CONTINUOUS = "usage_continuous"
    USAGE = "usage"
    TOKENIZER = "tokenizer"
    CHUNKS = "chunks"


class StampSource(StrEnum):
    """Who read the clock for ``arrivals_ns``."""

    KERNEL = "kernel"
    TAP = "tap"
    USER = "user"
