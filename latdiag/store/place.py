"""Where a run's files lie: a local directory, or any filesystem that pyarrow knows.

A place reads and replaces small sets of files by name. Whatever it lists or opens is hostile:
links that leave the run and files that are no files are refused, sizes are bounded first.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import stat
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from latdiag.model.errors import RunFault
from latdiag.model.text import shown, without_credentials
from latdiag.store.faults import (
    arrow_faults,
    directory_words,
    local_fault,
    taken,
    too_large,
    too_many,
)
from latdiag.store.schema import FOLDERS

#: A run of one day with a part every second from two writers; more is not a run of ours.
MAX_FILES = 200_000

_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:(?=/)")


class Place(Protocol):
    """The files below one directory. Names are relative, with ``/``; folders are one deep."""

    name: str

    def make(self) -> None:
        """The directory and the folders of a run. RunFault if there is something already."""

    def names(self, folder: str) -> list[str]:
        """Base names in ``folder``, sorted, without dot-files; [] if there is no such folder."""

    def read(self, name: str, limit: int) -> bytes:
        """The whole of a file. FileNotFoundError; RunFault if it is larger than ``limit``."""

    def source(self, name: str) -> tuple[Any, int]:
        """What pyarrow opens for reading, and its size in bytes. FileNotFoundError."""

    def put(self, name: str, data: Any, exclusive: bool = False) -> None:
        """Write all of ``data`` (a buffer) under ``name``, atomically.

        ``exclusive``: FileExistsError instead of replacing a file.
        """

    def overwrite(self, name: str, data: bytes) -> bool:
        """Write ``data`` where a file of this name stands, if its own blocks have room for it;
        whether that could be done."""

    def remove(self, name: str) -> None:
        """Delete a file; nothing happens if there is none."""

    def what(self) -> str:
        """What is there, in words, for the message that it is not a run."""


def displayed(path: str) -> str:
    """A path or URI as it may be printed: without credentials, safe for a terminal."""
    if not _is_remote(path):
        return shown(path, 300)
    try:
        return shown(without_credentials(path), 300)
    except ValueError:
        # No address can be told from a key in it, so nothing of it is shown.
        return f"{path.partition(':')[0]}:… (not a URI)"


def place_of(path: str) -> Place:
    """The place behind a local path, a ``file:`` URI, or a URI of a pyarrow filesystem."""
    if "\0" in path:
        raise RunFault(f"{displayed(path)} cannot be a path", "it holds a zero byte")
    if not _is_remote(path):
        return LocalPlace(local_path(path))
    import pyarrow.fs

    name = displayed(path)
    with arrow_faults(name):
        try:
            filesystem, inner = pyarrow.fs.FileSystem.from_uri(path)
        except ValueError as error:
            # Arrow repeats the URI, which may bear a key: neither text nor traceback may.
            reason = str(error).replace(path, name)
            raise RunFault(f"{name} cannot be opened: {shown(reason)}", "check the URI") from None
    return ArrowPlace(filesystem, inner.rstrip("/"), displayed(path.rstrip("/")))


def _is_remote(path: str) -> bool:
    return bool(_URI.match(path)) and not path.startswith("file:")


def local_path(path: str) -> str:
    """The local path behind ``path``, which is one already or a ``file:`` URI."""
    if not path.startswith("file:/"):
        return path
    host, slash, rest = path.removeprefix("file:").removeprefix("//").partition("/")
    if host not in ("", "localhost"):
        raise RunFault(f"{displayed(path)} names another host", "write file:///path")
    return unquote(slash + rest)


def matching(pattern: str) -> list[str]:
    """Paths that match a glob, sorted. In a URI only the last part may hold wildcards."""
    if not _is_remote(pattern):
        import glob

        return sorted(glob.glob(local_path(pattern)))  # noqa: PTH207 -- may be absolute
    bare, mark, options = pattern.partition("?")
    parent, _, last = bare.rstrip("/").rpartition("/")
    place = place_of(parent + mark + options)
    assert isinstance(place, ArrowPlace)
    names = fnmatch.filter(place.folders(), last)
    return [f"{parent}/{name}{mark}{options}" for name in names]


def is_pattern(path: str) -> bool:
    """True if ``path`` holds glob wildcards and is not itself the name of something local.

    In a URI a question mark is none: the options of the filesystem follow it.
    """
    if _is_remote(path):
        return any(c in path.partition("?")[0] for c in "*[")
    return any(c in path for c in "*?[") and not os.path.lexists(local_path(path))


class LocalPlace:
    """A directory on this machine. Replacing is a rename, so a reader sees old or new."""

    def __init__(self, path: str) -> None:
        self.name = displayed(path)
        self._root = Path(path)
        self._real = os.path.realpath(path)

    def make(self) -> None:
        try:
            # Held by nobody yet, or an empty directory that the caller made for us.
            self._root.mkdir(parents=True, exist_ok=True)
            with os.scandir(self._root) as there:
                if any(there):
                    raise taken(self.name)
            for folder in FOLDERS:
                (self._root / folder).mkdir(exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise taken(self.name) from error
        except OSError as error:
            raise local_fault(error, f"create the run {self.name}", self.name) from error

    def names(self, folder: str) -> list[str]:
        found: list[str] = []
        try:
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        found.append(entry.name)
                    if len(found) > MAX_FILES:
                        raise too_many(self.name, folder, MAX_FILES)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise local_fault(error, f"list {self.name}", self.name) from error
        return sorted(found)

    def read(self, name: str, limit: int) -> bytes:
        path = self._inside(name)
        try:
            # Not blocking: a pipe in the place of a file would wait for its writer for ever.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                size = self._checked(os.fstat(handle), name)
                if size > limit:
                    raise too_large(self.name, name, size, limit)
                with os.fdopen(handle, "rb", closefd=False) as file:
                    return file.read(limit)
            finally:
                os.close(handle)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(name) from error
        except OSError as error:
            raise local_fault(error, f"read {self._shown(name)}", self.name) from error

    def source(self, name: str) -> tuple[Any, int]:
        path = self._inside(name)
        try:
            return path, self._checked(Path(path).stat(), name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise local_fault(error, f"read {self._shown(name)}", self.name) from error

    def put(self, name: str, data: Any, exclusive: bool = False) -> None:
        path = self._root / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            try:
                with temporary.open("wb", buffering=0) as file:
                    _write_all(file.fileno(), data)
                if exclusive:
                    _claim(path)
                temporary.replace(path)
            except BaseException:
                # A full disk gets its space back, so that the run stays readable and can close.
                temporary.unlink(missing_ok=True)
                raise
        except FileExistsError:
            raise
        except OSError as error:
            raise local_fault(error, f"write {self._shown(name)}", self.name) from error

    def overwrite(self, name: str, data: bytes) -> bool:
        # One write of at most some kilobytes; whoever reads in between finds blanks at its end.
        with contextlib.suppress(OSError), (self._root / name).open("r+b", buffering=0) as file:
            there = os.fstat(file.fileno())
            if len(data) > there.st_blocks * 512:
                return False
            filled = data.ljust(there.st_size)
            if os.write(file.fileno(), filled) == len(filled):
                file.truncate(len(data))
                return True
        return False

    def remove(self, name: str) -> None:
        try:
            (self._root / name).unlink(missing_ok=True)
        except OSError as error:
            raise local_fault(error, f"delete {self._shown(name)}", self.name) from error

    def what(self) -> str:
        if not self._root.exists():
            return "does not exist"
        if not self._root.is_dir():
            return "is a file, and a run is a directory"
        inside = sorted(self.names(""))
        runs = [n for n in inside if (self._root / n / "run.json").is_file()]
        return directory_words(inside, runs)

    def _shown(self, name: str) -> str:
        return f"{self.name}/{shown(name)}"

    def _inside(self, name: str) -> str:
        """The real path of ``name``. RunFault if a link leads out of the run."""
        real = os.path.realpath(self._root / name)
        if not real.startswith(self._real.rstrip("/") + "/"):
            raise RunFault(
                f"{self._shown(name)} is a link that leads out of the run",
                "a run holds its own files: replace the link by the file",
                run=self.name,
            )
        return real

    def _checked(self, status: os.stat_result, name: str) -> int:
        """The size of a regular file."""
        if not stat.S_ISREG(status.st_mode):
            raise RunFault(
                f"{self._shown(name)} is not a regular file", "remove it", run=self.name
            )
        return status.st_size


class ArrowPlace:
    """A directory of a pyarrow filesystem. A file appears when its upload is complete.

    On filesystems that are neither local nor object stores (HDFS) a file may be seen while it is
    being written; a reader then takes it for truncated and skips it.
    """

    def __init__(self, filesystem: Any, root: str, name: str) -> None:
        self.name = name
        self._fs = filesystem
        self._root = root

    def make(self) -> None:
        with arrow_faults(self.name):
            if self._listed("") or self._info("").type.name == "File":
                raise taken(self.name)
            for folder in FOLDERS:
                self._fs.create_dir(f"{self._root}/{folder}", recursive=True)

    def names(self, folder: str) -> list[str]:
        return self._of_type(folder, "File")

    def folders(self) -> list[str]:
        """Base names of the directories here."""
        return self._of_type("", "Directory")

    def read(self, name: str, limit: int) -> bytes:
        source, size = self.source(name)
        if size > limit:
            raise too_large(self.name, name, size, limit)
        with arrow_faults(f"{self.name}/{name}"), source:
            return bytes(source.read(limit))

    def source(self, name: str) -> tuple[Any, int]:
        with arrow_faults(f"{self.name}/{name}"):
            file = self._fs.open_input_file(f"{self._root}/{name}")
            return file, file.size()

    def put(self, name: str, data: Any, exclusive: bool = False) -> None:
        with arrow_faults(f"{self.name}/{name}"):
            if exclusive and self._info(name).type.name != "NotFound":
                raise FileExistsError(name)
            # All bytes are here before the stream opens: it cannot end in a part of them.
            with self._fs.open_output_stream(f"{self._root}/{name}", compression=None) as stream:
                stream.write(data)

    def overwrite(self, name: str, data: bytes) -> bool:
        return False  # an object is replaced as a whole

    def remove(self, name: str) -> None:
        with arrow_faults(f"{self.name}/{name}"), contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(f"{self._root}/{name}")

    def what(self) -> str:
        info = self._info("")
        if info.type.name == "NotFound":
            return "does not exist"
        if info.type.name == "File":
            return "is a file, and a run is a directory"
        folders = self.folders()
        runs = [n for n in folders if self._info(f"{n}/run.json").type.name == "File"]
        return directory_words([*self.names(""), *folders], runs)

    def _info(self, name: str) -> Any:
        with arrow_faults(self.name):
            return self._fs.get_file_info([f"{self._root}/{name}".rstrip("/")])[0]

    def _listed(self, folder: str) -> list[Any]:
        import pyarrow.fs

        selector = pyarrow.fs.FileSelector(
            f"{self._root}/{folder}".rstrip("/"), allow_not_found=True
        )
        with arrow_faults(self.name):
            found = self._fs.get_file_info(selector)
        if len(found) > MAX_FILES:
            raise too_many(self.name, folder, MAX_FILES)
        return [info for info in found if not info.base_name.startswith(".")]

    def _of_type(self, folder: str, kind: str) -> list[str]:
        return sorted(i.base_name for i in self._listed(folder) if i.type.name == kind)


def _claim(path: Path) -> None:
    """Take the name ``path``, empty. FileExistsError if another has it: of two, one wins."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))


def _write_all(handle: int, data: Any) -> None:
    """All of a buffer to a descriptor; ``os.write`` may take less at a time."""
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[os.write(handle, rest) :]
