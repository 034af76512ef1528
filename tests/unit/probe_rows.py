"""Rows of a probe made by hand, as ``observe`` would hand them out; times in ms where floats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from latdiag.measurement.observations import Observations

MS = 1_000_000
#: The client's own work on a request, the round trip, and from the last token to the end.
CLIENT, TRIP, REST = 100_000, 200_000, 50_000


@dataclass(frozen=True, slots=True)
class Reply:
    """One request. ``arrivals``: instants, ns; none: it failed, or was a GET (``answer``)."""

    stage: str
    isl: int
    begin: int
    arrivals: tuple[int, ...] = ()
    scenario: str = ""
    brought: tuple[int, ...] | None = None
    status: int = 200
    answer: int = -1
    wait: int = -1

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.brought or (1,) * len(self.arrivals)


def seen(replies: Iterable[Reply]) -> Observations:
    """The columns of these requests, in the order in which they began."""
    rows = sorted(replies, key=lambda r: (r.begin, r.isl, r.arrivals, r.stage, r.answer, r.status))

    def ints(values: Iterable[int]) -> Any:
        return np.array(list(values), dtype=np.int64)

    usable = np.array([bool(row.arrivals) for row in rows], dtype=bool)
    begin = ints(row.begin for row in rows)
    first = ints(row.arrivals[0] if row.arrivals else 0 for row in rows)
    last = ints(row.arrivals[-1] if row.arrivals else 0 for row in rows)
    client, network = np.where(usable, CLIENT, 0), np.where(usable, TRIP, 0)
    flat = ints(at for row in rows for at in row.arrivals)
    return Observations(
        row=np.arange(len(rows)),
        stage=np.array([row.stage for row in rows], dtype=object),
        scenario=np.array([row.scenario for row in rows], dtype=object),
        ok=np.array([r.status == 200 and bool(r.arrivals or r.answer >= 0) for r in rows], bool),
        status=ints(row.status for row in rows),
        usable=usable,
        isl=ints(row.isl for row in rows),
        osl=ints(sum(row.tokens) for row in rows),
        begin=begin,
        sent=begin,
        first=first,
        last=last,
        done=np.where(usable, last + REST, begin),
        client=client,
        network=network,
        network_lo=network,
        network_hi=network,
        server=np.where(usable, first - begin - client - network, 0),
        delayed=np.zeros(len(rows), dtype=bool),
        answer=ints(row.answer for row in rows),
        offsets=np.concatenate(([0], np.cumsum([len(r.arrivals) for r in rows]))).astype(np.int64),
        arrivals=flat,
        brought=ints(n for row in rows for n in row.tokens).astype(float),
        exact=np.ones(len(flat), dtype=bool),
        shed=np.array([row.status in (429, 503) for row in rows], dtype=bool),
        wait=ints(row.wait for row in rows),
    )


def reply(
    stage: str, isl: int, at_ms: float, server_ms: float, gaps_ms: Sequence[float], **more: Any
) -> Reply:
    """A request that begins at ``at_ms``; its first token takes ``server_ms`` behind the hop."""
    begin = round(at_ms * MS)
    first = begin + CLIENT + TRIP + round(server_ms * MS)
    arrivals = first + np.concatenate(([0.0], np.cumsum(gaps_ms))) * MS
    return Reply(stage, isl, begin, tuple(np.rint(arrivals).astype(int).tolist()), **more)


def gets(answers_ms: Iterable[float]) -> list[Reply]:
    return [
        Reply("S1", 0, place * MS, scenario="get", answer=round(answer * MS))
        for place, answer in enumerate(answers_ms)
    ]


def refusals(answers_ms: Iterable[tuple[int, float]], status: int = 400) -> list[Reply]:
    """POSTs that were refused: (input length, answer)."""
    return [
        Reply("S1", isl, (500 + n) * MS, scenario="refused", status=status, answer=round(a * MS))
        for n, (isl, a) in enumerate(answers_ms)
    ]


_STAGES = ("S1", "warmup", "S2", "S3", "S5", "S6", "S8", "S10")


@st.composite
def any_replies(draw: st.DrawFn, most: int = 25) -> list[Reply]:
    """Requests of any stage with any times, nonsense among them; some teach laws, some do not."""
    found = []
    for place in range(draw(st.integers(0, most))):
        stage = draw(st.sampled_from(_STAGES))
        begin = (0 if stage in ("S6", "S8") else place) * 20 * MS
        if stage == "S1":
            scenario = draw(st.sampled_from(["get", "refused"]))
            answer = draw(st.integers(-1, 80 * MS))
            status = draw(st.sampled_from([200, 400, 422, 404]))
            isl = 0 if scenario == "get" else draw(st.sampled_from([32, 512, 1024]))
            found.append(Reply(stage, isl, begin, (), scenario, None, status, answer))
            continue
        isl = draw(st.sampled_from([1, 32, 100, 512, 1024, 4096]))
        gaps = draw(st.lists(st.floats(0, 300), max_size=20))
        server = draw(st.floats(0, 2000))
        segment = f"segment-{draw(st.integers(1, 3))}" if stage == "S10" else ""
        made = reply(stage, isl, begin / MS, server, gaps, scenario=segment)
        found.append(made if draw(st.integers(0, 9)) else Reply(stage, isl, begin, status=500))
    return found
