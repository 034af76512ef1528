"""Random traces of the stacks that there are, and the requests that they are of: columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from latdiag.attribution.spans.columns import SCOPE, Spans
from latdiag.measurement.frame import Frame, joined
from latdiag.stacks import catalogue

MS = 1_000_000
STACKS = catalogue.stacks()
#: Names of the spans that servers send.
_SGLANG = (
    *("tokenize", "api_server_dispatch", "request_process", "prefill_waiting"),
    *("prefill_forward", "decode_waiting", "decode_forward", "prefill_transfer_kv_cache"),
    *("decode_transferred", "decode_bootstrap"),
)
_ROOTS = (" Req ab", "prefill Req ab", "decode Req ab")


def requests(n: int, random: np.random.Generator, kernel: bool = True) -> Frame:
    """``n`` answered requests, one after the other."""
    ids = np.array([f"{at:032x}" for at in range(n)], dtype=object)
    sent = np.arange(n, dtype=np.int64) * 50 * MS + random.integers(0, MS, n)
    begin = sent - random.integers(0, 2 * MS, n) * (random.random(n) < 0.5)
    first = sent + random.integers(0, 1500 * MS, n)
    last = first + random.integers(0, 1500 * MS, n)
    done = last + random.integers(0, MS, n)
    room = first - sent
    client = sent - begin + (room * random.random(n) * 0.1).astype(np.int64)
    network = (room * random.random(n) * 0.5).astype(np.int64)
    text = np.full(n, "s", dtype=object)
    return joined(
        [
            {
                "trace_id": ids,
                "span_id": np.full(n, "client", dtype=object),
                "request_id": np.array([f"r{at}" for at in range(n)], dtype=object),
                "response_id": np.array([f"cmpl-r{at}" for at in range(n)], dtype=object),
                "scenario": text,
                "clock_id": text,
                "begin": begin,
                "sent": sent,
                "first": first,
                "last": last,
                "done": done,
                "client": client,
                "network": network,
                "network_lo": network // 2,
                "network_hi": np.minimum(2 * network, room - (client - (sent - begin))),
                "delayed": random.random(n) < 0.2,
                "kernel": np.full(n, kernel),
            }
        ]
    )


def traces(n: int, random: np.random.Generator, skew_ns: int = 10**15) -> Spans:
    """Spans of ``n`` traces: one server or two, retries, missing parents, children that overflow
    or overlap, of no length, twice; each sender by a clock of its own."""
    rows: list[tuple[str, int, str, str, int, int, str]] = []
    count = random.integers(1, 9, n)
    kind = random.integers(0, 5, n)
    senders = np.array([f"{chr(97 + k)}{r}" for k in range(5) for r in range(2)])
    offset = dict(zip(senders, random.integers(-skew_ns, skew_ns, len(senders)), strict=True))
    for at in range(n):
        rows += _trace(at, int(kind[at]), int(count[at]), random, offset)
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 7
    name, trace, span, above, start, end, sender = columns
    return _spans(name, trace, span, above, start, end, sender, random)


def _trace(
    at: int, kind: int, count: int, random: np.random.Generator, offset: dict[Any, Any]
) -> list[tuple[str, int, str, str, int, int, str]]:
    found = []
    two = random.random() < 0.5
    names = {
        0: ["llm_request"],
        1: [str(random.choice(_ROOTS)), *map(str, random.choice(_SGLANG, count))],
        2: ["http-request", "kv_router.route_request", "handle_payload", "handle_payload"],
        3: ["ingress", "router a egress", "llm_request"],
        4: ["llm_request", "llm_request"],
    }[kind]
    base = at * 50 * MS
    for i, name in enumerate(names):
        server = chr(97 + kind) + str(int(two and i >= len(names) // 2))
        begin = base + int(random.integers(0, 200 * MS))
        length = int(random.integers(0, 600 * MS)) if random.random() < 0.9 else 0
        above = f"{at}-{int(random.integers(0, i))}" if i and random.random() < 0.8 else ""
        above = above or str(random.choice(["client", "lost"]))
        begin += int(offset[server])
        one = (name, at, f"{at}-{i}", above, begin, begin + length, server)
        found += [one, one] if random.random() < 0.05 else [one]
    return found


def _spans(
    name: Any, trace: Any, span: Any, above: Any, start: Any, end: Any, sender: Any,
    random: np.random.Generator,
) -> Spans:  # fmt: skip
    n = len(name)
    words, codes = np.unique(np.array(sender, dtype=str), return_inverse=True)
    # What is sent twice is the same twice.
    which = np.unique(np.array(span, dtype=str), return_inverse=True)[1]
    values = {}
    signals = {s.foreign for st in STACKS for s in st.signals if s.kind == "attribute"}
    for foreign in sorted(signals):
        drawn = random.random(n) * 0.7
        drawn[random.random(n) < 0.1] = np.nan
        values[foreign] = drawn[which] if n else drawn
    for rank in {rank for st in STACKS for rank in st.ranks}:
        values[rank] = np.full(n, np.nan)
    texts = {SCOPE: np.full(n, None, dtype=object)}
    for stack in STACKS:
        wanted = [key.attribute for key in stack.keys]
        wanted += [role.attribute[0] for role in stack.roles if role.attribute]
        wanted += [role.same for role in stack.roles if role.same]
        for each in wanted:
            texts[each] = np.full(n, None, dtype=object)
    tokens = np.where(random.random(n) < 0.5, "1", "64").astype(object)
    texts["gen_ai.usage.completion_tokens"] = tokens[which] if n else tokens
    none = np.full(n, -1, dtype=np.int64)
    return Spans(
        name=np.array(name, dtype=object),
        trace=np.array([f"{at:032x}" for at in trace], dtype=object),
        span=np.array(span, dtype=object),
        above=np.array(above, dtype=object),
        start=np.array(start, dtype=np.int64),
        end=np.array(end, dtype=np.int64),
        sender=codes.astype(np.int64) if n else none,
        stack=none,
        row=none,
        parent=none,
        lost=np.zeros(n, dtype=bool),
        signal=none,
        role=np.full(n, None, dtype=object),
        values=values,
        texts=texts,
        senders=tuple(words.tolist()),
        stacks=STACKS,
    )
