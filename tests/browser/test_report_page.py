"""Pages of ``latdiag report`` in a headless Chromium, as a reader has them.

Marked ``browser``: skipped where Chromium, Playwright or axe-core is not installed:
CONTRIBUTING.md says how.
REPORT_SHOTS=FOLDER keeps a screenshot of each page, in each form, to be looked at.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latdiag.gate.document import dumped
from tests.bench.gate.world import Fault
from tests.unit.gating.made import measured
from tests.unit.golden import RUNS, said, unpack
from tests.unit.test_report_html import HOSTILE, Reply, load, made

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FORMS = {
    "wide": {"viewport": {"width": 1280, "height": 720}},
    "dark": {"viewport": {"width": 1280, "height": 720}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}},
    "phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
    "plain": {"viewport": {"width": 1280, "height": 720}, "java_script_enabled": False},
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {
        name: str(folder / unpack(RUNS / f"{name}.run.tar.gz", folder))
        for name in ("probe-queue", "probe-kv-spans", "load-metrics")
    }
    runs["failed"] = made(
        folder / "f.run", [Reply("", 9, 10**8 * k, status=500) for k in range(9)]
    )
    runs["one"] = made(folder / "one.run", load(1))
    hostile = folder / "h.run"
    made(hostile, load(300))
    header = json.loads((hostile / "run.json").read_text())
    header["target"] |= {"model": HOSTILE, "url": f"http://h/{HOSTILE}"}
    header["command"] = HOSTILE
    (hostile / "run.json").write_text(json.dumps(header))
    runs["hostile"] = str(hostile)
    words = {name: [run] for name, run in runs.items()}
    words["compared"] = [runs["probe-queue"], runs["probe-kv-spans"], "--force"]
    words["gate"] = [str(folder / "gate.json")]
    (folder / "gate.json").write_text(dumped(measured(Fault(prefill=1.4))))
    for name, given in words.items():
        assert "Saved" in said("report", *given, "-o", str(folder / f"{name}.html"))
    return {name: folder / f"{name}.html" for name in words}


def opened(chromium: Any, path: Path, **form: Any) -> tuple[Any, list[str], list[str]]:
    """(The page, what it complains of, what it asks for besides itself)."""
    page = chromium.new_context(**form).new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_load_state("load")
    return page, complaints, asked[1:]


@pytest.mark.parametrize("form", FORMS)
def test_no_page_asks_for_anything_complains_or_overflows(
    chromium: Any, pages: dict[str, Path], form: str
) -> None:
    for name, path in pages.items():
        page, complaints, asked = opened(chromium, path, **FORMS[form])
        assert (complaints, asked) == ([], []), name
        if form != "plain":
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, name
        if shots := os.environ.get("REPORT_SHOTS"):
            page.screenshot(path=Path(shots) / f"{name}-{form}.png", full_page=True)
        page.context.close()


def test_a_violation_would_be_seen(chromium: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    text = pages["one"].read_text().replace("</main>", "<p style='color:red'>x</p></main>")
    broken.write_text(
        text.replace("</footer>", "<script>document.title = 'ran'</script></footer>")
    )
    page, complaints, _ = opened(chromium, broken)
    assert len(complaints) >= 2 and page.title() != "ran"
    page.context.close()


def test_the_first_screen_reads_without_scripts(chromium: Any, pages: dict[str, Path]) -> None:
    """The verdict and the drawings are in the first window, before any script ran."""
    for name in ("probe-queue", "probe-kv-spans", "load-metrics"):
        page, _, _ = opened(chromium, pages[name], **FORMS["plain"])
        heading = page.locator("h1")
        assert heading.is_visible() and len(heading.inner_text()) > 40
        first = page.locator(".grid svg").first.bounding_box()
        assert first["y"] + first["height"] < 720 and first["width"] > 300
        charts = page.locator("figure.chart svg")
        assert charts.count() >= 3 and all(each.is_visible() for each in charts.all()), name
        page.context.close()


def test_with_scripts_lines_are_read_with_the_keyboard(
    chromium: Any, pages: dict[str, Path]
) -> None:
    page, _, _ = opened(chromium, pages["load-metrics"], **FORMS["wide"])
    plot = page.locator(".plot").first
    assert page.locator(".plot canvas").count() == page.locator("figure[data-chart]").count() > 1
    assert not page.locator("figure[data-chart] .static").first.is_visible()
    plot.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    values = plot.locator(".u-legend .u-value").all_inner_texts()
    assert all(value.strip() not in ("", "–", "--") for value in values), values
    page.emulate_media(media="print")
    assert page.locator("figure[data-chart] .static svg").first.is_visible()
    assert not plot.is_visible()
    page.context.close()


def test_a_hostile_run_has_the_elements_of_a_tame_one(
    chromium: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    tame = tmp_path / "tame.html"
    assert "Saved" in said("report", made(tmp_path / "t.run", load(300)), "-o", str(tame))
    counts = []
    for path in (tame, pages["hostile"]):
        page, complaints, _ = opened(chromium, path, **FORMS["plain"])
        assert complaints == []
        counts.append(
            [page.locator(each).count() for each in ("*", "script", "img", "style", "svg")]
        )
        page.context.close()
    assert counts[0] == counts[1]


@pytest.mark.skipif(not AXE.exists(), reason="axe-core: npm install --prefix tests/browser")
@pytest.mark.parametrize("form", ["wide", "dark", "phone", "phone-dark"])
def test_axe_has_nothing_serious(chromium: Any, pages: dict[str, Path], form: str) -> None:
    """In a second pass, without the page's policy, which forbids axe too."""
    rules = AXE.read_text(encoding="utf-8")
    for name, path in pages.items():
        page, _, _ = opened(chromium, path, bypass_csp=True, **FORMS[form])
        page.evaluate(rules)
        found = page.evaluate("axe.run()")
        assert len(found["passes"]) > 15
        bad = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
        assert not bad, (name, [(b["id"], b["nodes"][0]["html"][:200]) for b in bad])
        page.context.close()
