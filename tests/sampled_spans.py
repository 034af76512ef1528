"""A recorded run as head sampling would have left it: of so many traces all spans, of the others
none."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from latdiag.diagnosis.diagnose import result_of
from latdiag.store.run import Run


def sampled(run: Path, share: float, seed: int, into: Path) -> Path:
    """A copy of ``run`` in ``into`` with the spans of this share of its traces, 0 to 1, and no
    other evidence. ``seed``: another one keeps other traces."""
    copy = into / f"{run.stem}-{share}-{seed}.run"
    shutil.copytree(run, copy)
    for part in (copy / "evidence").glob("*.parquet"):
        rows = pq.read_table(part)
        kinds, traces = rows["kind"].to_pylist(), rows["trace_id"].to_pylist()
        keeps = [
            kind == "span" and _place(trace, seed) < share
            for kind, trace in zip(kinds, traces, strict=True)
        ]
        pq.write_table(rows.filter(pa.array(keeps, pa.bool_())), part)
    return copy


def _place(trace: str, seed: int) -> float:
    """Of a trace among all, 0 to 1: as a sampler decides by the id alone."""
    digest = hashlib.sha256(f"{seed} {trace}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def diagnosed(run: Path) -> dict[str, Any]:
    """As ``latdiag diagnose --json`` reads it."""
    return dict(result_of(Run.open(str(run)), "diagnose").to_json())


def classes(result: dict[str, Any]) -> dict[frozenset[str], dict[str, Any]]:
    """The classes of the mean breakdown by their members."""
    mean = result["breakdown"].get("mean") or {}
    shares = {name: each for name, each in mean.items() if isinstance(each, dict)}
    return {
        frozenset(each.get("members") or [name]): each
        for name, each in shares.items()
        if "share" in each and name != "unattributed"
    }


def faults(found: dict[str, Any], alone: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """In what a result with sampled spans is worse than the one of the probe ``alone``, or passes
    over what all spans show (``whole``)."""
    out = []
    kind, kinds = found["verdict"]["kind"], [each["verdict"]["kind"] for each in (alone, whole)]
    if kind not in kinds:
        out.append(f"{kind}, alone {kinds[0]}, with all spans {kinds[1]}")
    mine, theirs, truth = classes(found), classes(alone), classes(whole)
    merged = [each for each in mine if len(each) > 1]
    for one in merged:
        if not any(one <= other for other in theirs):
            out.append(f"{'+'.join(sorted(one))} is one class")
    leads = max(truth, key=lambda each: truth[each]["share"])
    if found["verdict"]["dominant"] and not leads & _dominant(found):
        out.append(f"{found['verdict']['dominant']} leads, in truth {'+'.join(sorted(leads))}")
    for members, each in mine.items():
        if each["lo"] is None or members == {"client"}:
            continue
        true = sum(t["share"] for name, t in truth.items() if name <= members)
        if not each["lo"] <= true <= each["hi"]:
            name = "+".join(sorted(members))
            out.append(f"{name} [{each['lo']:.3f}, {each['hi']:.3f}], in truth {true:.3f}")
    return out


def _dominant(result: dict[str, Any]) -> frozenset[str]:
    name = result["verdict"]["dominant"]
    share = (result["breakdown"].get(result["verdict"]["population"]) or {}).get(name) or {}
    return frozenset(share.get("members") or [name])
