"""Families of metrics by the names under which others expose them again.

Ray, OpenTelemetry's collector and rules for relabelling put words before a name, and underscores
in place of its colons: ``ray_vllm_num_requests_running`` is vLLM's ``vllm:num_requests_running``.
"""

from __future__ import annotations

from functools import cache, lru_cache

from latdiag.stacks.catalogue import METRIC_KINDS, PROCESS_FAMILIES, signals

#: The parts of a histogram.
SUFFIXES = ("_bucket", "_sum", "_count")
#: First words of families that others use too: behind a prefix these are anybody's.
_COMMON = frozenset({"process", "agent", "http", "go", "python"})
#: Words that are put in front, at most; words of a family that is known by its end, at least.
_PREFIX, _WORDS = 4, 3


def known_name(name: str, families: frozenset[str]) -> str | None:
    """The name that a sample or a type line called ``name`` has in ``families``, with the suffix
    of a histogram's part; None where it is of none of them."""
    if _among(name, families):
        return name
    plain = _plain(families)
    for suffix in ("", *SUFFIXES):
        inner = name.removesuffix(suffix)
        if not inner or (suffix and inner == name):
            continue
        parts = inner.replace(":", "_").split("_")
        for start in range(min(_PREFIX, len(parts) - _WORDS) + 1):
            end = "_".join(parts[start:])
            if end in plain:
                return plain[end] + suffix
            if not suffix and f"{end}_total" in plain:  # OpenMetrics declares it without
                return plain[f"{end}_total"].removesuffix("_total")
    return None


def kind_of(family: str) -> str:
    """The kind that stacks know a family to be of: for expositions that do not say. Empty where
    none knows it, or they differ."""
    return _kinds().get(family, "")


def _among(name: str, families: frozenset[str]) -> bool:
    if name in families or f"{name}_total" in families:
        return True
    return any(name.endswith(s) and name.removesuffix(s) in families for s in SUFFIXES)


@lru_cache(maxsize=4)
def _plain(families: frozenset[str]) -> dict[str, str]:
    """By the name without colons, the families that are known behind a prefix too."""
    found = {family.replace(":", "_"): family for family in families}
    return {
        plain: family
        for plain, family in found.items()
        if plain.partition("_")[0] not in _COMMON and plain.count("_") >= _WORDS - 1
    }


@cache
def _kinds() -> dict[str, str]:
    found = dict.fromkeys(PROCESS_FAMILIES, "gauge")
    differing = set()
    for kind in METRIC_KINDS:
        for family in signals(kind):
            if found.setdefault(family, kind) != kind:
                differing.add(family)
    return {family: kind for family, kind in found.items() if family not in differing}
