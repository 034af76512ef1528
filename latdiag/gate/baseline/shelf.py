"""The recorded runs of a store: adding one, finding those that a run may be compared with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from latdiag.gate.baseline.record import MAX_BYTES, Record, from_file, to_file
from latdiag.gate.baseline.stores import ANCHORS, RUNS, Store
from latdiag.model.errors import RunFault, UnlikeRuns, UsageFault
from latdiag.model.text import shown
from latdiag.store.documents import from_bytes, to_bytes

#: Fewer runs say too little of what changes from run to run.
LEAST_RUNS = 10
#: More files are no store of ours, and reading them no answer in time.
_MOST_FILES = 2_000
_ANCHOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Shelf:
    """``runs``: by file, in the order of time. ``anchors``: sets of files that were pinned, in the
    order in which they were."""

    runs: Mapping[str, Record]
    anchors: Mapping[str, tuple[str, ...]]

    def pinned(self, anchor: str) -> list[Record]:
        """The runs of an anchor. UsageFault for one that there is not."""
        if anchor not in self.anchors:
            known = ", ".join(self.anchors) or "none"
            raise UsageFault(
                f"no anchor {shown(anchor, 60)!r} is pinned in the store", f"there are: {known}"
            )
        return [self.runs[file] for file in self.anchors[anchor] if file in self.runs]

    @property
    def newest_anchor(self) -> str | None:
        """The one that was pinned last."""
        return [*self.anchors][-1] if self.anchors else None


def shelf_of(store: Store) -> Shelf:
    """All that ``store`` holds. RunFault for a file in it that is no record."""
    runs = {
        file: from_file(_read(store, f"{RUNS}/{file}"), f"{store.name}/{RUNS}/{file}")
        for file in _files(store, RUNS)
    }
    pins = []
    for file in _files(store, ANCHORS):
        name = f"{store.name}/{ANCHORS}/{file}"
        when, files = _anchor(_read(store, f"{ANCHORS}/{file}"), name)
        pins.append((when, file.removesuffix(_SUFFIX), files))
    return Shelf(runs, {anchor: files for _, anchor, files in sorted(pins)})


def add(store: Store, record: Record, keep: int, may_differ: Sequence[str]) -> list[str]:
    """Record a run, and drop the oldest ones of its kind beyond ``keep`` that no anchor holds; the
    files that were dropped. UsageFault for a run that is recorded already."""
    shelf = shelf_of(store)
    if any(each.identity == record.identity for each in shelf.runs.values()):
        raise UsageFault("this run is recorded already", "record another run")
    store.put(f"{RUNS}/{record.file}", to_file(record), exclusive=True)
    held = {file for files in shelf.anchors.values() for file in files}
    same = [
        file
        for file, each in shelf.runs.items()
        if not differing(each, record, may_differ) and file not in held
    ]
    old = same[: max(0, len(same) + 1 - keep)]
    for file in old:
        store.remove(f"{RUNS}/{file}")
    return old


def pin(store: Store, anchor: str, when: str) -> int:
    """Hold what is recorded now as ``anchor``; how many runs. UsageFault for a name that is taken
    or none, and where nothing is recorded."""
    if not _ANCHOR.fullmatch(anchor):
        raise UsageFault(
            f"{shown(anchor, 60)!r} is no name of an anchor", "use letters, digits, '.', '_', '-'"
        )
    shelf = shelf_of(store)
    if anchor in shelf.anchors:
        raise UsageFault(f"{anchor} is pinned already", "choose another name")
    if not shelf.runs:
        raise UsageFault(f"{store.name} holds no runs to pin", "record runs first")
    text = {"kind": "gate anchor", "schema": 1, "pinned": when, "files": list(shelf.runs)}
    store.put(f"{ANCHORS}/{anchor}{_SUFFIX}", to_bytes(text), exclusive=True)
    return len(shelf.runs)


def comparable(
    record: Record, others: Iterable[Record], may_differ: Sequence[str], where: str
) -> list[Record]:
    """Those of ``others`` with the fingerprint of ``record``, and not itself.

    UnlikeRuns where there are runs and none is alike: it names what differs from the nearest one.
    """
    apart = [each for each in others if each.identity != record.identity]
    if not apart:
        raise UnlikeRuns(f"{where} holds no other runs", "record runs: `latdiag gate record RUN`")
    alike = [each for each in apart if not differing(each, record, may_differ)]
    if alike:
        return alike
    nearest = min(reversed(apart), key=lambda each: len(differing(each, record, may_differ)))
    raise UnlikeRuns(
        f"none of {len(apart)} runs in {where} is of the same kind; the nearest one differs in"
        f" {'; '.join(differing(nearest, record, may_differ))}",
        "record runs of this kind: `latdiag gate record RUN`",
    )


def differing(one: Record, other: Record, may_differ: Sequence[str]) -> list[str]:
    """``gpu (H100 recorded, H200 here)`` for each fact that is not the same."""
    keys = dict.fromkeys((*one.fingerprint, *other.fingerprint))
    return [
        f"{shown(key, 40)} ({_stated(one, key)} recorded, {_stated(other, key)} here)"
        for key in keys
        if key not in may_differ and one.fingerprint.get(key) != other.fingerprint.get(key)
    ]


def _stated(record: Record, key: str) -> str:
    value = record.fingerprint.get(key)
    return "not stated" if value is None else shown(value, 80)


def _files(store: Store, folder: str) -> list[str]:
    files = [file for file in store.names(folder) if file.endswith(_SUFFIX)]
    if len(files) > _MOST_FILES:
        raise RunFault(f"{store.name} holds more than {_MOST_FILES} files", "use another store")
    return files


def _read(store: Store, name: str) -> bytes:
    try:
        return store.read(name, MAX_BYTES)
    except FileNotFoundError as fault:
        raise RunFault(f"{store.name}/{name} went away while it was read", "try again") from fault


def _anchor(data: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    """When it was pinned, and its files."""
    try:
        raw = from_bytes(data)
    except ValueError as fault:
        raise RunFault(f"{name} is no anchor: {shown(fault, 120)}", "remove it") from fault
    pinned, files = raw.get("pinned"), raw.get("files")
    known = isinstance(files, list) and all(isinstance(each, str) for each in files)
    if raw.get("kind") != "gate anchor" or not isinstance(pinned, str) or not known:
        raise RunFault(f"{name} is no anchor", "remove it")
    assert isinstance(files, list)
    return pinned, tuple(map(str, files))
