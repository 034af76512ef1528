"""Runs that a user names, diagnosed as one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from latdiag.diagnosis import diagnose
from latdiag.diagnosis.header import section, target_of
from latdiag.model.caveats import caveat
from latdiag.model.errors import UsageFault

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Result
    from latdiag.measurement.slo import Slo
    from latdiag.model.caveat import Caveat
    from latdiag.store.run import Reader, Run


def diagnosed(run: Run, slos: Sequence[Slo] = (), *also: Reader) -> Result:
    """Everything that is said of ``run``, which may be several: their requests are taken together.
    ``also``: who else takes the run's rows as they go by.

    UsageFault for runs whose requests cannot be attributed as one.
    """
    _check_together(run)
    result = diagnose.result_of(run, "diagnose", slos, *also)
    if len(run.paths) > 1:
        caveats = (*result.caveats, *_caveats(run))
        result = replace(result, runs=tuple(run.paths), caveats=caveats)
    return result


def _check_together(run: Run) -> None:
    """UsageFault for runs whose rows cannot be attributed as one."""
    places = [path if "://" in path else os.path.realpath(path) for path in run.paths]
    for place, path in zip(places, run.paths, strict=True):
        if places.count(place) > 1:
            raise UsageFault(f"{path} is named more than once", "name every run once")
    designed = [bool(section(header, "plan").get("designed")) for header in run.headers]
    if any(designed) and not all(designed):
        # Its laws are learned for its own workload; the load's rows would silently be left out.
        raise UsageFault(
            "a probe and a load rest on different evidence and cannot be diagnosed together",
            "diagnose them separately",
        )


def _caveats(run: Run) -> list[Caveat]:
    targets = {(target.url, target.model) for target in map(target_of, run.headers)}
    if len(targets) < 2:
        return []
    return [caveat("LD117", targets=len(targets), runs=len(run.headers))]
