"""How many examples a property is tried with, by the profile in force (``tests/conftest.py``)."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

#: Of the profile ``ci``, for a property that states no number.
FULL = 100


def examples(full: int, **more: Any) -> settings:
    """Settings of a property with ``full`` examples in the profile ``ci``, in proportion else."""
    return settings(max_examples=max(1, full * settings.default.max_examples // FULL), **more)
