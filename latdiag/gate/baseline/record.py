"""One run as it is recorded: what it was (its fingerprint), and its figures, metric by metric."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from latdiag import __version__
from latdiag.model.document import document
from latdiag.model.errors import RunFault
from latdiag.model.text import shown
from latdiag.stats.estimate import rank
from latdiag.store.documents import from_bytes, to_bytes

if TYPE_CHECKING:
    from latdiag.diagnosis.run_facts import Measured

SCHEMA = 1
MAX_BYTES = 1 << 20
#: What is recorded of a run; a gap of ``itl`` is a value of its own, as in every other result.
METRICS = ("ttft", "tpot", "itl", "e2e")
#: Facts of a run that do not make it another kind of run: where the server was, what the client's
#: libraries were. ``stacks`` is told as ``engine`` and ``engine_version``.
_PASSING = frozenset({"target", "stacks", "server header", "latdiag", "python", "httpx"}) | {
    "client system"
}
_PARTS = 10
_MOST_FACTS, _MOST_TEXT = 100, 2_000
_MOST_NS = 2**53


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one metric: ``n`` values; ``log_mean``, the mean of the logarithms of nanoseconds;
    ``quantiles``, the order statistics of 0 % to 100 % in ns (101); ``parts``, the ``log_mean`` of
    each tenth of the run, in the order of time."""

    n: int
    log_mean: float
    quantiles: tuple[int, ...]
    parts: tuple[float, ...]

    def level(self, statistic: str) -> float:
        """The logarithm of what ``shift`` (the mean of logarithms), ``p50`` ... stand for."""
        if statistic == "shift":
            return self.log_mean
        return float(np.log(max(1, self.quantiles[int(statistic.removeprefix("p"))])))


@dataclass(frozen=True, slots=True)
class Record:
    """``identity``: equal for the same requests, wherever the run lies. ``made``: when, as ISO
    8601. ``label``: of the user's, such as a commit. ``fingerprint``: what must be the same for
    two runs to be compared."""

    identity: str
    made: str
    label: str
    requests: int
    fingerprint: Mapping[str, str]
    metrics: Mapping[str, Figures]

    @property
    def file(self) -> str:
        """Its name in a store: in the order of time."""
        digits = re.sub(r"\D", "", self.made)[:14] or "0"
        return f"{digits}-{self.identity[:16]}.json"


def record_of(
    run: Measured, header: Mapping[str, object], facts: Mapping[str, str], label: str
) -> Record:
    """``facts``: what the user states of a run that it cannot know, such as its GPU; they come
    before the run's own. RunFault for a run without values."""
    metrics = {
        name: figures
        for name in METRICS
        if (figures := _figures([rows.values for rows in run.rows.rows.metrics[name]])) is not None
    }
    if "ttft" not in metrics:
        raise RunFault(f"{run.path} has no TTFT to record", "record a run of `latdiag load`")
    made = header.get("created")
    return Record(
        run.rows.identity,
        shown(made, 40) if isinstance(made, str) else "",
        shown(label, 200),
        run.requests,
        {**dict(_facts(run.facts)), **facts},
        metrics,
    )


def _figures(segments: Sequence[NDArray[np.int64]]) -> Figures | None:
    values = np.concatenate(segments) if segments else np.zeros(0, dtype=np.int64)
    values = values[values > 0]
    if not len(values):
        return None
    logs = np.log(values)
    ordered = np.sort(values)
    quantiles = tuple(int(ordered[rank(len(ordered), at / 100) - 1]) for at in range(101))
    parts = tuple(
        round(float(each.mean()), 9) for each in np.array_split(logs, _PARTS) if len(each)
    )
    return Figures(len(values), round(float(logs.mean()), 9), quantiles, parts)


def _facts(facts: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if name not in _PASSING:
            yield name, _word(value)
    stacks = facts.get("stacks")
    if isinstance(stacks, list) and stacks:
        apart = [
            str(each).rpartition(" ") if " " in str(each) else (str(each),) for each in stacks
        ]
        yield "engine", ", ".join(each[0] for each in apart)
        if versions := ", ".join(each[-1] for each in apart if len(each) > 1):
            yield "engine_version", versions


def _word(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_word, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else shown(value, 200)


# ---------------------------------------------------------------------- as a file
def to_file(record: Record) -> bytes:
    """JSON, which ``from_file`` reads back to the same."""
    keys = {"schema": SCHEMA, "kind": "gate record", "latdiag": __version__}
    return to_bytes(keys | cast("dict[str, object]", document(record)))


def from_file(data: bytes, name: str) -> Record:
    """RunFault for what is no record, and for one of a newer schema."""
    try:
        raw = from_bytes(data)
        if raw.get("kind") != "gate record":
            raise ValueError("it does not say that it is one")
        schema = raw.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise RunFault(
                f"{name} has schema {schema}; this latdiag reads up to {SCHEMA}", "update latdiag"
            )
        return _record(raw)
    except (KeyError, TypeError, ValueError) as fault:
        raise RunFault(
            f"{name} is no record of a run: {shown(fault, 120)}", "remove it from the store"
        ) from fault


def _record(raw: Mapping[str, object]) -> Record:
    fingerprint = _dict(raw["fingerprint"])
    if len(fingerprint) > _MOST_FACTS:
        raise ValueError("more facts than a run has")
    return Record(
        _text(raw["identity"]),
        _text(raw["made"]),
        _text(raw["label"]),
        _whole(raw["requests"]),
        {_text(key): _text(value) for key, value in fingerprint.items()},
        {
            name: _read(_dict(each))
            for name, each in _dict(raw["metrics"]).items()
            if name in METRICS
        },
    )


def _read(raw: Mapping[str, object]) -> Figures:
    quantiles, parts = _list(raw["quantiles"]), _list(raw["parts"])
    if len(quantiles) != 101 or len(parts) > _PARTS:
        raise ValueError("a metric has not all its figures")
    return Figures(
        _whole(raw["n"]),
        _number(raw["log_mean"]),
        tuple(_whole(each) for each in quantiles),
        tuple(_number(each) for each in parts),
    )


def _dict(raw: object) -> Mapping[str, object]:
    if not isinstance(raw, dict):
        raise TypeError("a part of it is not an object")
    return raw


def _list(raw: object) -> list[object]:
    if not isinstance(raw, list):
        raise TypeError("a part of it is not a list")
    return raw


def _text(raw: object) -> str:
    if not isinstance(raw, str) or len(raw) > _MOST_TEXT:
        raise TypeError("a text in it is none, or too long")
    return raw


def _whole(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw <= _MOST_NS:
        raise ValueError("a whole number in it is none, or too large")
    return raw


def _number(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw <= 100:
        raise ValueError("a logarithm in it is none, or too large")
    return float(raw)
