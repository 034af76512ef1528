"""The least that a gateway took: what it splits, what it contradicts, and what it leaves alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.accounts import Account, Rank, together
from latdiag.attribution.bounds import bounded
from latdiag.attribution.parts import Parts, Source
from latdiag.attribution.replies import overheads, source
from latdiag.diagnosis.breakdown import breakdown, leads
from latdiag.measurement.frame import Frame, joined

from .test_replies import batch

MS = 1_000_000
N = 40
LEAST = Source("B", "at least what its headers state")


def parts_of(**ms: float) -> Parts:
    """Parts of N equal requests. A class of several is written ``gateway__queue``."""
    columns: dict[str, Any] = {}
    sources: dict[str, Source] = {"unattributed": Source("A", "nothing")}
    for name, value in ms.items():
        members = tuple(name.split("__"))
        columns[members[0]] = np.full(N, round(value * MS))
        merged = members if len(members) > 1 else ()
        sources[members[0]] = Source("E" if merged else "C", f"laws of {name}", merged)
    total = sum(columns.values())
    late = {n: columns[n] for n in ("decode", "interconnect") if n in columns}
    early = {n: c for n, c in columns.items() if n not in late}
    return Parts(
        total, sum(early.values()), {**columns, "unattributed": total * 0},
        np.zeros(N, dtype=bool), 0, sources, within={"client_ttft": early, "decode": late},
        row=np.arange(N),
    )  # fmt: skip


def least_of(parts: Parts, ms: float) -> Parts:
    gateway = np.full(N, round(ms * MS))
    columns = {"gateway": gateway, "unattributed": parts.total - gateway}
    sources = {"gateway": LEAST, "unattributed": Source("A", "nothing")}
    return Parts(
        parts.total, parts.ttft, columns, parts.delayed, 0, sources,
        within={"client_ttft": dict(columns), "decode": {}}, row=np.arange(N),
    )  # fmt: skip


def ms_of(parts: Parts) -> dict[str, float]:
    return {
        name: float(column.mean()) / MS for name, column in parts.parts.items() if column.any()
    }


def test_a_gateway_that_leads_its_class_is_told_apart() -> None:
    whole = parts_of(client=1, network=1, gateway__frontend__queue=200, prefill=20, decode=60)
    found = bounded(whole, least_of(whole, 150))
    assert found.used and not found.against
    assert ms_of(found.parts) == {
        "client": 1, "network": 1, "gateway": 150, "frontend": 50, "prefill": 20, "decode": 60,
    }  # fmt: skip
    mean = breakdown(found.parts, "client_e2e", "mean")
    assert mean is not None
    gateway, rest = mean.shares["gateway"], mean.shares["frontend"]
    # What is left of the class may be the gateway's too, and nothing of its own may be less.
    assert (gateway.lo, gateway.hi) == pytest.approx((150 / 282, 200 / 282))
    assert (rest.lo, rest.hi) == pytest.approx((0.0, 50 / 282))
    assert rest.members == ("frontend", "queue") and rest.grade == "E"
    assert gateway.grade == "B" and leads(found.parts, "gateway", "mean") == 1.0


def test_a_class_that_it_need_not_lead_stays_whole() -> None:
    whole = parts_of(client=1, gateway__frontend__queue=200, decode=60)
    assert not bounded(whole, least_of(whole, 90)).used
    alone = parts_of(client=1, gateway=200, queue=20, decode=60)
    assert not bounded(alone, least_of(alone, 150)).used


def test_more_than_other_evidence_leaves_it_merges_what_it_may_have_taken_from() -> None:
    whole = parts_of(client=1, network=1, gateway=10, queue=180, prefill=20, decode=60)
    found = bounded(whole, least_of(whole, 120))
    [against] = found.against
    assert against.members == ("gateway",)
    assert (against.strong_ns, against.weak_ns) == (120 * MS * N, 10 * MS * N)
    assert ms_of(found.parts) == {
        "client": 1,
        "network": 1,
        "gateway": 120,
        "queue": 90,
        "decode": 60,
    }
    assert found.parts.sources["queue"].members == ("queue", "prefill")
    assert ms_of_within(found.parts) == {"client": 1, "network": 1, "gateway": 120, "queue": 90}
    both = together([Account(Rank.LAWS, whole), Account(Rank.LEAST, least_of(whole, 120))])
    [said] = both.caveats
    assert said.code == "LD430" and "at least 120 ms, not 4.56 to 15.4 ms" in said.text
    assert both.ranks == (Rank.LAWS, Rank.LEAST)


def ms_of_within(parts: Parts) -> dict[str, float]:
    inside = parts.inside("client_ttft")
    return {name: float(c.mean()) / MS for name, c in inside.items() if c.any()}


def test_more_than_there_is_states_something_else() -> None:
    whole = parts_of(client=1, queue=30, prefill=20, decode=200)
    assert not bounded(whole, least_of(whole, 120)).used


def test_within_its_doubt_it_contradicts_nothing() -> None:
    whole = parts_of(client=1, gateway=10, queue=180, decode=60)
    slack = {"gateway": (np.zeros(N), np.full(N, 200.0 * MS))}
    from dataclasses import replace

    assert not bounded(replace(whole, slack=slack), least_of(whole, 120)).against


def test_of_few_requests_it_says_nothing_of_all() -> None:
    whole = parts_of(client=1, gateway__queue=200, decode=60)
    few = least_of(whole, 150)
    from dataclasses import replace

    few = replace(few, row=np.where(np.arange(N) < N // 2, np.arange(N), 1000 + np.arange(N)))
    assert bounded(whole, few).parts is whole


@given(
    st.dictionaries(
        st.sampled_from(["gateway", "frontend", "queue", "prefill", "decode", "network"]),
        st.integers(1, 900), min_size=1,
    ),
    st.sampled_from([(), ("gateway", "queue"), ("frontend", "gateway", "prefill")]),
    st.integers(0, 1500),
)  # fmt: skip
def test_all_adds_up_whatever_is_stated(
    ms: dict[str, int], together_: tuple[str, ...], least: int
) -> None:
    order = ("network", "gateway", "frontend", "queue", "prefill", "decode")
    merged = [n for n in order if n in together_]
    given = {n: float(ms[n]) for n in order if n in ms and n not in merged}
    if merged:
        given["__".join(merged)] = float(sum(ms.get(n, 1) for n in merged))
    whole = parts_of(client=1, **given)
    found = bounded(whole, least_of(whole, least)).parts
    assert (sum(found.parts.values()) == whole.total).all()
    assert (sum(found.inside("client_ttft").values()) == whole.ttft).all()
    members = [m for n, s in found.sources.items() if n in found.parts for m in s.members or (n,)]
    assert len(members) == len(set(members))
    mean = breakdown(found, "client_e2e", "mean")
    assert mean is not None and all(
        s.lo is None or s.lo <= (s.share or 0) + 1e-9 for s in mean.shares.values()
    )


# ---------------------------------------------------------------------- from headers
def frame(headers: float, first: float, n: int = 30) -> Frame:
    """Requests of 900 ms; times in ms from their beginning."""
    begin = np.arange(n, dtype=np.int64) * 1000 * MS
    return joined([
        {
            "begin": begin, "sent": begin, "headers": begin + round(headers * MS),
            "first": begin + round(first * MS), "last": begin + 880 * MS, "done": begin + 900 * MS,
            "client": np.full(n, MS), "network": np.full(n, MS), "network_hi": np.full(n, 2 * MS),
            "kernel": np.ones(n, dtype=bool), "scenario": np.full(n, "s", dtype=object),
        }
    ])  # fmt: skip


def account(header: str, value: str | None, seen: Frame) -> Account | None:
    reader = source.reader()
    text = None if value is None else json.dumps({header: value})
    reader.add(batch([(text, 900)] * seen.n))
    return overheads.account(reader, seen)


def least(found: Account | None) -> float:
    assert found is not None and found.parts is not None and found.rank is Rank.LEAST
    return float(found.parts.parts["gateway"].mean()) / MS


def test_what_the_client_waited_for_headers_beyond_the_upstream_is_before_envoy_asked() -> None:
    found = account("x-envoy-upstream-service-time", "21", frame(275, 340))
    # Less its own time, the first hop at most, and the millisecond that is cut off.
    assert least(found) == 275 - 1 - 2 - 21 - 1
    assert found is not None and found.stacks == ("envoy",)


def test_headers_that_come_with_the_first_token_may_have_been_held_back_for_it() -> None:
    assert account("x-envoy-upstream-service-time", "21", frame(339.5, 340)) is None
    assert account("x-kong-upstream-latency", "21", frame(275, 340)) is None


def test_an_upstream_that_took_all_of_it_leaves_nothing() -> None:
    assert least(account("x-envoy-upstream-service-time", "280", frame(275, 340))) == 0


@pytest.mark.parametrize("header", ["x-litellm-overhead-duration-ms", "x-kong-proxy-latency"])
def test_own_work_is_the_least_and_never_more_than_there_is(header: str) -> None:
    assert least(account(header, "90", frame(275, 340))) == 90
    assert least(account(header, "600", frame(275, 340))) == 338
    assert account(header, "soon", frame(275, 340)) is None
    assert account(header, None, frame(275, 340)) is None
