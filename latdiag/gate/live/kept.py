"""What is at hand before anything is measured: what arms say of themselves, and a gate.json that
was cut. Light, since it is read before the load has forked its processes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from latdiag.model.errors import LocalFault, RunFault, UsageFault
from latdiag.store.documents import MAX_BYTES, from_bytes


class Facts(NamedTuple):
    """Of one arm. ``stacks``: name and version of those that showed themselves."""

    model: str
    stacks: tuple[tuple[str, str | None], ...]


class Kept(NamedTuple):
    """A gate.json whose run was cut: what stands in it is still to be trusted (``document``).
    ``pairs``: measured, of ``planned``."""

    name: str
    data: bytes
    seed: int
    pairs: int
    planned: int


def kept(file: Path) -> Kept | None:
    """What a run is to go on with; None where there is no such file.

    UsageFault where its verdict has fallen: another try would only be another chance of a wrong
    one. RunFault where it is no gate.json.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise LocalFault(
            f"{file} cannot be read: {fault.strerror}", "name another file"
        ) from fault
    try:
        raw = from_bytes(data[:MAX_BYTES])
        plan, stop = _inside(raw, "plan"), _inside(_inside(raw, "result"), "stop")
        seed, planned = _inside(plan, "settings")["seed"], plan["pairs"]
        why, pairs = stop["why"], stop["measured"]
    except (ValueError, KeyError) as fault:
        raise _none(file) from fault
    if not all(isinstance(each, int) for each in (seed, planned, pairs)):
        raise _none(file)
    if why != "cut" or _inside(raw, "result").get("verdict") == "INVALID":
        raise UsageFault(
            f"{file} holds a verdict already", "remove it, or name another file with --out"
        )
    return Kept(str(file), data, *(int(str(each)) for each in (seed, pairs, planned)))


def _inside(raw: dict[str, object], key: str) -> dict[str, object]:
    found = raw[key]
    if not isinstance(found, dict):
        raise ValueError(key)
    return found


def _none(file: Path) -> RunFault:
    return RunFault(f"{file} is there, and is not a gate.json", "name another file with --out")
