"""The text of /metrics into rows: two formats, what is malformed, what is hostile."""

from __future__ import annotations

import gzip
import math
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.ingest.prometheus import columns_of, read_exposition
from latdiag.ingest.prometheus import exposition as limits
from latdiag.stacks import catalogue
from latdiag.store.columns import arrow_batch
from tests.profiles import examples

CAPTURES = Path(__file__).parents[1] / "captures"
FAMILIES = frozenset({"a", "wait_seconds", "done_total", "process_start_time_seconds"})
WAIT = """# HELP wait_seconds Waiting.
# TYPE wait_seconds histogram
wait_seconds_bucket{le="0.3",engine="0"} 2.0
wait_seconds_bucket{le="+Inf",engine="0"} 3.0
wait_seconds_sum{engine="0"} 1.5
wait_seconds_count{engine="0"} 3.0
"""


def read(text: str, **more: str) -> tuple[list[tuple[object, ...]], Counter[str]]:
    """(kind, name, labels, value, bounds, counts) of every series, and what was dropped."""
    said = read_exposition(text, FAMILIES, **more)
    rows = [
        (one.kind, one.name, dict(one.labels), one.value, one.bounds, one.counts)
        for one in said.series
    ]
    return rows, said.dropped


def test_a_histogram_is_one_row_with_cumulative_buckets() -> None:
    rows, dropped = read(WAIT)
    assert rows == [("histogram", "wait_seconds", {"engine": "0"}, 1.5, [0.3, math.inf], [2, 3])]
    assert not dropped


def test_the_columns_are_those_of_the_table() -> None:
    text = WAIT + "# TYPE a gauge\na 4\n# TYPE process_start_time_seconds gauge\n"
    text += "process_start_time_seconds 1.7e+09\n"
    columns = columns_of(
        text, at_ns=7, replica="http://h/metrics", edge="begin", families=FAMILIES, role="decode"
    )
    table = arrow_batch("evidence", columns).to_pydict()
    assert table["kind"] == ["gauge", "gauge", "histogram"]
    assert table["foreign_name"] == ["a", "process_start_time_seconds", "wait_seconds"]
    assert table["bucket_le"] == [None, None, [0.3, math.inf]]
    assert table["bucket_count"] == [None, None, [2, 3]]
    assert table["labels"] == [[], [], [("engine", "0")]]
    assert table["window_start_ns"] == table["window_end_ns"] == [7, 7, 7]
    assert set(table["replica"]) == {"http://h/metrics"} and set(table["role"]) == {"decode"}
    assert set(table["source"]) == {"prometheus"} and set(table["foreign_value"]) == {"begin"}


@pytest.mark.parametrize(
    ("text", "content_type"),
    [
        ('# TYPE done_total counter\ndone_total{x="1"} 5 1700000000000\n', ""),
        ('# TYPE done_total counter\r\ndone_total{x="1"} 5\r\n', "text/plain"),
        (
            """# TYPE done counter
done_total{x="1"} 5.0 # {trace_id="ab"} 0.5 1.7e9
done_created{x="1"} 1.7e9
# EOF
""",
            "application/openmetrics-text; version=1.0.0",
        ),
    ],
    ids=["timestamp", "crlf", "openmetrics"],
)
def test_a_counter_is_named_as_exposed_in_both_formats(text: str, content_type: str) -> None:
    rows, dropped = read(text, content_type=content_type)
    assert rows == [("counter", "done_total", {"x": "1"}, 5.0, [], [])]
    assert not dropped


def test_openmetrics_that_ends_early_is_refused() -> None:
    with pytest.raises(ValueError, match="# EOF"):
        read("# TYPE a gauge\na 1\n", content_type="application/openmetrics-text")


def test_labels_keep_escapes_commas_and_braces() -> None:
    rows, _ = read('# TYPE a gauge\na{x="1\\"2\\\\3\\n4,}{",y=""} 1\n')
    assert rows[0][2] == {"x": '1"2\\3\n4,}{', "y": ""}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("# TYPE a gauge\na NaN\n", "NaN"),
        ("# TYPE a gauge\na +Inf\n", "NaN or infinite"),
        ("# TYPE done_total counter\ndone_total -1\n", "negative"),
        ('# TYPE a gauge\na{x="1",y="2"} 1\na{y="2",x="1"} 2\n', "twice"),
        ("# TYPE a gauge\na one\n", "cannot be read"),
        ('# TYPE a gauge\na{x="1} 1\n', "cannot be read"),
        ("# TYPE a gauge\na 1" + "0" * 400 + "\n", "cannot be read"),
        ('# TYPE a summary\na{quantile="0.5"} 1\n', "another type"),
        ("a 1\n", "another type"),
        ('# TYPE a gauge\na{x="' + "y" * 5000 + '"} 1\n', "longer than"),
        (WAIT.replace('_count{engine="0"} 3.0', '_count{engine="0"} 4.0'), "last bucket"),
        (WAIT.replace(" 2.0\n", " 9.0\n"), "falling"),
        (WAIT.replace(" 2.0\n", " 1.5\n"), "counts that are none"),
        (WAIT.replace('wait_seconds_sum{engine="0"} 1.5\n', ""), "without sum"),
        (WAIT.replace("} 1.5", "} NaN"), "NaN"),
        (WAIT.replace('le="0.3",', ""), "without a bound"),
        (WAIT + 'wait_seconds_sum{engine="0"} 2\n', "twice"),
    ],
)
def test_what_is_malformed_is_counted_and_the_rest_stands(body: str, reason: str) -> None:
    rows, dropped = read(
        body + "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 5\n"
    )
    assert ("gauge", "process_start_time_seconds", {}, 5.0, [], []) in rows
    assert [why for why in dropped if reason in why], dropped


def test_a_text_that_is_none_is_refused() -> None:
    for text in ("<html>not found</html>", "{}", '{"detail":"Not Found"}', "# only\n# comments\n"):
        with pytest.raises(ValueError, match="not in Prometheus format"):
            read(text)
    assert read("") == ([], Counter())


def test_what_is_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_SERIES", 10)
    with pytest.raises(ValueError, match="more than 10 series"):
        read("# TYPE a gauge\n" + "".join(f'a{{x="{i}"}} 1\n' for i in range(11)))
    monkeypatch.setattr(limits, "MOST_TEXT", 1000)
    with pytest.raises(ValueError, match="longer than"):
        read("b 1\n" * 251)
    monkeypatch.setattr(limits, "MOST_KEPT", 20)
    with pytest.raises(ValueError, match="known families"):
        read('# TYPE a gauge\na 1\na{x="12345678901234567890"} 1\n')


def test_families_that_nobody_asked_for_cost_no_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    parsed = limits._parsed
    monkeypatch.setattr(limits, "_parsed", lambda text: seen.append(text) or parsed(text))
    read("# TYPE b gauge\n" + "".join(f'b{{x="{i}"}} 1\n' for i in range(1000)) + WAIT)
    assert "".join(seen).count("\n") == 3


WORDS = st.sampled_from(
    [
        *("a", "wait_seconds_bucket", "wait_seconds_sum", "done_total", "# TYPE a gauge"),
        *("# TYPE wait_seconds histogram", "# TYPE", "#", "# {", "le=", '{le="1"}', '{a="b"}'),
        *("{", "}", "{}", '"', "\\", "=", ",", " ", "\t", "\n", "_", "é", "\x00", "\u2028"),
        *("1", "-1", "NaN", "+Inf", "1e999", "9" * 30),
    ]
)


@examples(400)
@given(st.lists(WORDS, max_size=60).map("".join))
def test_no_text_does_more_than_raise_value_error(text: str) -> None:
    try:
        columns = columns_of(text, at_ns=1, replica="r", edge="x", families=FAMILIES)
    except ValueError:
        return
    arrow_batch("evidence", columns)
    assert all(math.isfinite(value) for value in columns["value"])


_LABEL = re.compile(r'\w+="(?:[^"\\]|\\.)*"')


def plain_samples(path: Path) -> dict[tuple[str, str], float]:
    """Name and labels as written -> value, of an unbroken exposition, without a parser."""
    found = {}
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name, _, labels = series.partition("{")
            found[name, ",".join(sorted(_LABEL.findall(labels)))] = float(value)
    return found


def _exposed(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))


@pytest.mark.parametrize(
    "path",
    sorted(CAPTURES.rglob("*.prom.gz"))[::4] + sorted(CAPTURES.rglob("*metrics*.txt.gz")),
    ids=lambda path: "/".join(path.parts[-3:]),
)
def test_captures_are_read_to_the_last_sample(path: Path) -> None:
    text = gzip.decompress(path.read_bytes()).decode()
    families = catalogue.families()
    if not text.count("\n"):
        pytest.skip("a reply that is no exposition")
    said = read_exposition(text, families)
    assert not said.dropped
    plain = plain_samples(path)
    read_back = 0
    for one in said.series:
        if one.kind == "histogram":
            for bound, count in zip(one.bounds, one.counts, strict=True):
                matching = [
                    value
                    for (name, labels), value in plain.items()
                    if name == f"{one.name}_bucket"
                    and set(_exposed(dict(one.labels)).split(",")) <= set(labels.split(","))
                    and any(
                        part.startswith("le=") and float(part[4:-1]) == bound
                        for part in labels.split(",")
                    )
                ]
                assert count in matching
                read_back += 1
        else:
            assert plain[one.name, _exposed(dict(one.labels))] == one.value
            read_back += 1
    wanted = [
        name
        for name, _ in plain
        if name in families or any(name == f"{family}_bucket" for family in families)
    ]
    assert read_back == len(wanted) > 0
