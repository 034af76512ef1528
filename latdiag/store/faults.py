"""What is said when a run's files cannot be read, written, or believed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from latdiag.model.errors import LocalFault, RunFault
from latdiag.model.text import shown
from latdiag.store.schema import FOLDERS

_REMEDIES = {
    errno.ENOSPC: "free some space, or write elsewhere with --out",
    errno.EDQUOT: "the quota is used up: free some space, or write elsewhere with --out",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or write elsewhere with --out",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "the machine has no file descriptors left: raise fs.file-max",
    errno.EACCES: "check the permissions, or choose another place with --out",
    errno.EPERM: "check the permissions, or choose another place with --out",
    errno.EROFS: "the filesystem is read-only: choose another place with --out",
}


def local_fault(error: OSError, action: str, name: str) -> LocalFault | RunFault:
    """The fault behind an OSError: ``action`` is what was tried, with its object. A link that
    leads to itself is the run's own fault, not this machine's."""
    reason = os.strerror(error.errno) if error.errno else shown(error)
    if error.errno == errno.ELOOP:
        return RunFault(
            f"cannot {action}: {reason}", "remove the link that leads to itself", run=name
        )
    remedy = _REMEDIES.get(error.errno or 0, "see what the system says about this disk")
    return LocalFault(f"cannot {action}: {reason}", remedy, run=name)


@contextlib.contextmanager
def arrow_faults(name: str) -> Iterator[None]:
    """Faults of a pyarrow filesystem: a name it cannot read (2), or one it cannot reach (16)."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except ValueError as error:  # pyarrow.ArrowInvalid is one
        raise RunFault(f"{name} cannot be opened: {shown(error)}", "check the URI") from error
    except NotImplementedError as error:
        raise RunFault(
            f"{name}: this pyarrow has no such filesystem", "install one that has"
        ) from error
    except OSError as error:
        raise local_fault(error, f"reach {name}", name) from error


def taken(name: str) -> RunFault:
    """Something is there already: a run is never overwritten."""
    return RunFault(
        f"{name} exists already", "runs are never overwritten: choose another --out", run=name
    )


def too_large(place: str, name: str, size: int, limit: int) -> RunFault:
    """A file beyond its bound."""
    return RunFault(
        f"{place}/{shown(name)} has {size} bytes, and at most {limit} are read",
        "it was not written by latdiag: remove it",
        run=place,
    )


def too_many(place: str, folder: str, limit: int) -> RunFault:
    """A folder with more files than any run of ours has."""
    return RunFault(
        f"{place}/{folder} holds more than {limit} files", "this is not a run of latdiag"
    )


def directory_words(inside: list[str], runs: list[str]) -> str:
    """What a directory is that is no run: ``inside`` are its names, ``runs`` those of runs."""
    if not inside:
        return "is an empty directory"
    if runs:
        count = f"{len(runs)} run{'s' * (len(runs) > 1)}"
        return f"is a directory of {count}; name one, such as {shown(runs[0])}"
    if set(inside) & set(FOLDERS):
        return "has the folders of a run but no run.json"
    return f"is a directory without run.json (it holds {shown(', '.join(inside[:3]), 100)})"
