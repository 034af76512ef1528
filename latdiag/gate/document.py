"""gate.json: what was planned and measured, and the verdict, which anyone can compute again.

Reading it is replaying it: the plan and the blocks are read with suspicion, judged anew, and the
verdict in the file must be the same to the last digit. A file that somebody changed is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import cast

import numpy as np
from numpy.typing import NDArray

from latdiag import __version__
from latdiag.gate.blocks import Blocks, Column, Part
from latdiag.gate.judge import judged
from latdiag.gate.plan import Arms, Plan
from latdiag.gate.result import Verdict
from latdiag.gate.settings import settings_of, table_form
from latdiag.gate.table import Table
from latdiag.model.document import document
from latdiag.model.errors import RunFault, UsageFault
from latdiag.model.text import shown
from latdiag.store.documents import MAX_BYTES, from_bytes

SCHEMA = 1
_MOST_PAIRS, _MOST_BLOCK, _MOST_PARTS = 1_000, 10_000, 60
#: Whole numbers beyond this are no longer exact as floats, and no measurement of ours.
_MOST = 2**53
_BY_ARM = ("failed", "late", "lag_ns", "prompt", "cached")


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a verdict is computed from."""

    plan: Plan
    arms: Arms
    blocks: Blocks

    def verdict(self) -> Verdict:
        """The verdict on it."""
        return judged(self.blocks, self.plan, self.arms)


def dumped(measured: Measured) -> str:
    """The text of gate.json, with its verdict: ASCII, finite numbers."""
    keys = _keys(measured, measured.verdict())
    return json.dumps(keys | {"digest": _digest(keys)}, indent=1, allow_nan=False) + "\n"


def loaded(data: bytes, name: str) -> tuple[Measured, Verdict]:
    """What ``dumped`` wrote, and its verdict, computed anew. ``name``: of the file, for errors.

    RunFault for what is none, for a newer schema, and for a file that was changed.
    """
    if len(data) > MAX_BYTES:
        raise _no_gate(name, f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        raw = from_bytes(data)
    except ValueError as fault:
        raise _no_gate(name, str(fault)) from fault
    if raw.get("kind") != "gate":
        raise _no_gate(name, "it does not say that it is one")
    schema = raw.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise RunFault(
            f"{name} has schema {schema}; this latdiag reads up to {SCHEMA}", "update latdiag"
        )
    try:
        measured = _measured(raw)
        verdict = measured.verdict()
    except (KeyError, TypeError, ValueError, OverflowError) as fault:
        raise _no_gate(name, shown(fault, 120)) from fault
    except UsageFault as fault:
        raise _no_gate(name, fault.text) from fault
    _refuse_changed(raw, _keys(measured, verdict), name)
    return measured, verdict


def _keys(measured: Measured, verdict: Verdict) -> dict[str, object]:
    plan, blocks = measured.plan, measured.blocks
    columns = {
        key: {each.name: getattr(column, each.name) for each in fields(column)}
        for key, column in blocks.columns.items()
    }
    plain = {
        each.name: getattr(blocks, each.name)
        for each in fields(blocks)
        if each.name not in ("columns", "parts")
    }
    keys = {
        "schema": SCHEMA,
        "kind": "gate",
        "latdiag": __version__,
        "plan": {
            "pairs": plan.pairs,
            "block": plan.block,
            "fixed_length": plan.fixed_length,
            "settings": table_form(plan.settings),
            "looks": list(plan.looks),
        },
        "arms": measured.arms,
        "blocks": plain | {"columns": columns, "parts": blocks.parts},
        "result": verdict,
    }
    return cast("dict[str, object]", document(keys))


def _digest(keys: Mapping[str, object]) -> str:
    """Of all but itself, so that no number can be changed by a slip."""
    text = json.dumps(dict(keys), sort_keys=True, allow_nan=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _refuse_changed(raw: Mapping[str, object], anew: Mapping[str, object], name: str) -> None:
    held = {key: value for key, value in raw.items() if key != "digest"}
    genuine = raw.get("digest") == _digest(held)
    other = raw.get("latdiag") != __version__
    mine, theirs = ({key: each[key] for key in each if key != "latdiag"} for each in (anew, held))
    place = _difference(theirs, mine)
    if place is None and genuine:
        return
    if genuine and other:
        raise RunFault(
            f"{name} was written by latdiag {shown(raw.get('latdiag'), 20)}, and this one"
            f" ({__version__}) computes another {place} from it",
            "replay it with the latdiag that wrote it",
        )
    where = f": {place} is not what its measurements give" if place else ": its digest is another"
    raise RunFault(f"{name} was changed after it was written{where}", "measure again")


def _difference(one: object, other: object, place: str = "") -> str | None:
    """Where two documents first differ, as ``result.outcomes.2.p``; None if they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            key = sorted(one.keys() ^ other.keys())[0]
            return f"{place}.{shown(key, 40)}".lstrip(".")
        pairs: Iterable[tuple[object, object, object]] = ((k, one[k], other[k]) for k in one)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = ((k, a, b) for k, (a, b) in enumerate(zip(one, other, strict=True)))
    else:
        same = type(one) is type(other) and one == other
        return None if same else place.lstrip(".") or "document"
    differing = (_difference(a, b, f"{place}.{shown(k, 40)}") for k, a, b in pairs)
    return next((each for each in differing if each), None)


# ---------------------------------------------------------------------- reading with suspicion
def _measured(raw: Mapping[str, object]) -> Measured:
    plan = _dict(raw["plan"])
    settings = settings_of(Table(plan["settings"], "its settings"))
    fixed_length = plan["fixed_length"]
    if not isinstance(fixed_length, bool):
        raise TypeError("fixed_length is neither true nor false")
    pairs, block = _whole(plan["pairs"], _MOST_PAIRS), _whole(plan["block"], _MOST_BLOCK)
    made = Plan(max(1, pairs), max(1, block), fixed_length, settings)
    return Measured(made, _arms(_dict(raw["arms"])), _blocks(_dict(raw["blocks"]), made))


def _arms(raw: Mapping[str, object]) -> Arms:
    broken = raw["broken"]
    if not isinstance(broken, list):
        raise TypeError("broken is not a list")
    base, candidate = (
        {str(k): _text(v) for k, v in _dict(raw[arm]).items()} for arm in ("base", "candidate")
    )
    wall = _whole(raw["wall_ns"], _MOST)
    return Arms(
        base, candidate, tuple(_text(each) for each in broken), wall, _text(raw["evidence"])
    )


def _blocks(raw: Mapping[str, object], plan: Plan) -> Blocks:
    second = raw["candidate_second"]
    if not isinstance(second, list) or not all(isinstance(each, bool) for each in second):
        raise TypeError("candidate_second is not a list of true and false")
    n = len(second)
    if n > plan.pairs:
        raise ValueError("more pairs than planned")
    columns = {}
    for key, column in _dict(raw["columns"]).items():
        held = _dict(column)
        value, base, candidate = (_floats(held[k], n) for k in ("value", "base", "candidate"))
        columns[str(key)] = Column(value, base, candidate, _ints(held["twins"], n))
    parts = _dict(raw["parts"])
    if len(parts) > _MOST_PARTS:
        raise ValueError("more components than there can be")
    counts = {
        each.name: _by_arm(raw[each.name], n) if each.name in _BY_ARM else _ints(raw[each.name], n)
        for each in fields(Blocks)
        if each.name not in ("candidate_second", "columns", "parts")
    }
    return Blocks(
        candidate_second=np.array(second, dtype=bool),
        columns={check.name: columns[check.name] for check in plan.checks},
        parts={
            str(key): Part(*(_ints(_dict(part)[k], n) for k in ("base_ns", "candidate_ns")))
            for key, part in parts.items()
        },
        **counts,
    )


def _dict(raw: object) -> Mapping[str, object]:
    if not isinstance(raw, dict):
        raise TypeError("a part of it is not an object")
    return raw


def _text(raw: object) -> str:
    if not isinstance(raw, str) or len(raw) > 1_000:
        raise TypeError("a text in it is none, or too long")
    return raw


def _whole(raw: object, most: int) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not -most <= raw <= most:
        raise ValueError("a whole number in it is none, or too large")
    return raw


def _list(raw: object, n: int) -> list[object]:
    if not isinstance(raw, list) or len(raw) != n:
        raise ValueError(f"a list in it has not {n} entries, one a pair")
    return raw


def _ints(raw: object, n: int) -> NDArray[np.int64]:
    return np.array([_whole(each, _MOST) for each in _list(raw, n)], dtype=np.int64)


def _by_arm(raw: object, n: int) -> NDArray[np.int64]:
    rows = [_ints(each, 2) for each in _list(raw, n)]
    return np.array(rows, dtype=np.int64).reshape(n, 2)


def _floats(raw: object, n: int) -> NDArray[np.float64]:
    """Numbers; null is none."""
    return np.array(
        [np.nan if each is None else _number(each) for each in _list(raw, n)], dtype=float
    )


def _number(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not -_MOST <= raw <= _MOST:
        raise ValueError("a number in it is none, or too large")
    return float(raw)


def _no_gate(name: str, why: str) -> RunFault:
    return RunFault(
        f"{name} is not a gate.json: {why}", "name the file that `latdiag gate run` wrote"
    )
