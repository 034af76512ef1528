"""The requests of both arms as they stand in the run: columns for ``Twins``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution import reading
from latdiag.attribution.accounts import NAMES, Account, Rank, together
from latdiag.attribution.client_only import partition
from latdiag.attribution.combine import members_of
from latdiag.gate.explain import JOINT
from latdiag.gate.live.pairs import Course
from latdiag.gate.live.sending import UNPAIRED
from latdiag.gate.twins import MISSING, Ints, Mask, Twins
from latdiag.measurement import measure
from latdiag.measurement.streams import pieces, read_streams
from latdiag.model.components import COMPONENTS
from latdiag.model.records import Outcome
from latdiag.model.units import NS_PER_MS
from latdiag.stats.estimate import rank

if TYPE_CHECKING:
    from latdiag.attribution.parts import Parts
    from latdiag.attribution.reading import Reading
    from latdiag.measurement.streams import Gaps, Streams
    from latdiag.store.batch import Batch
    from latdiag.store.batch import Ints as Column
    from latdiag.store.run import Run

#: A request that left later than this met another load than its twin.
LATE_NS = 5 * NS_PER_MS
#: The quantile of a request's own gaps that its ITL is.
_GAP = 0.95
#: A kind of evidence explains if it divides so many of each arm's requests.
_ENOUGH = 0.8


class Rows:
    """Takes the rows of a run as they go by."""

    def __init__(self) -> None:
        self.columns: Sequence[str] = tuple(dict.fromkeys((*measure.COLUMNS, "request_id")))
        self._pieces: list[dict[str, NDArray[Any]]] = []

    def add(self, batch: Batch) -> None:
        for piece in pieces(batch):
            self._pieces.append(_columns(piece))

    def result(self) -> dict[str, NDArray[Any]]:
        """A column each, a row per request, in the order of reading; none without a request."""
        names = self._pieces[0] if self._pieces else ()
        return {name: np.concatenate([each[name] for each in self._pieces]) for name in names}


def _columns(batch: Batch) -> dict[str, NDArray[Any]]:
    streams = read_streams(batch)
    times = measure.of_requests(batch, streams)
    due, sent = batch.ints["due_ns"], batch.ints["sent_ns"]
    known = due.valid & sent.valid
    return {
        "number": np.array(
            [int(str(each)[-12:], 16) for each in batch.texts["request_id"]], dtype=np.int64
        ),
        "ok": (batch.texts["outcome"] == Outcome.OK.value).astype(bool),
        "stepped": batch.bools["clock_step"].astype(bool),
        "lag": np.where(known, sent.values - due.values, MISSING),
        "itl": _of_gaps(streams.itl),
        **{name: _plain(batch.ints[name]) for name in ("osl", "isl", "cached_tokens")},
        **{name: _plain(column) for name, column in times.items()},
        **_near(batch, streams, times),
    }


def _near(batch: Batch, streams: Streams, times: Mapping[str, Column]) -> dict[str, Ints]:
    """TTFT and TPOT also where a stamp was overwritten before it was read, which a busy client
    does to both arms alike: then the next one stands for it, at most a little late."""
    sent, tokens = batch.ints["sent_ns"], np.maximum(streams.tokens, batch.ints["osl"].values)
    begun = sent.valid & (streams.first > 0)
    later = tokens - streams.first_tokens
    several = begun & (streams.outputs > 1) & (later > 0)
    near = {
        "ttft": (begun, streams.first - sent.values),
        "tpot": (several, (streams.last - streams.first) // np.maximum(later, 1)),
    }
    return {
        name: np.where(times[name].valid, times[name].values, np.where(known, value, MISSING))
        for name, (known, value) in near.items()
    }


def _plain(column: Column) -> Ints:
    return np.where(column.valid, column.values, MISSING)


def _of_gaps(gaps: Gaps) -> Ints:
    """A quantile of each request's own gaps."""
    found = np.full(len(gaps.sizes), MISSING, dtype=np.int64)
    ends = np.cumsum(gaps.sizes)
    for row in np.flatnonzero(gaps.sizes):
        own = gaps.values[ends[row] - gaps.sizes[row] : ends[row]]
        found[row] = np.sort(own)[rank(len(own), _GAP) - 1]
    return found


def medians(columns: Mapping[str, NDArray[Any]], since: int) -> tuple[int | None, int | None]:
    """E2E of each arm's usable requests of no pair from number ``since`` on, ns."""
    if not columns:
        return None, None
    arms = columns["number"] % 2
    usable = columns["ok"] & (columns["e2e"] > 0) & (columns["number"] >= since)
    found = [columns["e2e"][usable & (arms == arm)] for arm in (0, 1)]
    base, candidate = (int(np.median(each)) if len(each) else None for each in found)
    return base, candidate


def twins_of(
    columns: Mapping[str, NDArray[Any]],
    course: Course,
    block: int,
    parts: Mapping[str, Ints] | None = None,
) -> Twins:
    """The twins of the pairs that ``course`` counts as measured, the first of them as pair 0."""
    number = columns["number"]
    whole, index = np.divmod(number, block)
    pair, arm = np.divmod(whole, 2)
    mine = (number < UNPAIRED) & (pair >= course.first) & (pair < course.done)
    pair = (pair - course.first)[mine]
    seconds = np.array(course.seconds, dtype=bool)[pair] if len(pair) else np.zeros(0, dtype=bool)
    cut = {name: column[mine] for name, column in columns.items()}
    return Twins(
        pair=pair,
        index=index[mine],
        arm=arm[mine],
        second=seconds == (arm[mine] == 1),
        times_ns={name: cut[name] for name in ("ttft", "tpot", "itl", "e2e")},
        tokens=cut["osl"],
        ok=cut["ok"],
        late=cut["lag"] > LATE_NS,
        stepped=cut["stepped"],
        lag_ns=cut["lag"],
        prompt=cut["isl"],
        cached=cut["cached_tokens"],
        parts_ns={name: column[mine] for name, column in (parts or {}).items()},
    )


def parts_of(read: Reading, arm: Ints, paired: Mask) -> tuple[dict[str, Ints], str]:
    """(Each request's time by component, what that rests on). ``arm``: of each row of the run;
    ``paired``: the rows that count. Empty where too few requests of an arm can be divided."""
    frame = read.digest.frame
    client = partition(frame)
    spoken = [each for each in read.accounts() if each.is_of_single_requests and each.parts]
    for parts, ranks in _tried(client, spoken):
        row = parts.row if parts.row is not None else np.zeros(0, dtype=np.int64)
        known = np.zeros(frame.n, dtype=bool)
        known[row] = True
        good = paired & frame.ok
        shares = [known[good & (arm == each)] for each in (0, 1)]
        if all(len(each) and each.mean() >= _ENOUGH for each in shares):
            columns = {}
            for name, column in parts.parts.items():
                own = _joint(name, parts, ranks == (Rank.CLIENT,))
                columns[own] = dense = np.full(frame.n, MISSING, dtype=np.int64)
                # Of what may be negative (unattributed) only MISSING itself has to be avoided.
                dense[row] = np.where(column == MISSING, 0, column)
            words = ", ".join(dict.fromkeys(NAMES[each] for each in ranks))
            return columns, words
    return {}, NAMES[Rank.CLIENT]


def _tried(client: Parts, spoken: Sequence[Account]) -> list[tuple[Parts, tuple[Rank, ...]]]:
    whole = Account(Rank.CLIENT, client)
    found = []
    if spoken:
        union = together([*spoken, whole])
        found.append((union.parts, union.ranks))
    return [*found, (client, (Rank.CLIENT,))]


def _joint(name: str, parts: Parts, alone: bool) -> str:
    """Its members in the order of time, as readers see them. ``alone``: no server said anything:
    then the network is known to the first hop, and there may be more of it behind, and servers
    that hand a request on to others before its first token."""
    members = members_of(parts, name)
    if alone and name == "network":
        return "network (first hop)"
    if alone and len(members) > 1:
        members = ("network", "interconnect", *members)
    return JOINT.join(each for each in COMPONENTS if each in members)


def read_rows(run: Run) -> dict[str, NDArray[Any]]:
    """The columns of a run, whatever state it is in."""
    rows = Rows()
    run.read(rows)
    return rows.result()


def read_all(run: Run) -> tuple[dict[str, NDArray[Any]], Reading]:
    """The same, and all that the evidence says."""
    rows = Rows()
    read = reading.read(run, (), rows)
    return rows.result(), read


def no_twins() -> Twins:
    """Of a run without a request."""
    none, never = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    return Twins(none, none, none, never, {}, none, never, never, never, none, none, none)
