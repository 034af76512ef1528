"""What changed, since when, and what moved: changes of components, of models and of replicas.

Each component of TTFT, and of the time for each output token, is watched by itself, for each
model and for each of its replicas. A queue that grows because another component got slower, or
because more requests come, is told as that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from latdiag.model.components import COMPONENTS
from latdiag.watch.bins import Bins, Key, quantile
from latdiag.watch.change import Change
from latdiag.watch.streams import (
    LEAST_SHARE,
    Course,
    Regime,
    Step,
    follows_load,
    lasted,
    sized,
    step_of,
)
from latdiag.watch.tables import Table, sizes_of, table_of
from latdiag.watch.windows import classes, closed, summed

#: A component that holds less of its metric than this is not watched.
LEAST_OF_METRIC = 0.05
#: Of several replicas one is named that holds so much of the difference.
_MOST_OF_IT = 0.7
#: A queue may be the effect of another component that moved: then this much of a limit is enough.
_HINT, _HINT_SHARE = 0.55, 0.06
#: A queue that moves with the load is told where it moves this much of its metric.
LEAST_BY_LOAD = 0.25
#: Times four standard errors by which fewer requests must run at a replica whose queue grows.
_CLEARLY_FEWER = 1.5
#: A queue is told by itself when it still is another one so many bins later.
_LASTS = 20
_HOUR = 120
_QUEUE, _PREFILL = COMPONENTS.index("queue"), COMPONENTS.index("prefill")


@dataclass(frozen=True, slots=True)
class _Stream:
    key: Key
    metric: str
    at: int


class Changes:
    """Look at each bin once it is closed."""

    def __init__(self, bins: Bins) -> None:
        self.active: list[Change] = []
        self.reported = 0
        self._bins = bins
        self._regimes: dict[_Stream, Regime] = {}
        self._known: set[_Stream] = set()
        self._until = 0
        self._tables: dict[Key, Table] = {}
        self._loaded: dict[str, tuple[int, float]] = {}
        self._waiting: dict[tuple[str, str], tuple[int, Change]] = {}

    def look(self, until: int) -> list[Change]:
        """What has changed, or ended, by the end of bin ``until - 1``."""
        self._until, self._tables = until, {}
        told = classes(closed(self._bins, until, _HOUR))
        steps = dict(self._steps(until))
        found = self._ended(until, steps)
        news = {s: step for s, step in steps.items() if not self._goes_back(s, step)}
        moved = {s: step for s, step in news.items() if self._is_one(s, step)}
        waiting = {model for model, _ in self._waiting}
        for model in sorted({stream.key[1] for stream in moved} | waiting):
            mine = {s: step for s, step in moved.items() if s.key[1] == model}
            found += self._told(model, mine, steps, until, told)
        live = [
            self._renewed(c, until)
            for c in self.active
            if c.until is None and until - c.since <= _HOUR
        ]
        self.active = [*live, *(c for c in found if c.until is None)]
        self.reported += sum(c.until is None for c in found)
        self._regimes = {s: r for s, r in self._regimes.items() if s in self._known}
        return found

    # ------------------------------------------------------------------ the figures
    def _steps(self, until: int) -> Iterator[tuple[_Stream, Step]]:
        several = closed(self._bins, until, _HOUR)
        keys = {key for each in several for key in each.cells if key[0] in ("model", "replica")}
        self._known = set()
        for key in sorted(keys):
            for metric in ("ttft", "tpot"):
                for at in range(2, len(COMPONENTS) - 1):
                    stream = _Stream(key, metric, at)
                    self._known.add(stream)
                    course = self._course(stream)
                    if course is None:
                        continue
                    regime = self._regimes.setdefault(stream, Regime())
                    step = step_of(course, regime)
                    if at == _PREFILL and key[0] == "model":
                        same = sized(course, sizes_of(several, key[1]), regime)
                        other = step_of(same, regime) if same is not None else None
                        if other is not None and (step is None or abs(other.z) > abs(step.z)):
                            step = replace(other, sized=True)
                    if step is not None:
                        yield stream, step

    def _course(self, stream: _Stream) -> Course | None:
        table = self._tables.get(stream.key)
        if table is None:
            table = self._tables[stream.key] = table_of(
                closed(self._bins, self._until, _HOUR), stream.key
            )
        ns, per = (
            (table.early, table.timed) if stream.metric == "ttft" else (table.stream, table.steps)
        )
        mine, weight = ns[:, stream.at], per[:, stream.at]
        total = mine.sum()
        if total <= 0:
            return None
        if stream.key[0] == "model" and total < LEAST_OF_METRIC / 2 * ns.sum():
            return None
        there = weight > 0
        # Tokens of one request are no independent witnesses: the weight is of requests.
        return Course(
            table.number,
            np.where(there, mine / np.maximum(weight, 1.0), np.nan),
            np.where(there, table.timed[:, stream.at], 0.0),
            table.running,
        )

    def _metric(self, model: str, kind: str, until: int) -> float:
        """The mean of a metric of a model over the last minutes, ns."""
        cell = summed(closed(self._bins, until, 10), ("model", model, ""))
        ns = (cell.early if kind == "ttft" else cell.stream).sum()
        per = (cell.timed if kind == "ttft" else cell.steps).max()
        return float(ns) / float(per) if per else 0.0

    def _is_one(self, stream: _Stream, step: Step) -> bool:
        if abs(step.z) <= 1 or abs(step.delta) < LEAST_SHARE * step.before:
            return False
        metric = self._metric(stream.key[1], stream.metric, self._until)
        if stream.at == _QUEUE and stream.key[0] == "replica":
            # Whether one replica has a busy spell is chance; that it serves fewer is not.
            return step.load_z * step.delta < 0 and abs(step.load_z) > _CLEARLY_FEWER
        if stream.at == _QUEUE and follows_load(step):
            return abs(step.delta) >= LEAST_BY_LOAD * metric and self._is_news(stream, step)
        least = LEAST_OF_METRIC * max(metric - max(0.0, step.delta), 0.0)
        return abs(step.delta) >= max(least, 1.0) * (1 if stream.key[0] == "model" else 0.5)

    def _goes_back(self, stream: _Stream, step: Step) -> bool:
        """Whether this is a change that holds going back: told as its end, not as another."""
        for change in self.active:
            alike = (change.model, change.metric, change.place)
            other = alike != (stream.key[1], stream.metric, stream.at)
            if other or step.delta * change.delta_ns >= 0:
                continue
            if stream.key == (key := change.key):
                now = self._mean(stream, self._until, step.since)
                back = now is not None and (now - change.middle_ns) * change.delta_ns < 0
            elif stream.key[0] == "model":
                back = abs(step.delta) <= abs(change.delta_ns)
            else:
                back = key[0] == "model"
            if back:
                return True
        return False

    def _lasting(self, model: str, until: int) -> Iterator[Change]:
        """Changes of queues that still hold after a while; the others are forgotten."""
        for place, (seen, change) in list(self._waiting.items()):
            if place[0] != model or until - seen < _LASTS:
                continue
            del self._waiting[place]
            course = self._course(_Stream(change.key, change.metric, change.place))
            if course and lasted(course, change.since, change.delta_ns > 0, _LASTS // 2):
                yield self._renewed(change, until)

    def _is_news(self, stream: _Stream, step: Step) -> bool:
        """A queue goes up and down with the load: told once an hour, or when it doubles."""
        model = stream.key[1]
        last, level = self._loaded.get(model, (-_HOUR, 0.0))
        if self._until - last < _HOUR and step.after < 2 * level:
            return False
        self._loaded[model] = (self._until, step.after)
        return True

    # ------------------------------------------------------------------ what moved
    def _told(
        self,
        model: str,
        moved: dict[_Stream, Step],
        steps: dict[_Stream, Step],
        until: int,
        told: dict[str, tuple[str, ...]],
    ) -> list[Change]:
        found: list[Change] = []
        own = [s for s in moved if s.at != _QUEUE]
        for at, metric in dict.fromkeys(
            (s.at, s.metric) for s in sorted(own, key=lambda s: -abs(moved[s].z))
        ):
            found.append(self._change(model, metric, at, moved, until, told))
        waits = [s for s in moved if s.at == _QUEUE]
        if waits and not found and (hint := _hint(model, moved[waits[0]], steps)) is not None:
            also = {**moved, hint: steps[hint]}
            found.append(self._change(model, hint.metric, hint.at, also, until, told))
        if waits:
            change = self._change(model, "ttft", _QUEUE, moved, until, told)
            if found:
                change = replace(change, cause=found[0].component)
            if found or change.cause != "component" or change.component != "queue":
                found.append(change)
            else:
                # Queues have busy spells under laws that stay: alone one is told when it lasts.
                self._waiting.setdefault((model, change.replica), (until, change))
        found += self._lasting(model, until)
        for each in found:
            self._begin(each, until)
        return found

    def _change(
        self,
        model: str,
        metric: str,
        at: int,
        moved: dict[_Stream, Step],
        until: int,
        told: dict[str, tuple[str, ...]],
    ) -> Change:
        mine = {s: moved[s] for s in moved if (s.metric, s.at) == (metric, at)}
        whole = next((s for s in mine if s.key[0] == "model"), None)
        stream = whole or max(mine, key=lambda s: abs(mine[s].z))
        step = mine[stream]
        replica = stream.key[2] if whole is None else self._who(model, metric, at, step, until)
        before, after = self._p95(model, metric, step.since, until)
        # The last minutes that are compared may hold bins from before the change: not its figures.
        was = self._mean(stream, until, step.since, self._regimes.get(stream, Regime()))
        now = self._mean(stream, until, step.since)
        if was is None or now is None or (now - was) * step.delta <= 0:
            was, now = step.before, step.after
        return Change(
            *(metric, "+".join(told[COMPONENTS[at]]), model, replica),
            *(now - was, was, step.since),
            self._cause(model, at, step, until, told),
            *(before, after, step.load_ratio),
            of_replica=whole is None,
        )

    def _mean(
        self, stream: _Stream, until: int, since: int, regime: Regime | None = None
    ) -> float | None:
        """The mean of a stream, ns: since the change, or before it as its ``regime`` was."""
        several = closed(self._bins, until, _HOUR)
        if regime is None:
            # The bin in which it happened holds both.
            chosen = [b for b in several if b.number > since] or several[-1:]
        else:
            holds = regime.holds(np.array([b.number for b in several], dtype=np.int64))
            chosen = [b for b, held in zip(several, holds, strict=True) if held]
            chosen = [b for b in chosen if b.number < since]
        cell = summed(chosen, stream.key)
        per = (cell.timed if stream.metric == "ttft" else cell.steps)[stream.at]
        ns = (cell.early if stream.metric == "ttft" else cell.stream)[stream.at]
        return float(ns) / float(per) if per else None

    def _renewed(self, change: Change, until: int) -> Change:
        """With the figures of all time since it began."""
        after = self._p95(change.model, change.metric, change.since, until)[1]
        stream = _Stream(change.key, change.metric, change.place)
        now = self._mean(stream, until, change.since)
        if now is None or (now - change.before_ns) * change.delta_ns <= 0:
            return change
        return replace(change, delta_ns=now - change.before_ns, p95_after=after)

    def _who(self, model: str, metric: str, at: int, step: Step, until: int) -> str:
        """The replica that holds most of the difference; empty for several, or only one."""
        several = closed(self._bins, until, _HOUR)
        replicas = {k[2] for each in several for k in each.cells if k[:2] == ("replica", model)}
        parts: dict[str, float] = {}
        for replica in replicas:
            key = ("replica", model, replica)
            sums = []
            for bins in (
                [b for b in several if b.number < step.since],
                [b for b in several if b.number >= step.since],
            ):
                cell = summed(bins, key)
                ns = float((cell.early if metric == "ttft" else cell.stream)[at])
                per = float((cell.timed if metric == "ttft" else cell.steps)[at])
                sums.append((ns / per if per else 0.0, per / max(1, len(bins))))
            parts[replica] = (sums[1][0] - sums[0][0]) * sums[1][1] if sums[0][1] else 0.0
        sign = 1 if step.delta > 0 else -1
        gains = {name: max(0.0, sign * value) for name, value in parts.items()}
        top = max(gains, key=lambda name: gains[name], default="")
        if len(gains) < 2 or gains[top] < _MOST_OF_IT * sum(gains.values()):
            return ""
        return top

    def _cause(
        self, model: str, at: int, step: Step, until: int, told: dict[str, tuple[str, ...]]
    ) -> str:
        name = COMPONENTS[at]
        if "queue" in told[name] and follows_load(step):
            return "load"
        if abs(step.delta) <= 2 * step.by_load:
            return "load"
        if "prefill" in told[name] and not step.sized:
            before = summed(closed(self._bins, step.since, _HOUR), ("model", model, ""))
            after = summed(closed(self._bins, until, until - step.since), ("model", model, ""))
            if before.prompts and after.prompts and before.prompt:
                longer = after.prompt / after.prompts / (before.prompt / before.prompts) - 1
                if longer * step.delta > 0 and abs(longer) >= 0.5 * abs(step.delta) / step.before:
                    return "prompts"
        return "component"

    def _p95(
        self, model: str, metric: str, since: int, until: int
    ) -> tuple[float | None, float | None]:
        key: Key = ("model", model, "")
        before = summed(closed(self._bins, since, _HOUR), key)
        after = summed(closed(self._bins, until, max(1, until - since)), key)
        counts = [getattr(cell, metric) for cell in (before, after)]
        return quantile(counts[0], 0.95), quantile(counts[1], 0.95)

    # ------------------------------------------------------------------ regimes
    def _begin(self, change: Change, until: int) -> None:
        """From here on what it is now is what is usual, for all that this may be seen in."""
        first = change.component.partition("+")[0]
        for stream, regime in self._regimes.items():
            same = COMPONENTS[stream.at] == first and stream.metric == change.metric
            waits = COMPONENTS[stream.at] == "queue"
            if stream.key[1] == change.model and (same or waits):
                regime.since = change.since

    def _ended(self, until: int, steps: dict[_Stream, Step]) -> list[Change]:
        """Changes that are over: what was usual before is so again."""
        over = []
        for change in self.active:
            at = change.place
            course = self._course(_Stream(change.key, change.metric, at))
            if course is None or until - change.since < 8:
                continue
            late, middle = course.value[-4:], change.middle_ns
            back = late < middle if change.delta_ns > 0 else late > middle
            if len(late) == 4 and bool(back.all()):
                # Its size is of the time while it held.
                over.append(replace(self._renewed(change, until - 4), until=until - 4))
                for each, regime in self._regimes.items():
                    if (
                        each.key[1] == change.model
                        and each.metric == change.metric
                        and (each.at == at or COMPONENTS[each.at] == "queue")
                    ):
                        regime.since = 0
                        regime.away = [*regime.away[-7:], (change.since, until - 4)]
                        steps.pop(each, None)
        self.active = [c for c in self.active if not any(_same(c, o) for o in over)]
        return over


def _same(one: Change, other: Change) -> bool:
    return (one.metric, one.component, one.model, one.since) == (
        *(other.metric, other.component, other.model, other.since),
    )


def _hint(model: str, queue: Step, steps: dict[_Stream, Step]) -> _Stream | None:
    """The component of this model that moved the same way as its queue, if less clearly."""
    good = {
        s: abs(step.z)
        for s, step in steps.items()
        if s.key[:2] == ("model", model)
        and COMPONENTS[s.at] != "queue"
        and abs(step.z) >= _HINT
        and step.delta * queue.delta > 0
        and abs(step.delta) >= _HINT_SHARE * step.before
    }
    return max(good, key=lambda s: good[s], default=None)
