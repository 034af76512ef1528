"""``latdiag report A B``: runs side by side, with what ``latdiag compare`` says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .golden import said
from .html_pages import Page, check, check_numbers
from .probe_rows import Reply, reply
from .saved_probe import save
from .test_report_html import HOSTILE


def load(n: int, server_ms: float) -> list[Reply]:
    return [
        reply("", 100, 100.0 * k, server_ms + (7 * k) % 5, [5.0 + k % 2] * 20) for k in range(n)
    ]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    return tuple(  # type: ignore[return-value]
        save(tmp_path / f"{name}.run", load(120, ms), designed=False)
        for name, ms in (("before", 20.0), ("after", 45.0))
    )


def written(folder: Path, *args: str) -> str:
    file = folder / "page.html"
    text = said("report", *args, "-o", str(file))
    assert "Saved " in text, text
    return file.read_text(encoding="utf-8")


def documents(text: str) -> Any:
    return json.loads(text.rpartition("exit")[0])


def test_every_number_is_that_of_compare(pair: tuple[str, str], tmp_path: Path) -> None:
    page = check(written(tmp_path, *pair))
    document = documents(said("compare", *pair, "--json"))
    assert check_numbers(page, document) > 60
    (heading,) = (inside for _, inside in page.all("h1"))
    assert document["compared"]["sentence"].partition(":")[0] in heading.replace("\u00a0", " ")
    (main,) = (inside for _, inside in page.all("main"))
    assert pair[0] in main and pair[1] in main


def test_of_three_each_is_beside_the_first(pair: tuple[str, str], tmp_path: Path) -> None:
    third = save(tmp_path / "third.run", load(120, 21.0), designed=False)
    text = written(tmp_path, *pair, third)
    check(text)
    (main,) = text.split("<main", 1)[1:]
    for place, other in enumerate((pair[1], third)):
        article = main.split(f'<article id="comparison-{place}"')[1].split("</article>")[0]
        document = documents(said("compare", pair[0], other, "--json"))
        own = Page(f"<article>{article.partition('>')[2]}</article>")
        assert check_numbers(own, document) > 60 and other in article and pair[0] in article
    file = tmp_path / "again.html"
    both = documents(said("report", *pair, third, "-o", str(file), "--json"))
    assert [each["runs"][1] for each in both] == [pair[1], third]


def test_other_workloads_need_force(pair: tuple[str, str], tmp_path: Path) -> None:
    other = save(tmp_path / "other.run", load(120, 20.0), designed=False)
    header = json.loads((tmp_path / "other.run" / "run.json").read_text())
    header["target"]["model"] = HOSTILE
    (tmp_path / "other.run" / "run.json").write_text(json.dumps(header))
    file = str(tmp_path / "a.html")
    refused = said("report", pair[0], other, "-o", file, "--json")
    assert "different workloads" in refused and "--force" in refused
    assert not Path(file).exists()
    text = written(tmp_path, pair[0], other, "--force")
    names = [name for name, _, _ in check(text).elements]
    assert "LD121" in text and "script" not in names and "img" not in names


def test_what_cannot_stand_side_by_side_is_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    file = str(tmp_path / "a.html")
    for words, why in (
        ((pair[0], pair[1], "--slo", "ttft.p50<1s"), "no SLO"),
        (pair[:1] * 7, "at most 6"),
    ):
        assert why in said("report", *words, "-o", file, "--json")
    assert not Path(file).exists()


def test_the_same_run_twice_says_so(pair: tuple[str, str], tmp_path: Path) -> None:
    assert "The same run" in written(tmp_path, pair[0], pair[0])
