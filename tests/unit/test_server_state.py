"""How full the engines were, beside the verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from latdiag.diagnosis.diagnose import result_of
from latdiag.report.servers import fullest
from latdiag.stacks.catalogue import stacks
from latdiag.store.run import Run

from .saved_probe import save
from .test_scraped import SINCE, S, exposition, load, scraped


def gauges(used: float, running: int, waiting: int, evicted: int) -> str:
    return "".join(
        f'# TYPE vllm:{name} {kind}\nvllm:{name}{{engine="0"}} {value}\n'
        for name, kind, value in (
            ("kv_cache_usage_perc", "gauge", used),
            ("num_requests_running", "gauge", running),
            ("num_requests_waiting", "gauge", waiting),
            ("num_preemptions_total", "counter", evicted),
        )
    )


def run_of(path: Path, during: list[tuple[float, int, int, int]], last: int) -> Run:
    made = save(path, load(), designed=False)
    one = (0.04, 0.02, 0.045, 0.005)
    scraped(made, "begin", SINCE - S, exposition([]) + gauges(0.0, 0, 0, 2))
    for at, values in enumerate(during):
        scraped(made, "", SINCE + at * S, exposition([]) + gauges(*values))
    scraped(made, "end", SINCE + 10 * S, exposition([one] * 100) + gauges(0.0, 0, 0, last))
    return Run.open(made)


def test_the_fullest_scrape_is_shown_and_evictions_are_counted(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a.run", [(0.3, 4, 0, 2), (0.97, 16, 48, 4), (0.8, 16, 3, 5)], 5)
    found = result_of(run, "diagnose").aggregates
    assert found is not None and found.state is not None
    text = fullest(found.state)
    assert text == "KV cache 97 %, 16 running, 48 waiting at most (3 scrapes); 3 preemptions"


def test_scrapes_of_an_idle_server_say_nothing_of_what_it_was_in_between(tmp_path: Path) -> None:
    quiet = result_of(run_of(tmp_path / "a.run", [], 2), "diagnose").aggregates
    assert quiet is not None and quiet.state is None
    evicted = result_of(run_of(tmp_path / "b.run", [], 9), "diagnose").aggregates
    assert evicted is not None and evicted.state is not None
    assert fullest(evicted.state) == "7 preemptions"


@pytest.mark.parametrize("end", ["running", "waiting", "kv_usage"])
def test_engines_name_what_they_are_full_of_alike(end: str) -> None:
    named = {s.name.partition(".")[0] for k in stacks() for s in k.signals
             if s.name.rpartition(".")[2] == end and s.kind == "gauge"}  # fmt: skip
    assert {"vllm", "sglang", "tensorrt_llm"} <= named
