"""Two arms of a comparison: that they are two, and are asked the same."""

from __future__ import annotations

from dataclasses import replace

from latdiag.load.work.behind import both_take, check_dialects, place_of
from latdiag.load.work.place import locate
from latdiag.load.work.prepare import Prepared
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown, without_credentials


def check_arms(base: str, candidate: str, path: str | None, same: bool) -> None:
    """UsageFault for two that speak different dialects, and, unless ``same`` says that it is
    meant, for one endpoint named twice."""
    _, one, spoken = locate(base, path)
    _, two, other = locate(candidate, path)
    if not same and place_of(one) == place_of(two):
        raise UsageFault(
            f"base and candidate are one endpoint ({shown(without_credentials(one), 80)})",
            "give two; `latdiag gate aa` compares an endpoint with itself",
        )
    check_dialects("the base", spoken, "the candidate", other)


def even(base: Prepared, candidate: Prepared) -> tuple[Prepared, Prepared]:
    """Both, with bodies that differ in the model's name alone."""
    ours, theirs = base.found, candidate.found
    workload = replace(
        base.workload,
        extras=both_take(ours, theirs),
        floor=max(base.workload.floor, candidate.workload.floor),
    )
    own = replace(workload, model=candidate.workload.model)
    return replace(base, workload=workload), replace(candidate, workload=own)
