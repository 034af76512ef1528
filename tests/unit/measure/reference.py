"""A slow ``measure``: one row at a time, in words as close to the definitions as can be."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from latdiag.model.records import ANSWER_KINDS, OUTPUT_KINDS, Kind

from .rows import Row


@dataclass
class Slow:
    values: dict[str, list[int]] = field(default_factory=dict)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    verdicts: list[bool | None] = field(default_factory=list)

    def put(self, name: str, value: int) -> None:
        self.values.setdefault(name, []).append(value)


def slow_rows(rows: Sequence[Row], bounds: dict[str, int]) -> Slow:
    slow = Slow()
    for row in rows:
        slow_row(row, slow, bounds)
    return slow


def outputs_of(
    row: Row, wanted: Sequence[int] = OUTPUT_KINDS
) -> list[tuple[int, int | None, bool]]:
    """(stamp, tokens or None, censored) of each arrival whose kind is wanted."""
    found = []
    for i, stamp in enumerate(row.arrivals_ns or []):
        kind = row.kinds[i] if row.kinds is not None else Kind.OTHER
        if kind in wanted:
            tokens = row.tokens[i] if row.tokens is not None else None
            found.append((stamp, tokens, row.censored[i] if row.censored is not None else False))
    return found


def slow_row(row: Row, slow: Slow, bounds: dict[str, int]) -> None:
    ok = row.outcome == "ok"
    out, ans = outputs_of(row), outputs_of(row, ANSWER_KINDS)
    known: dict[str, tuple[int, bool]] = {}  # value, whether it is only an upper bound
    never: set[str] = set()
    for name, start, end in (
        ("ttft", row.sent_ns, out),
        ("ttft_from_due", row.due_ns, out),
        ("ttft_wire", row.wire_ns, out),
        ("ttft_answer", row.sent_ns, ans),
    ):
        if not end:
            never.add(name)
        elif start is not None:
            known[name] = (end[0][0] - start, end[0][2])
    if ok and row.done_ns is not None:
        for name, start in (("e2e", row.sent_ns), ("response_time", row.due_ns)):
            if start is not None:
                known[name] = (row.done_ns - start, False)
    if row.due_ns is not None and row.sent_ns is not None:
        known["schedule_lag"] = (row.sent_ns - row.due_ns, False)
    unbreakable = False
    if ok and row.osl is not None:
        first_tokens = out[0][1] if out and out[0][1] is not None else 1
        told = [brought for _, brought, _ in out if brought is not None]
        later = (sum(told) if told else row.osl) - first_tokens
        if row.osl >= 2 and len(out) >= 2 and later > 0:
            span = out[-1][0] - out[0][0]
            if not out[0][2]:
                known["tpot"] = ((span + later // 2) // later, out[-1][2])
        else:
            unbreakable = True
    for name, (value, bound) in known.items():
        if row.clock_step and name != "schedule_lag":
            slow.left_out[name, "clock_step"] += 1
        elif bound:
            slow.left_out[name, "censored"] += 1
        else:
            slow.put(name, value)
    slow_gaps(row, out, slow)
    slow.verdicts.append(slow_verdict(row, ok, known, never, unbreakable, bounds))


def slow_gaps(row: Row, out: list[tuple[int, int | None, bool]], slow: Slow) -> None:
    for (before, _, doubt), (after, tokens, doubt_too) in itertools.pairwise(out):
        reason = "clock_step" if row.clock_step else "censored" if doubt or doubt_too else ""
        if reason:
            slow.left_out["icl", reason] += 1
            slow.left_out["itl", reason] += 1
            continue
        slow.put("icl", after - before)
        if tokens == 1:
            slow.put("itl", after - before)
        else:
            why = "tokens_unknown" if tokens is None else "multi_token" if tokens else "zero_token"
            slow.left_out["itl", why] += 1


def slow_verdict(
    row: Row,
    ok: bool,
    known: dict[str, tuple[int, bool]],
    never: set[str],
    unbreakable: bool,
    bounds: dict[str, int],
) -> bool | None:
    """True, False, or None: whether the row keeps all of ``bounds`` (metric -> less than)."""
    if not ok:
        return False
    told: list[bool | None] = []
    for name, limit in bounds.items():
        if name in never:
            told.append(False)
        elif name == "tpot" and unbreakable:
            told.append(True)
        elif name not in known or (row.clock_step and name != "schedule_lag"):
            told.append(None)
        elif known[name][0] < limit:
            told.append(True)
        else:
            told.append(None if known[name][1] else False)
    return False if False in told else None if None in told else True
