"""Every metric of the table from the rows of a run, in one pass over column batches.

Memory does not grow with the tokens: values are exact up to a limit and counted in a histogram
beyond it (see ``stats.sample``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.measurement import Counts, Lengths, Measurement
from latdiag.measurement.slo import Slo
from latdiag.measurement.streams import Streams, pieces, read_streams
from latdiag.model.metrics import METRICS, Metric
from latdiag.model.records import Outcome
from latdiag.model.units import NS_PER_S, percentile_name
from latdiag.stats.estimate import Estimate, refusal
from latdiag.stats.sample import Sample
from latdiag.store.batch import Batch, Ints

#: What ``measure`` reads; ask the store for these.
COLUMNS = (
    "due_ns",
    "sent_ns",
    "wire_ns",
    "done_ns",
    "isl",
    "osl",
    "isl_wanted",
    "osl_wanted",
    "cached_tokens",
    "clock_step",
    "clock_id",
    "outcome",
    "token_source",
    "stamp_source",
    "arrivals_ns",
    "tokens",
    "kinds",
    "censored",
)
QUANTILES = (0.5, 0.9, 0.95, 0.99)

_UNKNOWN = "unknown"
#: Instants that come from a kernel stamp or may: a step of the clock moves them.
_STEPPED = frozenset({"wire", "first_output", "first_answer", "done"})
_INTERVALS = tuple(m for m in METRICS if m.start is not None)
#: What is stated of single requests, but for TPOT.
_ALONE = ("ttft", "e2e")


@dataclass(frozen=True, slots=True)
class _Values:
    """One per-request metric for n rows; ``values`` hold where ``known``.

    ``void``: spoilt by a step of the clock. ``bound``: the value is only an upper bound.
    ``kept_anyway``: there is no value because the metric cannot be broken (no TPOT of one token).
    ``never``: there is no value because the awaited event did not come.
    """

    values: NDArray[np.int64]
    known: NDArray[np.bool_]
    void: NDArray[np.bool_]
    bound: NDArray[np.bool_]
    kept_anyway: NDArray[np.bool_]
    never: NDArray[np.bool_]

    @property
    def sound(self) -> NDArray[np.bool_]:
        return self.known & ~self.void & ~self.bound

    @property
    def left_out(self) -> dict[str, int]:
        void = self.known & self.void
        censored = self.known & self.bound & ~self.void
        return {"clock_step": int(void.sum()), "censored": int(censored.sum())}


def measure(
    batches: Iterable[Batch],
    slos: Sequence[Slo] = (),
    quantiles: Sequence[float] = QUANTILES,
) -> Measurement:
    """All metrics of the rows in ``batches`` (with ``COLUMNS``); any split of the rows into
    batches gives the same. Percentiles that ``slos`` name are computed besides ``quantiles``."""
    tally = Tally(slos, quantiles)
    for batch in batches:
        for piece in pieces(batch):
            tally.add(piece)
    return tally.result()


def of_requests(batch: Batch, streams: Streams) -> dict[str, Ints]:
    """``ttft``, ``tpot`` and ``e2e`` of each row, ns; valid where they count in the statistics."""
    ok = batch.texts["outcome"] == Outcome.OK.value
    found = {m.name: _interval(m, batch, streams, ok) for m in _INTERVALS if m.name in _ALONE}
    found["tpot"] = _tpot(batch, streams, ok)
    return {name: Ints(column.values, column.sound) for name, column in found.items()}


class Tally:
    """The running state of one pass over the rows."""

    def __init__(self, slos: Sequence[Slo] = (), quantiles: Sequence[float] = QUANTILES) -> None:
        self.counts = Counts()
        self.samples = {m.name: Sample() for m in METRICS if m.per != "run"}
        self.samples["itl"] = self.samples["icl"]
        self._kept = Sample()
        self._failed = Sample()
        self._slos = tuple(slo for slo in slos if slo.per_request)
        self._stated = tuple(slos)
        self._quantiles = tuple(quantiles)
        self._anchors: dict[str, int] = {}
        #: by clock and run: its first instant of sending, and its last end
        self._first: dict[tuple[str, int], int] = {}
        self._last: dict[tuple[str, int], int] = {}

    def add(self, batch: Batch, streams: Streams | None = None) -> None:
        """Take in some rows; ``pieces`` gives them in the size that is fastest. ``streams``: those
        of the batch, where they were read already."""
        streams = read_streams(batch) if streams is None else streams
        ok = batch.texts["outcome"] == Outcome.OK.value
        order = self._order(batch)
        self._count(batch, streams, ok)
        found = {m.name: _interval(m, batch, streams, ok) for m in _INTERVALS}
        found["tpot"] = _tpot(batch, streams, ok)
        for name, column in found.items():
            self._leave_out(name, column.left_out)
            sound = column.sound
            self.samples[name].add(column.values[sound], sound, order)
        self._add_gaps(streams, order)
        self._failed.add((~ok).view(np.int8), np.ones(batch.n, dtype=np.bool_), order)
        if self._slos:
            self._judge(found, ok, order)

    def _add_gaps(self, streams: Streams, order: NDArray[np.int64]) -> None:
        """ITL and ICL are one sample until a chunk brings other than one token: half the work."""
        samples, itl, icl = self.samples, streams.itl, streams.icl
        if samples["itl"] is samples["icl"] and itl.values is not icl.values:
            samples["itl"] = samples["icl"].copy()
        samples["icl"].add(icl.values, icl.sizes, order)
        if samples["itl"] is not samples["icl"]:
            samples["itl"].add(itl.values, itl.sizes, order)
        self._leave_out("itl", itl.left_out)
        self._leave_out("icl", icl.left_out)

    def _order(self, batch: Batch) -> NDArray[np.int64]:
        """Each row's place in time: sent, from the first row of its clock (0 where never sent).
        Notes the span of each clock."""
        sent, done = batch.ints["sent_ns"], batch.ints["done_ns"]
        order = np.zeros(batch.n, dtype=np.int64)
        clocks = batch.texts["clock_id"]
        for clock in set(clocks.tolist()):
            of = clocks == clock
            name = _UNKNOWN if clock is None else str(clock)
            key = (name, batch.run)
            starts = sent.values[of & sent.valid]
            ends = done.values[of & done.valid]
            if starts.size:
                anchor = self._anchors.setdefault(name, int(starts[0]))
                order[of & sent.valid] = starts - anchor
                first = int(starts.min())
                self._first[key] = min(self._first.get(key, first), first)
            if ends.size:
                last = int(ends.max())
                self._last[key] = max(self._last.get(key, last), last)
        return order

    def _count(self, batch: Batch, streams: Streams, ok: NDArray[np.bool_]) -> None:
        counts, ints = self.counts, batch.ints
        good = int(ok.sum())
        counts.requests += batch.n
        counts.ok += good
        if good < batch.n:
            _add_up(counts.failed, _tallied(batch.texts["outcome"][~ok]))
        _add_up(counts.token_source, _tallied(batch.texts["token_source"]))
        _add_up(counts.stamp_source, _tallied(batch.texts["stamp_source"]))
        counts.output_arrivals += int(streams.outputs.sum())
        counts.censored_arrivals += streams.censored_arrivals
        counts.multi_token_arrivals += streams.multi_token_arrivals
        counts.zero_token_arrivals += streams.zero_token_arrivals
        unknown = ~batch.lists["tokens"].valid & (streams.outputs > 0)
        counts.tokens_unknown += int(unknown.sum())
        counts.clock_step += int(batch.bools["clock_step"].sum())
        _compare(counts.isl, ints["isl"], ints["isl_wanted"])
        _compare(counts.osl, ints["osl"], ints["osl_wanted"])
        counts.cached_rows += int(ints["cached_tokens"].valid.sum())
        counts.cached_tokens += _total(ints["cached_tokens"], ints["cached_tokens"].valid)
        counts.output_tokens_ok += _total(ints["osl"], ok & ints["osl"].valid)
        counts.osl_unknown_ok += int((ok & ~ints["osl"].valid).sum())

    def _leave_out(self, name: str, reasons: Mapping[str, int]) -> None:
        for why, count in reasons.items():
            if count:
                _add_up(self.counts.left_out.setdefault(name, {}), {why: count})

    def _judge(
        self,
        found: Mapping[str, _Values],
        ok: NDArray[np.bool_],
        order: NDArray[np.int64],
    ) -> None:
        """Which rows keep all per-request objectives, where that can be told."""
        kept = ok.copy()
        missed = ~ok
        for slo in self._slos:
            column = found[slo.metric.name]
            holds = column.known & slo.holds_for(column.values)
            sure = column.known & ~column.void
            kept &= (holds & sure) | column.kept_anyway
            missed |= (sure & ~column.bound & ~holds) | column.never
        decided = kept | missed
        self.counts.undecided += int(np.count_nonzero(~decided))
        # A row that failed is missed, whatever its columns say.
        self._kept.add((kept & ~missed)[decided].view(np.int8), decided, order)

    def result(self) -> Measurement:
        """Everything so far as a measurement."""
        self.counts.clocks = len(self._anchors)
        span = self._span()
        statistics = {m.name: self._statistics(m) for m in METRICS if m.per != "run"}
        return Measurement(statistics, self._totals(span), self.counts, span)

    def _span(self) -> int:
        """ns that the runs on one clock took, on the clock with the most; the pauses between
        runs are of none of them."""
        spans: dict[str, list[tuple[int, int]]] = {}
        for key, first in self._first.items():
            if key in self._last:
                spans.setdefault(key[0], []).append((first, self._last[key]))
        return max(map(_length, spans.values()), default=0)

    def _statistics(self, of: Metric) -> dict[str, Estimate]:
        named = {s.quantile for s in self._stated if s.metric == of and s.quantile is not None}
        wanted = sorted({*self._quantiles, *named})
        names = [*(percentile_name(q) for q in wanted), "mean"]
        sample = self.samples[of.name]
        if not sample.n:
            return dict.fromkeys(names, refusal(self._why_none(of)))
        return dict(zip(names, [*sample.quantiles(wanted), sample.mean()], strict=True))

    def _why_none(self, of: Metric) -> str:
        left_out = self.counts.left_out.get(of.name, {})
        if not self.counts.requests:
            return "no requests"
        if of.start == "due":
            return "no request has a due time (closed loop)"
        if of.start == "wire":
            return "no request has a kernel transmit stamp"
        if "tokens_unknown" in left_out:
            return "the server did not say how many tokens a chunk holds"
        if left_out:
            reasons = ", ".join(f"{n} {why}" for why, n in sorted(left_out.items()))
            return f"all are left out: {reasons}"
        return "no samples"

    def _totals(self, span: int) -> dict[str, Estimate]:
        """The metrics of the whole run."""
        counts = self.counts
        tokens = _rate(counts.output_tokens_ok, counts.ok - counts.osl_unknown_ok, span)
        if counts.osl_unknown_ok and tokens.value is not None:
            method = f"a lower bound: {counts.osl_unknown_ok} requests do not state their tokens"
            tokens = Estimate(tokens.value, None, None, tokens.n, tokens.n, method)
        attainment = self._attainment()
        return {
            "output_throughput": tokens,
            "request_rate": _rate(counts.ok, counts.ok, span),
            "goodput": _goodput(attainment, span),
            "slo_attainment": attainment,
            "errors": self._failed.share(),
        }

    def _attainment(self) -> Estimate:
        if not self._slos:
            return refusal("no SLO on a per-request metric was given")
        if not self._kept.n and self.counts.requests:
            return refusal("it is not known for any request whether it met the SLOs")
        return self._kept.share()


def _length(spans: Sequence[tuple[int, int]]) -> int:
    """Of what any of them covers."""
    whole, until = 0, None
    for first, last in sorted(spans):
        begin = first if until is None else max(first, until)
        whole += max(0, last - begin)
        until = last if until is None else max(until, last)
    return whole


def _instant(name: str, batch: Batch, streams: Streams) -> Ints:
    if name == "first_output":
        return Ints(streams.first, streams.outputs > 0)
    if name == "first_answer":
        return Ints(streams.answer, streams.has_answer)
    return batch.ints[f"{name}_ns"]


def _interval(of: Metric, batch: Batch, streams: Streams, ok: NDArray[np.bool_]) -> _Values:
    """A metric that is a difference of two instants."""
    nowhere = np.zeros(batch.n, dtype=np.bool_)
    start = _instant(of.start or "", batch, streams)
    end = _instant(of.end or "", batch, streams)
    known = start.valid & end.valid
    bound = never = nowhere
    if of.end == "first_output":
        bound, never = streams.first_censored, ok & ~end.valid
    elif of.end == "first_answer":
        bound, never = streams.answer_censored, ok & ~end.valid
    void = batch.bools["clock_step"] if {of.start, of.end} & _STEPPED else nowhere
    if of.ok_only:
        known = known & ok
    return _Values(end.values - start.values, known, void, bound, nowhere, never)


def _tpot(batch: Batch, streams: Streams, ok: NDArray[np.bool_]) -> _Values:
    """Rounded to whole nanoseconds."""
    osl = batch.ints["osl"]
    later = np.where(batch.lists["tokens"].valid, streams.tokens, osl.values)
    later = later - streams.first_tokens
    defined = osl.valid & (osl.values >= 2) & (streams.outputs >= 2) & (later > 0)
    known = ok & defined
    divisor = np.where(known, later, 1)
    values = (streams.last - streams.first + divisor // 2) // divisor
    nowhere = np.zeros(batch.n, dtype=np.bool_)
    kept_anyway = ok & osl.valid & ~defined
    # With an overwritten first stamp the true value is larger, with a last one smaller.
    known = known & ~streams.first_censored
    bound = streams.last_censored
    return _Values(values, known, batch.bools["clock_step"], bound, kept_anyway, nowhere)


def _rate(total: int, n: int, span: int) -> Estimate:
    if not n:
        return refusal("no request succeeded with a known count")
    if span <= 0:
        return refusal("the run has no duration", n)
    return Estimate(
        total * NS_PER_S / span,
        None,
        None,
        n,
        n,
        "total over the run; a single run has no interval",
    )


def _goodput(attainment: Estimate, span: int) -> Estimate:
    """The attainment and its interval, times the decided requests per second."""
    if attainment.value is None or attainment.lo is None or attainment.hi is None:
        return attainment
    if span <= 0:
        return refusal("the run has no duration", attainment.n)
    rate = attainment.n * NS_PER_S / span
    return Estimate(
        attainment.value * rate,
        attainment.lo * rate,
        attainment.hi * rate,
        attainment.n,
        attainment.n_effective,
        "SLO attainment times decided requests per second",
    )


def _compare(lengths: Lengths, got: Ints, wanted: Ints) -> None:
    both = got.valid & wanted.valid
    lengths.rows += int(got.valid.sum())
    lengths.got += _total(got, got.valid)
    lengths.compared += int(both.sum())
    lengths.compared_wanted += _total(wanted, both)
    lengths.compared_got += _total(got, both)
    lengths.unlike += int((both & (got.values != wanted.values)).sum())


def _total(column: Ints, rows: NDArray[np.bool_]) -> int:
    return int(column.values[rows].sum())


def _tallied(texts: NDArray[np.object_]) -> dict[str, int]:
    # A Counter over the list is ten times faster than np.unique, which sorts Python strings.
    return {
        _UNKNOWN if word is None else str(word): n for word, n in Counter(texts.tolist()).items()
    }


def _add_up(into: dict[str, int], more: Mapping[str, int]) -> None:
    for key, count in more.items():
        into[key] = into.get(key, 0) + count
