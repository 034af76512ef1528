"""A comparison as one document: what differs first, then how far metrics and parts lie apart.

It says more time or less, and whether an interval contains 0. Whether that is good is for the
reader: nothing here judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from latdiag.diagnosis.comparison import Side, compare
from latdiag.diagnosis.run_facts import Measured, alike, differs
from latdiag.model.caveats import caveat
from latdiag.model.units import quantity
from latdiag.report import json as result_json
from latdiag.stats.bootstrap import LEAST_PIECES

#: Compared where nothing else is asked for.
METRICS = ("ttft", "tpot", "itl", "e2e", "output_throughput")
#: Classes that the sentence names.
_NAMED = 2


def unlike(found: Sequence[Mapping[str, Any]]) -> str | None:
    """What is unlike in the workloads, in words; None where they are alike."""
    said = [f"{e['what']} {_value(e['a'])} against {_value(e['b'])}" for e in found if e["unlike"]]
    return "; ".join(said) or None


def compared(
    a: Sequence[Measured], b: Sequence[Measured], metrics: Sequence[str], seed: int
) -> dict[str, Any]:
    """The document that ``compare --json`` prints. ``a``, ``b``: the runs of each side."""
    result = result_json.blank("compare")
    sides = Side(run.rows for run in a), Side(run.rows for run in b)
    found = differs(a, b)
    same = sides[0].identities == sides[1].identities
    said = compare(*sides, metrics, seed)
    result["run"] = a[0].path
    result["runs"] = [run.path for run in (*a, *b)]
    broken = [
        {**rule, "text": f"{name}: {rule['text']}"}
        for name, side in zip("AB", (a, b), strict=True)
        for run in side
        for rule in run.result["invalid_because"]
    ]
    result["valid"], result["invalid_because"] = not broken, broken
    if what := unlike(found):
        result["caveats"].append(caveat("LD121", what=what))
    result["compared"] = {
        "a": _side(a),
        "b": _side(b),
        "differs": found,
        "alike": alike(a, b),
        "same_run": same,
        "seed": seed,
        **said,
    }
    result["compared"]["sentence"] = _sentence(said["components"].get("mean"), same)
    result["compared"]["notes"] = list(_notes(sides, said, same))
    return result


def _side(runs: Sequence[Measured]) -> dict[str, Any]:
    caveats: dict[str, dict[str, Any]] = {}
    for run in runs:
        for each in run.result["caveats"]:
            caveats.setdefault(each["text"], each)
    return {
        "runs": [run.path for run in runs],
        "valid": all(run.result["valid"] for run in runs),
        "requests": sum(run.rows.rows.requests for run in runs),
        "failed": sum(run.rows.rows.failed for run in runs),
        "caveats": sorted(caveats.values(), key=lambda each: (each["code"], each["text"])),
    }


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return " / ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


# ---------------------------------------------------------------------- in words
def _sentence(mean: Mapping[str, Any] | None, same: bool) -> str:
    """The whole, and which classes of it lie apart for certain."""
    if same:
        return "A and B hold the same requests: every difference is 0 by construction."
    if mean is None:
        return "No request of one side could be taken apart into components."
    whole = mean["total"]["difference"]
    if whole["value"] is None:
        return f"End to end nothing can be said: {whole['refused']}."
    text = f"End to end B takes {more(whole['value'], 'ms')} a request than A; {zero(whole)}."
    clear = [
        (name, entry["difference"]["value"])
        for name, entry in mean.items()
        if isinstance(entry, dict) and name != "total"
        if entry["difference"]["contains_zero"] is False
    ]
    clear.sort(key=lambda pair: -abs(pair[1]))
    if not clear:
        return text
    words = [
        f"{'+'.join(mean[name].get('members') or [name])} {more(value, 'ms')}"
        for name, value in clear[:_NAMED]
    ]
    return f"{text} Of the components whose interval leaves 0 out: {', '.join(words)}."


def more(value: float, unit: str) -> str:
    """``12.3 ms more``, ``4.00 tok/s less``, ``as much``."""
    if value == 0.0:
        return "as much"
    text = quantity(abs(value), unit).replace("\u00a0", " ")
    return f"{text} {'more' if value > 0 else 'less'}"


def zero(difference: Mapping[str, Any]) -> str:
    """Whether the interval contains 0."""
    if difference["contains_zero"] is None:
        return "there is no interval"
    return f"the 95 % interval {'contains' if difference['contains_zero'] else 'leaves out'} 0"


def _notes(sides: tuple[Side, Side], said: Mapping[str, Any], same: bool) -> Iterator[str]:
    """What the intervals do not hold."""
    if same:
        return
    bounded = [d for d in _differences(said) if d.get("contains_zero") is not None]
    few = [name for name, s in zip("AB", sides, strict=True) if len(s.runs) < LEAST_PIECES]
    if few and bounded:
        yield (
            f"What changes from run to run of one server (a restart, a drift) is not in the"
            f" intervals: {' and '.join(few)} {'has' if len(few) == 1 else 'have'} fewer than"
            f" {LEAST_PIECES} runs."
        )
    if len(bounded) > 1:
        apart = sum(not d["contains_zero"] for d in bounded)
        chance = len(bounded) / 20
        yield (
            f"{apart} of {len(bounded)} intervals leave 0 out; some {chance:.2g} would by chance"
            " if nothing differed."
        )


def _differences(node: Any) -> Iterator[dict[str, Any]]:
    """Every difference below ``node``."""
    if isinstance(node, dict):
        if "contains_zero" in node:
            yield node
        for below in node.values():
            yield from _differences(below)
