"""Settled traces in, requests taken apart out: by the attribution that every verb uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import MASK
from latdiag.attribution.parts import Parts
from latdiag.attribution.spans import columns
from latdiag.attribution.spans.columns import Spans
from latdiag.attribution.spans.complete import LEAST, Findings
from latdiag.attribution.spans.explain import Served, served
from latdiag.model.components import COMPONENTS
from latdiag.stacks.signal import Stack
from latdiag.store.evidence import to_said
from latdiag.watch.ring import Settled, Tally

#: Attributes that name the model, the first that is there counts (OpenTelemetry's GenAI
#: conventions v1.41.0; ``model`` is Dynamo's).
MODEL = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "model")
#: Output tokens, by their names before and since v1.27.0 of the conventions.
TOKENS = ("gen_ai.usage.completion_tokens", "gen_ai.usage.output_tokens")
PROMPT = ("gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens")
#: A batch of fewer traces is taken apart beside those before it: what a request lacks shows only
#: beside others.
BESIDE = 100
_BESIDE_SPANS = 20_000
_LABEL = 100


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests that were taken apart, one entry each. ``at_ns``: when its last span came, on the
    caller's clock. ``tokens``, ``prompt``: 0 where no span states them. ``timed``: whether a
    server states its first token. ``replica``: who decoded it; ``by``: who each component was
    spent at, by component. ``labels``: by ``model``, ``route`` and ``tenant``; empty where nobody
    says. ``left``: requests that were not, by reason."""

    parts: Parts | None
    trace: NDArray[np.object_]
    at_ns: NDArray[np.int64]
    timed: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    prompt: NDArray[np.int64]
    replica: NDArray[np.object_]
    by: Mapping[str, NDArray[np.object_]]
    labels: Mapping[str, NDArray[np.object_]]
    left: Mapping[str, int]
    left_ns: int
    stacks: tuple[str, ...] = ()
    gateways: bool = False

    @property
    def n(self) -> int:
        return len(self.trace)

    @property
    def ttft_ns(self) -> NDArray[np.int64]:
        return self.parts.ttft if self.parts is not None else np.zeros(0, np.int64)


class Apart:
    """Takes batches of settled traces apart. ``labels``: the attributes that name route and
    tenant, by label."""

    def __init__(self, stacks: Sequence[Stack], labels: Mapping[str, str], tally: Tally) -> None:
        self._stacks = stacks
        self._labels = {"model": MODEL, **{name: (key,) for name, key in labels.items()}}
        self._tally = tally
        self._beside: list[Settled] = []

    @property
    def words(self) -> tuple[str, ...]:
        """The attributes whose text is needed."""
        return (*(key for keys in self._labels.values() for key in keys), *TOKENS, *PROMPT)

    def are_enough(self, settled: Settled) -> bool:
        """Whether these, beside those before them, show what is usual for a request."""
        return len(settled.last_ns) + sum(len(one.last_ns) for one in self._beside) >= LEAST

    def requests(self, settled: Settled) -> Requests:
        """What ``settled`` holds. The tally is told of each of its spans."""
        reader = columns.Reader(self._stacks, self.words)
        tally, begun = self._tally, settled.spans
        tally.open -= begun
        read = _read(reader, settled)
        tally.drop("unknown", begun - read)
        if len(settled.last_ns) < BESIDE:
            for one in self._beside:
                _read(reader, one)
        made = served(reader.spans())
        own = np.array([trace in settled.last_ns for trace in made.traces.tolist()], dtype=bool)
        self._count(made, own, read)
        self._remember(settled)
        return self._of(made, own, settled)

    def _count(self, made: Served, own: NDArray[np.bool_], read: int) -> None:
        """Every span of the batch has one fate."""
        tally = self._tally
        per_row = np.bincount(made.spans.row, minlength=len(made.traces))
        kept = np.zeros(len(made.traces), dtype=bool)
        kept[made.kept] = True
        attributed = int(per_row[kept & own].sum())
        unexplained = int(per_row[own & ~kept].sum())
        tally.attributed += attributed
        tally.drop("unexplained", unexplained)
        # What is in no joined row: a second copy, one without instants, one that names nothing.
        tally.drop("duplicate", read - attributed - unexplained)

    def _remember(self, settled: Settled) -> None:
        if len(settled.last_ns) > BESIDE:
            return
        self._beside.append(settled)
        while (
            sum(len(one.last_ns) for one in self._beside[1:]) >= BESIDE
            or sum(one.spans for one in self._beside) > _BESIDE_SPANS
        ):
            self._beside.pop(0)

    def _of(self, made: Served, own: NDArray[np.bool_], settled: Settled) -> Requests:
        mine = np.flatnonzero(own[made.kept])
        rows = made.kept[mine]
        traces = made.traces[rows].astype(object)
        parts = _selected(made.parts, mine) if made.parts is not None else None
        facts, n = made.facts, len(made.traces)
        by = {name: _who(made.spans, n, name)[rows] for name in COMPONENTS[2:-1]}
        replica = by["decode"]
        for name in ("prefill", "queue", "frontend", "gateway"):
            replica = np.where(replica == "", by[name], replica)
        left = int(own.sum()) - len(rows)
        latest = max(settled.last_ns.values(), default=0)
        layers = {stack.name: stack.layer for stack in self._stacks}
        return Requests(
            parts=parts,
            trace=traces,
            at_ns=np.array([settled.last_ns[t] for t in traces.tolist()], dtype=np.int64),
            timed=made.timed[mine],
            tokens=_number(made.spans, n, TOKENS)[rows],
            prompt=_number(made.spans, n, PROMPT)[rows],
            replica=replica,
            by=by,
            labels={name: _text(made.spans, n, keys)[rows] for name, keys in self._labels.items()},
            left=_reasons(facts, left, made.parts is None),
            left_ns=latest,
            stacks=facts.stacks,
            gateways=any(layers.get(name) == "gateway" for name in facts.stacks),
        )


def _read(reader: columns.Reader, settled: Settled) -> int:
    """How many spans of the batches have names that a stack knows."""
    read = 0
    for batch in settled.batches:
        said = to_said(batch, reader.kinds, reader.wanted)
        reader.add(said)
        read += said.n
    return read


def _selected(parts: Parts, rows: NDArray[np.int64]) -> Parts:
    return replace(
        parts,
        total=parts.total[rows],
        ttft=parts.ttft[rows],
        parts={name: column[rows] for name, column in parts.parts.items()},
        delayed=parts.delayed[rows],
        leaves={name: column[rows] for name, column in parts.leaves.items()},
        slack={name: (a[rows], b[rows]) for name, (a, b) in parts.slack.items()},
        within={
            interval: {name: column[rows] for name, column in inside.items()}
            for interval, inside in parts.within.items()
        },
    )


def _reasons(facts: Findings, left: int, none: bool) -> dict[str, int]:
    """Why requests are left out; of a batch that was read beside others by the shares of all."""
    if not left:
        return {}
    if none:
        return {"unknown" if not facts.stacks else "too_few": left}
    known = facts.contradicted + facts.partial
    contradicted = min(left, round(left * facts.contradicted / known)) if known else 0
    found = {"contradicted": contradicted, "partial": left - contradicted}
    return {name: n for name, n in found.items() if n}


def _who(spans: Spans, rows: int, component: str) -> NDArray[np.object_]:
    """For each row the sender of the narrowest span that may hold a component; empty: nobody."""
    found = np.full(rows, "", dtype=object)
    covers = np.array([_bits(s.covers) for s in spans.signals] or [0], dtype=np.int64)
    held = covers[spans.signal]
    mine = np.flatnonzero((spans.signal >= 0) & (held & MASK[component] != 0))
    if not len(mine):
        return found
    width = np.array([int(value).bit_count() for value in covers])[spans.signal[mine]]
    order = mine[np.lexsort((spans.sender[mine], -width, spans.row[mine]))]
    # The last of a row is the narrowest: it is what stays.
    found[spans.row[order]] = np.array(spans.senders, dtype=object)[spans.sender[order]]
    return found


def _bits(covers: frozenset[str]) -> int:
    from latdiag.attribution.leaves import bits

    return bits(covers)


def _text(spans: Spans, rows: int, keys: Sequence[str]) -> NDArray[np.object_]:
    found = np.full(rows, "", dtype=object)
    for key in reversed(keys):
        texts = spans.texts[key]
        mine = np.flatnonzero(texts != None)[::-1]  # noqa: E711 - elementwise
        mine = mine[[bool(texts[i]) for i in mine.tolist()]] if len(mine) else mine
        found[spans.row[mine]] = [str(text)[:_LABEL] for text in texts[mine]]
    return found


def _number(spans: Spans, rows: int, keys: Sequence[str]) -> NDArray[np.int64]:
    found = np.zeros(rows, dtype=np.int64)
    for row, text in enumerate(_text(spans, rows, keys).tolist()):
        if text.isdecimal() and len(text) < 10:
            found[row] = int(text)
    return found
