"""The text of ``/metrics`` into rows of evidence: only the families that some signal names.

Prometheus' text format 0.0.4 and OpenMetrics 1.0. Lines are cut out by family first, with one
regular expression, and only those reach prometheus_client's parser: that takes about 15 us a
sample and grows with the square of a line's length, so what it may be given is bounded here.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from latdiag.ingest.prometheus.labels import kept_labels
from latdiag.stacks.families import SUFFIXES, kind_of, known_name

#: Of the whole text, in characters; and of the lines of known families in it.
MOST_TEXT = 32 << 20
MOST_KEPT = 8 << 20
MOST_SERIES = 200_000
#: The longest line seen in a capture has 1,060 characters.
MOST_LINE = 4096
MOST_BUCKETS = 1000

OPENMETRICS = "application/openmetrics-text"

_LINE = re.compile(
    r"^[ \t]*(?:#[ \t]+TYPE[ \t]+([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]+(\w+)"
    r"|([a-zA-Z_:][a-zA-Z0-9_:]*)(?=[{ \t])[^\n]*)",
    re.MULTILINE | re.ASCII,
)
#: Lines to the parser at once: what it holds at a time.
_BLOCK = 500
#: Characters that are searched at once.
_PIECE = 256 << 10
_EXACT = 2.0**53
#: What who passes metrics on says where he does not know: the stacks' files do.
_UNTYPED = frozenset({"untyped", "unknown"})

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Series:
    """One series as exposed. ``kind``: counter, gauge or histogram; of a histogram ``value`` is
    its sum, ``bounds`` end with +Inf and ``counts`` are cumulative; both empty otherwise."""

    kind: str
    name: str
    labels: Labels
    value: float
    bounds: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Exposition:
    """What one text said. ``dropped``: lines and series left out, by reason."""

    series: list[Series]
    dropped: Counter[str]


@dataclass(slots=True)
class _Histogram:
    """The samples of one histogram series, as they come."""

    total: float | None = None
    count: float | None = None
    buckets: dict[float, float] = field(default_factory=dict)


def columns_of(
    text: str,
    *,
    at_ns: int,
    replica: str,
    edge: str,
    families: frozenset[str],
    role: str | None = None,
    content_type: str = "",
    dropped: Counter[str] | None = None,
) -> dict[str, list[Any]]:
    """Columns of the table ``evidence``, a row per series of ``families`` in ``text``.

    ``at_ns``: the instant of the scrape; ``replica``: URL without credentials; ``edge``: what
    caused it (``begin``, ``end``, ``periodic``). A family is named as in ``families`` (a counter
    with its ``_total``, a histogram without ``_bucket``), whatever stands before it where it is
    exposed. Reasons of what was left out are added
    to ``dropped``. ValueError, one sentence, for a text that is beyond the bounds, cut short or
    no exposition at all.
    """
    said = read_exposition(text, families, content_type=content_type)
    if dropped is not None:
        dropped.update(said.dropped)
    rows = said.series
    n = len(rows)
    is_histogram = [bool(row.bounds) for row in rows]
    columns: dict[str, list[Any]] = {
        "kind": [row.kind for row in rows],
        "foreign_name": [row.name for row in rows],
        "foreign_value": [edge] * n,
        "labels": [kept_labels(row.labels) for row in rows],
        "value": [row.value for row in rows],
        "bucket_le": [r.bounds if h else None for r, h in zip(rows, is_histogram, strict=True)],
        "bucket_count": [r.counts if h else None for r, h in zip(rows, is_histogram, strict=True)],
        "window_start_ns": [at_ns] * n,
        "window_end_ns": [at_ns] * n,
        "replica": [replica] * n,
        "source": ["prometheus"] * n,
    }
    if role is not None:
        columns["role"] = [role] * n
    return columns


def read_exposition(text: str, families: frozenset[str], *, content_type: str = "") -> Exposition:
    """Every whole series of ``families`` in ``text``, in the order of first appearance.

    A line that cannot be read, a sample that is NaN, infinite, negative where that cannot be, or
    that comes twice, and a histogram whose parts contradict each other are left out and counted;
    what else the text says stands. ValueError as for ``columns_of``.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"the metrics are longer than {MOST_TEXT >> 20} MiB")
    if content_type.lower().startswith(OPENMETRICS) and not text.rstrip().endswith("# EOF"):
        raise ValueError("the metrics end before their end mark (# EOF)")
    dropped: Counter[str] = Counter()
    names: dict[str, str | None] = {}
    types, lines, any_line = _cut(text, families, names, dropped)
    if not any_line and text.strip():
        raise ValueError("the reply is not in Prometheus format: none of its lines is a sample")
    plain: dict[tuple[str, Labels], Series] = {}
    grouped: dict[tuple[str, Labels], _Histogram] = {}
    for exposed, labels, value in _samples(lines, dropped):
        name = names.get(exposed) or known_name(exposed, families) or exposed
        family, suffix = _family(name, families, types)
        kind = types.get(family) or types.get(family.removesuffix("_total"), "untyped")
        if kind in _UNTYPED:
            kind = kind_of(family)
        if kind == "histogram":
            _into(grouped, family, suffix, labels, value, dropped)
        elif kind in ("counter", "gauge") and not suffix:
            _single(plain, kind, name, labels, value, dropped)
        else:
            dropped["of another type than counter, gauge and histogram"] += 1
    whole = (_whole(name, labels, found, dropped) for (name, labels), found in grouped.items())
    return Exposition([*plain.values(), *(one for one in whole if one is not None)], dropped)


def _cut(
    text: str,
    families: frozenset[str],
    known: dict[str, str | None],
    dropped: Counter[str],
) -> tuple[dict[str, str], list[str], bool]:
    """Types by family, the sample lines of ``families``, and whether there is any sample.
    ``known`` takes, by exposed name, the name as it is in ``families``."""
    types: dict[str, str] = {}
    lines: list[str] = []
    kept = 0
    any_line = False
    for found in itertools.chain.from_iterable(map(_LINE.finditer, _pieces(text))):
        typed, kind, name = found.groups()
        any_line = any_line or name is not None
        exposed = typed or name
        wanted = known[exposed] if exposed in known else known_name(exposed, families)
        if len(known) < MOST_SERIES:
            known[exposed] = wanted
        if wanted is None:
            continue
        if typed is not None:
            types.setdefault(wanted, kind)
            continue
        line = found[0].strip()
        if len(line) > MOST_LINE:
            dropped[f"a line longer than {MOST_LINE} characters"] += 1
            continue
        lines.append(line)
        kept += len(line)
        if len(lines) > MOST_SERIES:
            raise ValueError(
                f"the metrics have more than {MOST_SERIES:,} series of known families"
            )
        if kept > MOST_KEPT:
            raise ValueError(f"the known families take more than {MOST_KEPT >> 20} MiB of metrics")
    return types, lines, any_line


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of whole lines: one search of all of it would hold up other threads."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PIECE)
        end = len(text) if end < 0 else end + 1
        yield text[start:end]
        start = end


def _family(name: str, families: frozenset[str], types: dict[str, str]) -> tuple[str, str]:
    """A sample's family and the suffix by which it is a histogram's part, empty for none."""
    if name in types and name in families:
        return name, ""
    for suffix in SUFFIXES:
        inner = name.removesuffix(suffix)
        if inner != name and inner in families:
            return inner, suffix
    return name, ""


def _samples(
    lines: list[str], dropped: Counter[str]
) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of every line that can be read."""
    for start in range(0, len(lines), _BLOCK):
        block = lines[start : start + _BLOCK]
        try:
            found = _parsed("\n".join(block))
        except _UNREADABLE:
            found = []
            for line in block:
                try:
                    found += _parsed(line)
                except _UNREADABLE:
                    dropped["a line that cannot be read"] += 1
        yield from found


#: What the parser raises on text that is not what it says; OverflowError is of huge integers.
_UNREADABLE = (ValueError, IndexError, KeyError, TypeError, OverflowError)


def _parsed(text: str) -> list[tuple[str, dict[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    return [
        (sample.name, sample.labels, float(sample.value))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def _single(
    plain: dict[tuple[str, Labels], Series],
    kind: str,
    name: str,
    labels: dict[str, str],
    value: float,
    dropped: Counter[str],
) -> None:
    key = (name, tuple(sorted(labels.items())))
    if not math.isfinite(value):
        dropped["a value that is NaN or infinite"] += 1
    elif kind == "counter" and value < 0:
        dropped["a negative counter"] += 1
    elif key in plain:
        dropped["a series that comes twice"] += 1
    else:
        plain[key] = Series(kind, name, key[1], value)


def _into(
    grouped: dict[tuple[str, Labels], _Histogram],
    family: str,
    suffix: str,
    labels: dict[str, str],
    value: float,
    dropped: Counter[str],
) -> None:
    """A histogram's sample to the others of its series."""
    le = labels.pop("le", None) if suffix == "_bucket" else None
    found = grouped.setdefault((family, tuple(sorted(labels.items()))), _Histogram())
    if suffix == "_sum" and found.total is None:
        found.total = value
    elif suffix == "_count" and found.count is None:
        found.count = value
    elif suffix == "_bucket":
        bound = _bound(le)
        if bound is None:
            dropped["a bucket without a bound"] += 1
        elif bound in found.buckets:
            dropped["a series that comes twice"] += 1
        elif len(found.buckets) > MOST_BUCKETS:
            dropped[f"a bucket beyond the first {MOST_BUCKETS} of its histogram"] += 1
        else:
            found.buckets[bound] = value
    else:
        dropped["a series that comes twice"] += 1


def _bound(le: str | None) -> float | None:
    try:
        bound = float(le or "")
    except ValueError:
        return None
    return None if math.isnan(bound) else bound


def _whole(family: str, labels: Labels, found: _Histogram, dropped: Counter[str]) -> Series | None:
    """The series of a histogram, or None (counted) where its parts are not one."""
    buckets = dict(sorted(found.buckets.items()))
    if found.count is not None:
        if buckets.get(math.inf, found.count) != found.count:
            dropped["a histogram whose count is not that of its last bucket"] += 1
            return None
        buckets[math.inf] = found.count
    counts = list(buckets.values())
    if found.total is None or not counts or math.inf not in buckets:
        dropped["a histogram without sum or count"] += 1
        return None
    if not math.isfinite(found.total):
        dropped["a value that is NaN or infinite"] += 1
        return None
    # Above 2**53 a count in a float is not a count any more.
    if not all(0 <= count < _EXACT and count == int(count) for count in counts):
        dropped["a histogram with counts that are none"] += 1
        return None
    if any(later < earlier for earlier, later in itertools.pairwise(counts)):
        dropped["a histogram with falling counts"] += 1
        return None
    return Series(
        "histogram", family, labels, found.total, list(buckets), [int(count) for count in counts]
    )
