"""How often a thing is tried, by the profile in force (``tests/conftest.py``): examples of a
property, repetitions of a statistic."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

#: Of the profile ``ci``, for a property that states no number.
FULL = 100


def examples(full: int, **more: Any) -> settings:
    """Settings of a property with ``full`` examples in the profile ``ci``, in proportion else."""
    return settings(max_examples=repetitions(full), **more)


def repetitions(full: int) -> int:
    """``full`` in the profile ``ci``, in proportion else. Mark ``repeated`` what uses it, so that
    CI finds it; its bounds are those of the full number or follow from the number."""
    return max(1, full * settings.default.max_examples // FULL)
