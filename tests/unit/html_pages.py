"""A page of ``latdiag report`` as a reader of HTML sees it, and what it may never hold."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

#: Elements without an end.
_VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})


class Page(HTMLParser):
    """``elements``: (name, attributes, text inside) in the order of their ends; AssertionError
    where ends do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], str]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        assert len(given) == len(attrs), f"an attribute twice: {attrs}"
        if tag in _VOID:
            self.elements.append((tag, given, ""))
        else:
            self._open.append((tag, given, []))

    def handle_endtag(self, tag: str) -> None:
        name, given, inside = self._open.pop()
        assert name == tag, f"<{name}> is ended by </{tag}>"
        self.elements.append((name, given, "".join(inside)))
        if self._open:
            self._open[-1][2].append("".join(inside))

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1][2].append(data)

    def all(self, *tags: str) -> list[tuple[dict[str, str], str]]:
        return [(given, text) for name, given, text in self.elements if name in tags]


def check(text: str) -> Page:
    """What holds of every page: it is whole, loads nothing, and its policy allows it as it is."""
    page = Page(text)
    (policy,) = [
        given["content"] for given, _ in page.all("meta")
        if given.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    scripts = [
        (given, inside) for given, inside in page.all("script")
        if given.get("type") != "application/json"
    ]  # fmt: skip
    styles = page.all("style")
    assert len(styles) == 1 and len(scripts) <= 1
    rules = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert rules["default-src"] == "'none'" and "unsafe" not in policy and "*" not in policy
    assert rules["style-src"] == _hash(styles[0][1])
    assert [rules.get("script-src")] == ([_hash(scripts[0][1])] if scripts else [None])
    for name, given, _ in page.elements:
        assert name not in ("link", "img", "iframe", "object", "embed", "base", "form"), name
        assert not {"src", "style", "srcset", "action", "background"} & given.keys(), given
        assert not [key for key in given if key.startswith(("on", "xlink"))]
        assert given.get("href", "#").startswith("#")
    assert not re.search(r"@import|url\(", styles[0][1])
    _check_reading(page)
    return page


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _check_reading(page: Page) -> None:
    """By a screen reader: one h1, tables with heads and captions, drawings with words."""
    assert len(page.all("h1")) == 1 and len(page.all("main")) == 1
    assert page.all("html")[0][0]["lang"] == "en" and page.all("title")[0][1].strip()
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(given.get("scope") in ("col", "row") for given, _ in page.all("th"))
    for given, _ in page.all("svg"):
        assert given.get("aria-label") or given.get("aria-hidden") == "true"
    ids = [given["id"] for _, given, _ in page.elements if "id" in given]
    assert len(ids) == len(set(ids))
    links = {given["href"][1:] for given, _ in page.all("a")}
    assert links <= set(ids)


def numbers(page: Page) -> list[tuple[str, str, str]]:
    """(pointer into the document, value, what is shown) of every number that has a place."""
    return [
        (given["data-path"], given.get("value", given.get("data-value", "")), text)
        for _, given, text in page.elements
        if "data-path" in given
    ]


def resolve(document: Any, pointer: str) -> Any:
    """What lies at a JSON pointer."""
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def check_numbers(page: Page, document: Any) -> int:
    """Each number is the document's, and what is shown is that number, rounded; how many."""
    found = numbers(page)
    for pointer, value, shown in found:
        at = resolve(document, pointer)
        assert isinstance(at, int | float) and json.loads(value) == at, pointer
        text = re.sub(r"[^\d.eE+-]", "", shown.replace("−", "-").replace("req/s", ""))
        _check_rounded(float(text.rstrip("e.") or "nan"), at, document, pointer, shown)
    return len(found)


def _check_rounded(told: float, at: float, document: Any, pointer: str, shown: str) -> None:
    scales = [1.0, 100.0, 1e-3]
    if pointer.endswith("_ns"):
        parent = resolve(document, pointer.rpartition("/")[0])
        whole = resolve(document, "/".join(pointer.split("/")[:-2]))
        own = [each.get("n") for each in (parent, whole) if isinstance(each, dict)]
        n = next(filter(None, own), None) or document["result"]["requests"]
        scales = [scale / n for scale in (1e-6, 1e-9)] + [1e-6, 1e-9]
    elif "outcomes" in pointer:  # of a gate: levels in ns
        scales.append(1e-6)
    digits = len(re.sub(r"\D", "", shown.partition(".")[2]))
    half = 0.5000001 * 10.0**-digits
    assert any(abs(told - at * scale) <= half for scale in scales), (pointer, at, shown)
