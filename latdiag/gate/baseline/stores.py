"""Where recorded runs are kept: a directory, a filesystem of pyarrow, or a branch of git."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from latdiag.gate.baseline.branch import GitBranch
from latdiag.model.errors import LocalFault, UsageFault
from latdiag.store.place import LocalPlace, displayed, place_of

#: What a store holds: one file a run, and one a set of runs that was pinned.
RUNS, ANCHORS = FOLDERS = ("runs", "anchors")
_GIT = "git:"


class Store(Protocol):
    """Small files in ``FOLDERS``; as ``latdiag.store.place.Place`` has them."""

    name: str

    def names(self, folder: str) -> list[str]:
        """Base names in ``folder``, sorted."""

    def read(self, name: str, limit: int) -> bytes:
        """The whole of a file. FileNotFoundError; RunFault if it is larger than ``limit``."""

    def put(self, name: str, data: bytes, exclusive: bool = False) -> None:
        """Write a file whole. ``exclusive``: FileExistsError instead of replacing one."""

    def remove(self, name: str) -> None:
        """Delete a file; nothing happens if there is none."""


def open_store(text: str) -> Store:
    """``git:BRANCH`` (of the repository around the working directory), a path, or a URI such as
    ``s3://bucket/folder``. UsageFault for none, LocalFault where it cannot be opened."""
    if not text:
        raise UsageFault(
            "no store is named for recorded runs",
            'add --store PATH, --store git:BRANCH, or store = "..." below [gate.baseline]',
        )
    if text.startswith(_GIT):
        return GitBranch(text.removeprefix(_GIT), Path())
    place = place_of(text)
    if isinstance(place, LocalPlace):
        return _Directory(text)
    return place


class _Directory(LocalPlace):
    """A directory that is made when something is written to it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._folder = Path(path)

    def put(self, name: str, data: bytes, exclusive: bool = False) -> None:
        try:
            (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise LocalFault(
                f"{displayed(str(self._folder))} cannot be made: {fault.strerror}",
                "choose a directory that can be written to",
            ) from fault
        super().put(name, data, exclusive)


def present(store: Store, name: str) -> bool:
    """Whether ``store`` has a file of this name."""
    folder, _, base = name.rpartition("/")
    with contextlib.suppress(FileNotFoundError):
        return base in store.names(folder)
    return False
