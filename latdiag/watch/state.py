"""A watch without sockets and clocks: spans in, windows, changes and metrics out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from latdiag.attribution.spans.columns import known_name
from latdiag.model.units import NS_PER_S
from latdiag.stacks.signal import Stack
from latdiag.store.columns import Column
from latdiag.watch.bins import BIN_NS, Bins
from latdiag.watch.change import Change
from latdiag.watch.changes import Changes
from latdiag.watch.exposition import Histograms, Values, observe_all
from latdiag.watch.names import Names
from latdiag.watch.requests import BESIDE, Apart, Requests
from latdiag.watch.ring import SETTLE_NS, Ring, Settled, Tally
from latdiag.watch.windows import LENGTHS, Window, classes, closed, window

#: A bin is complete when its requests have settled, and a little later: they wait for a tick.
CLOSE_NS = SETTLE_NS + 6 * NS_PER_S
#: The first requests wait so long for others: what one lacks shows only beside them.
HOLD_NS = 30 * NS_PER_S
#: And later ones, where they are few: each batch costs something.
EVERY_NS = 5 * NS_PER_S
_MODELS = 10
_MOST_MODELS_SHOWN = 5


_Plain = dict[tuple[str, ...], float]


@dataclass(slots=True)
class Report:
    """What a look at a closed bin brought. ``until``: number of the first bin that is not in it;
    ``models``: the last 5 minutes of the models with most requests."""

    until: int
    windows: dict[str, Window]
    models: dict[str, Window] = field(default_factory=dict)
    before: Window | None = None
    changes: list[Change] = field(default_factory=list)
    active: list[Change] = field(default_factory=list)


class Watch:
    """Instants are ns of one clock of this machine, set to wall-clock time once."""

    def __init__(
        self, stacks: Sequence[Stack], labels: Mapping[str, str], begun_ns: int, seed: int = 0
    ) -> None:
        self.tally = Tally()
        known = known_name(stacks).match
        self.ring = Ring(self.tally, known=lambda name: bool(name and known(name)))
        self.apart = Apart(stacks, labels, self.tally)
        self.bins = Bins(seed)
        self.changes = Changes(self.bins)
        self.histograms = Histograms()
        self.begun_ns = begun_ns
        self.report: Report | None = None
        self.stacks: dict[str, None] = {}
        self.gateways = False
        self.fates: dict[str, int] = {}
        self.counted: dict[tuple[str, ...], float] = {}
        self.unattributed: dict[tuple[str, ...], float] = {}
        self.names = {"model": Names(_MODELS), "replica": Names()}
        self.names |= {name: Names() for name in labels}
        self._next = begun_ns // BIN_NS + 1
        self._held, self._held_ns = Settled(), begun_ns

    # ------------------------------------------------------------------ in
    def add(self, columns: dict[str, Column], now_ns: int) -> None:
        self.ring.add(columns, now_ns)

    def tick(self, now_ns: int, everything: bool = False) -> Report | None:
        """Take apart what has settled; a report where a bin has closed."""
        settled = self._held.joined(self.ring.settled(now_ns, everything))
        self._held_ns = now_ns if not self._held.spans else self._held_ns
        self._held = Settled()
        few = len(settled.last_ns) < BESIDE
        hold_ns = EVERY_NS if self.apart.are_enough(settled) else HOLD_NS
        if few and not everything and now_ns - self._held_ns < hold_ns:
            self._held, settled = settled, Settled()
        if settled.spans:
            self._take(self._folded(self.apart.requests(settled), now_ns), now_ns)
        self.bins.at(now_ns // BIN_NS)
        made = None
        while (self._next + 1) * BIN_NS + CLOSE_NS <= now_ns:
            self._next = max(self._next + 1, (now_ns - CLOSE_NS) // BIN_NS - 120)
            made = self.look(self._next)
        return made

    def look(self, until: int) -> Report:
        """The windows that end before bin ``until``, and what changed."""
        changes = self.changes.look(until)
        for change in changes:
            if change.until is None:
                key = (change.metric, change.component, change.cause)
                self.counted[key] = self.counted.get(key, 0) + 1
        windows = {name: window(self.bins, name, until) for name in LENGTHS}
        models: dict[str, Window] = {}
        if self.report is None or until % 2 == 0:
            models = self._models(until)
        self.report = Report(
            until,
            windows,
            models or (self.report.models if self.report else {}),
            changes=changes,
            active=list(self.changes.active),
        )
        return self.report

    def _models(self, until: int) -> dict[str, Window]:
        keys = {k for b in closed(self.bins, until, 10) for k in b.cells if k[0] == "model"}
        made = {key[1]: window(self.bins, "5m", until, key, judged=False) for key in keys}
        return dict(sorted(made.items(), key=lambda item: -item[1].n)[:_MOST_MODELS_SHOWN])

    # ------------------------------------------------------------------ requests
    def _folded(self, requests: Requests, now_ns: int) -> Requests:
        if not requests.n:
            return requests
        names = self.names["replica"]
        whole = np.concatenate([requests.replica, *requests.by.values()])
        folded = np.split(names.fold(whole, now_ns), len(requests.by) + 1)
        return replace(
            requests,
            replica=folded[0],
            by=dict(zip(requests.by, folded[1:], strict=True)),
            labels={
                name: self.names[name].fold(values, now_ns)
                for name, values in requests.labels.items()
            },
        )

    def _take(self, requests: Requests, now_ns: int) -> None:
        self.bins.add(requests)
        self.stacks |= dict.fromkeys(requests.stacks)
        self.gateways |= requests.gateways
        for reason, n in requests.left.items():
            self.fates[reason] = self.fates.get(reason, 0) + n
        self.fates["attributed"] = self.fates.get("attributed", 0) + requests.n
        observe_all(self.histograms, requests, {}, now_ns / NS_PER_S)
        if requests.parts is None:
            return
        rest = requests.parts.parts["unattributed"]
        for model in set(requests.labels["model"].tolist()):
            mine = requests.labels["model"] == model
            ns = float(np.maximum(rest[mine], 0).sum()) / NS_PER_S
            self.unattributed[(model,)] = self.unattributed.get((model,), 0.0) + ns

    # ------------------------------------------------------------------ out
    def values(self) -> Values:
        """All metrics but histograms, as they are now."""
        tally = self.tally
        found: dict[str, _Plain] = {
            "latdiag_unattributed_seconds": dict(self.unattributed),
            "latdiag_requests": {(fate,): n for fate, n in self.fates.items()},
            "latdiag_spans_received": {(): tally.received},
            "latdiag_spans_attributed": {(): tally.attributed},
            "latdiag_spans_open": {(): tally.open},
            "latdiag_spans_dropped": {(r,): n for r, n in list(tally.dropped.items())},
            "latdiag_traces_open": {(): self.ring.traces},
            "latdiag_labels_folded": {(n,): names.folded for n, names in self.names.items()},
            "latdiag_series_refused": {(n,): c for n, c in self.histograms.refused.items()},
            "latdiag_start_time_seconds": {(): self.begun_ns / NS_PER_S},
            "latdiag_changes": dict(self.counted),
        }
        if self.report is not None:
            found |= self._of_report(self.report)
        return found

    def _of_report(self, report: Report) -> dict[str, _Plain]:
        share: _Plain = {}
        tail: _Plain = {}
        coverage: _Plain = {}
        dominant: _Plain = {}
        several = [(("",), w) for w in report.windows.values()]
        for (model,), one in [*several, *(((m,), w) for m, w in report.models.items() if m)]:
            for interval, shares in (("request", one.shares), ("ttft", one.ttft_shares)):
                share |= {(c, interval, one.name, model): v for c, v in shares.items()}
            tail |= {(c, one.name, model): v for c, v in one.tail.items()}
        for one in report.windows.values():
            if one.coverage is not None:
                coverage[(one.name,)] = one.coverage
            if one.verdict is not None:
                told = classes(closed(self.bins, report.until, LENGTHS[one.name]))
                first = one.verdict.dominant
                name = "+".join(told[first]) if first in told else first or ""
                key = (name, one.verdict.kind, one.verdict.confidence, one.name)
                dominant[key] = 1.0
        active: _Plain = {
            (c.metric, c.component, c.model, c.replica, c.cause): c.delta_ns / NS_PER_S
            for c in report.active
        }
        return {
            "latdiag_component_share": share,
            "latdiag_component_tail_share": tail,
            "latdiag_evidence_coverage_ratio": coverage,
            "latdiag_dominant": dominant,
            "latdiag_change_seconds": active,
        }
