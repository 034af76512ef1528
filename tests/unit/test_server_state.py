"""How full engines were is of scrapes that met requests."""

from __future__ import annotations

from latdiag.attribution.metrics.deltas import Sample
from latdiag.attribution.metrics.state import state_of
from latdiag.stacks.vllm import STACK

_NAMES = (
    ("vllm:num_requests_running", "gauge"),
    ("vllm:kv_cache_usage_perc", "gauge"),
    ("vllm:num_preemptions_total", "counter"),
)


def _scrapes(*values: tuple[float, float, float]) -> list[Sample]:
    """At each scrape in the midst of a load: running, KV use, preemptions so far."""
    return [
        Sample("http://a/metrics", "unified", name, kind, (), at, "interval", value)
        for at, each in enumerate(values)
        for (name, kind), value in zip(_NAMES, each, strict=True)
    ]


def test_the_most_that_any_scrape_met() -> None:
    found = state_of(_scrapes((0, 0, 4), (7, 0.5, 5), (3, 0.6, 6)), STACK.signals)
    assert found is not None
    assert (found.running, found.kv_used, found.preemptions) == (7, 0.6, 2)


def test_scrapes_that_met_no_request_say_nothing_of_how_full_engines_were() -> None:
    assert state_of(_scrapes((0, 0.0, 4), (0, 0.0, 4)), STACK.signals) is None
    found = state_of(_scrapes((0, 0.0, 4), (0, 0.0, 6)), STACK.signals)
    assert found is not None
    assert (found.running, found.kv_used, found.preemptions) == (None, None, 2)
