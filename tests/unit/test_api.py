"""The Python API: what it is called, that it is lazy, silent, and raises nothing but its error."""

from __future__ import annotations

import ast
import inspect
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import latdiag
from latdiag import api
from latdiag.cli import VERBS
from latdiag.model.errors import LocalFault, RunFault, TargetFault, UnlikeRuns, UsageFault
from latdiag.runtime.calls import VerbEnd

from .golden import RUNS, unpack

ROOT = Path(__file__).parents[2]
PUBLIC = {
    *("compare_runs", "diagnose_run", "import_run", "open_run", "run_load", "run_probe"),
    *("Breakdown", "Caveat", "Comparison", "Estimate", "Interrupted", "LatdiagError", "Result"),
    *("Run", "Share", "StampedTransport", "Verdict"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return folder / unpack(RUNS / "load-metrics.run.tar.gz", folder)


# ---------------------------------------------------------------------- names
def test_the_public_names_are_these_and_each_is_there() -> None:
    assert set(latdiag.__all__) == PUBLIC and set(latdiag.__all__) <= set(dir(latdiag))
    for name in latdiag.__all__:
        assert inspect.getdoc(getattr(latdiag, name)), name
    with pytest.raises(AttributeError, match="run_gates"):
        latdiag.run_gates  # type: ignore[attr-defined] # noqa: B018


def test_type_checkers_are_told_the_same_names() -> None:
    stub = ast.parse((ROOT / "latdiag" / "__init__.pyi").read_text())
    told = {
        (alias.asname, node.module)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == set(latdiag._PLACE.items())  # type: ignore[attr-defined]


def test_no_public_name_is_that_of_a_room() -> None:
    rooms = {module.name for module in pkgutil.iter_modules(latdiag.__path__)}
    assert rooms and not rooms & set(latdiag.__all__)


def test_every_function_is_there_after_every_module_is_loaded(saved: Path) -> None:
    """An imported room becomes an attribute of the package: none may take a name's place."""
    code = """
import importlib, pkgutil, sys
import latdiag
for module in pkgutil.walk_packages(latdiag.__path__, "latdiag."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
run = latdiag.open_run(sys.argv[1])
assert latdiag.diagnose_run(run).verdict.sentence
assert latdiag.compare_runs(run, run).same_run
for ask in (
    lambda: latdiag.run_load("http://127.0.0.1", requests=0),
    lambda: latdiag.run_probe("http://127.0.0.1", budget="none"),
    lambda: latdiag.import_run("/dev/null/nowhere"),
):
    try:
        ask()
    except latdiag.LatdiagError as error:
        assert str(error) and error.__notes__
    else:
        raise AssertionError(ask)
latdiag.StampedTransport()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_parameter_is_an_option_of_its_verb() -> None:
    """So that an error of the command line can be said in its words, and none is made up."""
    shared = api.TargetOptions.__annotations__.keys()
    words = {name: option for option, name in api._NAMES.items() if option != "metric"}
    for function, verb, own in (
        (api.run_load, "load", shared),
        (api.run_probe, "probe", shared),
        (api.import_run, "import", set()),
    ):
        module, _, command = VERBS[verb][0].partition(":")
        params = getattr(__import__(module, fromlist=[command]), command).params
        options = {option.lstrip("-") for param in params for option in param.opts}
        named = {*inspect.signature(function).parameters, *own}
        named -= {"url", "target", "slo", "path", "more"}
        assert len(named) > 1
        asked = {words.get(name, name.replace("_", "-")) for name in named}
        assert asked <= options, asked - options


# ---------------------------------------------------------------------- faults
FAULTS: list[tuple[type[latdiag.LatdiagError], str, Callable[[Path], object]]] = [
    (RunFault, "not a run", lambda run: latdiag.open_run("nowhere")),
    (RunFault, "not a run", lambda run: latdiag.open_run(run / "writers")),
    (RunFault, "nothing matches", lambda run: latdiag.diagnose_run("no*where.run")),
    (UsageFault, "no metric called 'tfft'", lambda run: latdiag.diagnose_run(run, "tfft.p95<1s")),
    (UsageFault, "not an objective", lambda run: latdiag.diagnose_run(run, slo=["ttft"])),
    (UsageFault, "more than once", lambda run: latdiag.diagnose_run(latdiag.open_run(run, run))),
    (UsageFault, "no metric called", lambda run: latdiag.compare_runs(run, run, metrics="speed")),
    (UsageFault, "same run", lambda run: latdiag.compare_runs([run, run], run)),
    (UsageFault, "no interval", lambda run: latdiag.diagnose_run(run).requests("ttft")),
    (
        UsageFault,
        "'x' is not an objective",
        lambda run: latdiag.run_probe("http://[::1]:1", slo="x"),
    ),
]


@pytest.mark.parametrize(("kind", "words", "ask"), FAULTS, ids=[words for _, words, _ in FAULTS])
def test_what_cannot_be_is_one_error_and_nothing_is_printed(
    kind: type[latdiag.LatdiagError],
    words: str,
    ask: Callable[[Path], object],
    saved: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(latdiag.LatdiagError, match=words) as caught:
        ask(saved)
    assert type(caught.value) is kind and caught.value.remedy
    assert capfd.readouterr() == ("", "")


def test_errors_of_the_command_line_are_in_words_of_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ends(text: str, remedy: str, code: str = "usage") -> None:
        error = {"code": code, "text": text, "remedy": remedy}
        printed = json.dumps({"schema": 1, "error": error, "run": "a.run"})
        monkeypatch.setattr(api, "call", lambda *_: VerbEnd(2, printed))

    ends("--isl wants --max-tokens-total 300 or --body-json", "choose another place with --out")
    with pytest.raises(UsageFault) as caught:
        latdiag.run_load("http://host")
    assert caught.value.text == "isl= wants max_tokens_total=300 or body="
    assert caught.value.remedy == "choose another place with out="
    assert caught.value.run == "a.run"
    assert caught.value.__notes__ == ["try: choose another place with out="]
    ends("no usable reply", "latdiag load URL --timeout 5m", "target")
    with pytest.raises(TargetFault) as said:
        latdiag.run_load("http://host")
    # A command of the command line stays one, and what is no parameter here stays an option.
    assert said.value.remedy == "latdiag load URL --timeout 5m"
    ends("--not-here", "")
    with pytest.raises(UsageFault, match=r"^--not-here$"):
        latdiag.run_load("http://host")


def test_a_process_that_says_nothing_sensible_is_a_fault_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for printed in ("", "[]", "{", "null"):
        monkeypatch.setattr(api, "call", lambda *_, p=printed: VerbEnd(3, p))
        with pytest.raises(LocalFault, match="ended with 3 and no result"):
            latdiag.run_load("http://host")


def test_unlike_runs_are_compared_only_by_force(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / unpack(RUNS / "probe-queue.run.tar.gz", tmp_path)
    with pytest.raises(UnlikeRuns, match="different workloads") as caught:
        latdiag.compare_runs(saved, str(other))
    assert "force=" in caught.value.remedy and "--" not in caught.value.remedy
    comparison = latdiag.compare_runs(saved, str(other), metrics="ttft", force=True, seed=3)
    assert comparison.seed == 3 and comparison.caveats[0].code == "LD121"


def test_an_interrupt_is_one_of_ours_wherever_it_comes(
    monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "diagnosed", interrupted)
    with pytest.raises(latdiag.Interrupted) as caught:
        latdiag.diagnose_run(saved)
    assert isinstance(caught.value, KeyboardInterrupt) and caught.value.run is None


@pytest.mark.parametrize("code", [0, 11, 12, 14])
def test_a_verdict_of_the_exit_code_is_no_error(
    code: int, monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    """INVALID, an objective missed or undecided: the result says so."""
    printed = json.dumps({"run": str(saved), "caveats": [], "valid": code != 12})
    monkeypatch.setattr(api, "call", lambda *_: VerbEnd(code, printed))
    assert latdiag.run_probe("http://host").run == str(saved)
    assert latdiag.run_load("http://host").paths == [str(saved)]


def test_a_parameter_that_there_is_not_is_named() -> None:
    with pytest.raises(TypeError, match="'concurency'"):
        latdiag.run_load("http://host", concurency=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'requests'"):
        latdiag.run_probe("http://host", requests=3)  # type: ignore[call-arg]


# ---------------------------------------------------------------------- what is asked
def test_what_a_call_asks_for_reaches_the_verb(
    monkeypatch: pytest.MonkeyPatch, saved: Path, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def call(arguments: list[str], variables: dict[str, str]) -> VerbEnd:
        asked[:] = [arguments, variables]
        return VerbEnd(0, json.dumps({"run": str(saved), "caveats": []}))

    monkeypatch.setattr(api, "call", call)
    monkeypatch.setenv("SOME_KEY", "secret-key")
    run = latdiag.run_load(
        "--url",
        requests=5,
        rate=2.5,
        duration="1m",
        prompts=tmp_path,
        insecure=True,
        allow_unauthenticated=False,
        otlp=True,
        metrics=["http://a", "http://b"],
        body={"top_p": 0.5},
        headers={"X-Key": "secret-header"},
        api_key_env="SOME_KEY",
    )
    assert run.paths == [str(saved)]
    verb, *options = asked[0]
    assert verb == "load" and options[-2:] == ["--", "--url"]
    assert set(options[:-2]) == {
        *("--json", "--quiet", "--requests=5", "--rate=2.5", "--duration=1m"),
        *(f"--prompts={tmp_path}", "--insecure", "--otlp", "--metrics=http://a"),
        *("--metrics=http://b", '--body-json={"top_p": 0.5}', "--api-key-env=SOME_KEY"),
        "--header-env=X-Key: LATDIAG_HEADER_0",
    }
    assert asked[1] == {"LATDIAG_HEADER_0": "secret-header", "SOME_KEY": "secret-key"}
    latdiag.run_load("u", otlp="127.0.0.1:9", duration=3)
    assert {"--otlp=127.0.0.1:9", "--duration=3"} <= set(asked[0])


def test_what_only_the_verb_knows_of_its_run_is_in_the_result(
    monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    cut = {"code": "LD433", "text": "the collector was lost", "remedy": "try again"}
    other = {"code": "LD101", "text": "known anyway", "remedy": "none"}
    ended = json.dumps({"run": str(saved), "caveats": [cut, other]})
    monkeypatch.setattr(api, "call", lambda *_: VerbEnd(16, ended))
    with pytest.raises(LocalFault, match="the collector was lost") as caught:
        latdiag.run_load("http://host")
    assert caught.value.run == str(saved)
    result = latdiag.run_probe("http://host", slo="ttft.p50<1s")
    assert [one.text for one in result.caveats].count("the collector was lost") == 1
    assert "known anyway" not in [one.text for one in result.caveats]
    assert result.verb == "probe" and len(result.slo) == 1


# ---------------------------------------------------------------------- a result
def test_a_run_says_where_it_is(saved: Path) -> None:
    assert repr(latdiag.open_run(saved)) == f"Run('{saved}')"


def test_a_breakdown_is_a_frame(saved: Path) -> None:
    found = latdiag.diagnose_run(saved).breakdown("mean")
    assert found is not None
    frame = found.frame()
    assert frame.share.sum() == pytest.approx(1)
    assert round(frame.sum_ms.sum() * 1e6) == found.total_ns
    assert frame.loc["frontend", "members"] == ("frontend", "gateway")
    assert (frame.lo <= frame.share).all() and (frame.share <= frame.hi).all()


def test_a_notebook_shows_the_first_screen_and_escapes_what_is_foreign(saved: Path) -> None:
    from dataclasses import replace

    from latdiag.diagnosis.result import InvalidBecause, Result

    result = latdiag.diagnose_run(saved)
    html = result._repr_html_()
    assert result.verdict is not None and "<b>DECODE:</b>" in html and "Slowest 5 %" in html
    assert result.verdict.sentence.split(" [")[0] in html.replace("\u00a0", " ")
    assert html.count("<svg") >= 2 and "<script" not in html and "Median request" in html
    hostile = "<script>alert('x')</script>\x1b[31m\u202e"
    loud = replace(result, verdict=replace(result.verdict, sentence=hostile, dominant=hostile))
    assert "<script" not in loud._repr_html_().lower()
    assert not {"\x1b", "\u202e"} & set(loud._repr_html_())
    broken = replace(
        result, invalid_because=(InvalidBecause("lateness", "it was late", 2, 1, "ms"),)
    )
    assert "<b>INVALID:</b> Lateness: 2.00" in broken._repr_html_()
    assert result.verdict.sentence not in broken._repr_html_()
    assert "<script" not in Result(verb="compare", run=hostile)._repr_html_()


def test_what_has_no_requests_is_not_said_to_have_failed(saved: Path) -> None:
    compared = latdiag.compare_runs(saved, saved).result()
    assert "latdiag compare" in compared._repr_html_()
    assert "succeeded" not in compared._repr_html_() and "<svg" not in compared._repr_html_()
    with pytest.raises(UsageFault, match="has no requests"):
        compared.plot()


def test_a_plot_is_an_image_with_the_numbers_of_the_result(saved: Path, tmp_path: Path) -> None:
    from xml.etree import ElementTree

    result = latdiag.diagnose_run(saved)
    image = result.plot()
    root = ElementTree.fromstring(str(image))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and image._repr_svg_() == image.svg
    values = [each.get("data-value") for each in root.iter() if each.get("data-path")]
    shares = result.breakdowns["mean"].shares
    assert {repr(each.share) for each in shares.values() if (each.share or 0) > 0.005} <= set(
        values
    )
    image.save(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == image.svg
    with pytest.raises(UsageFault, match="exists already"):
        image.save(tmp_path / "a.svg")
    with pytest.raises(LocalFault, match="cannot be written"):
        image.save(tmp_path / "no" / "a.svg")
