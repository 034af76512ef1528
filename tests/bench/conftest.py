"""Benches take minutes and need a quiet machine: they run only when ``-m bench`` asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "bench" in config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="a bench: run it with pytest -m bench")
    for item in items:
        if _HERE in item.path.parents and item.get_closest_marker("bench"):
            item.add_marker(skip)
