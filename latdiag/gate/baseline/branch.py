"""Small files on a branch of git that shares no history with the code.

No work tree is touched: objects are written, and the branch moves by a push (or, without a
remote, by a compare-and-swap of the ref). Whoever pushes second fetches, puts its files on top of
what came first, and pushes again; names of files do not clash, so nothing is ever merged.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from latdiag.model.errors import LocalFault, RunFault, UsageFault
from latdiag.model.text import shown

#: As often another may be faster than we are.
_ATTEMPTS = 12
_TIMEOUT_S = 120
_REMOTE = "origin"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,200})?")
#: More entries are no store of ours.
_MOST_LISTED = 32 * 1024 * 1024
#: What a push says where the branch moved since it was fetched, or is being moved right now.
_MOVED = ("[rejected]", "cannot lock ref", "failed to update ref", "fetch first")
#: A runner has no name for commits; these do not stand in for one that the user has set.
_IDENTITY = {
    "GIT_AUTHOR_NAME": "latdiag",
    "GIT_AUTHOR_EMAIL": "latdiag@localhost",
    "GIT_COMMITTER_NAME": "latdiag",
    "GIT_COMMITTER_EMAIL": "latdiag@localhost",
}
#: Changes the index of that environment; False where there is nothing to change.
_Edit = Callable[[Mapping[str, str]], bool]


class GitBranch:
    """The files on ``branch`` of the repository around ``folder``: of its remote ``origin`` where
    it has one. UsageFault for no name of a branch, LocalFault where git cannot serve."""

    def __init__(self, branch: str, folder: Path) -> None:
        self.name = f"git:{shown(branch, 100)}"
        self._folder = folder
        checked = self._git("check-ref-format", f"refs/heads/{branch}", fail=False)
        if not branch or branch.startswith("-") or checked.returncode:
            raise UsageFault(f"{self.name} names no branch", "write git:latdiag-baselines")
        self._remote = _REMOTE in self._text("remote").split()
        self._ref = f"refs/heads/{branch}"
        self._tip: str | None = None
        self._fresh = False

    def names(self, folder: str) -> list[str]:
        """Base names in ``folder``, sorted."""
        tip = self._fetched()
        if tip is None:
            return []
        data = self._git("ls-tree", "-z", "--name-only", f"{tip}:{folder}", fail=False)
        if data.returncode:
            return []
        if len(data.stdout) > _MOST_LISTED:
            raise RunFault(f"{self.name} lists more files than a store has", "use another branch")
        return sorted(data.stdout.decode(errors="replace").split("\0")[:-1])

    def read(self, name: str, limit: int) -> bytes:
        """The whole of a file. FileNotFoundError; RunFault if it is larger than ``limit``."""
        tip = self._fetched()
        place = f"{tip}:{name}"
        size = self._git("cat-file", "-s", place, fail=False) if tip else None
        if size is None or size.returncode:
            raise FileNotFoundError(name)
        if int(size.stdout) > limit:
            raise RunFault(
                f"{self.name}/{shown(name)} is larger than {limit >> 20} MiB", "remove it"
            )
        return self._git("cat-file", "blob", place).stdout

    def put(self, name: str, data: bytes, exclusive: bool = False) -> None:
        """Commit and push a file. ``exclusive``: FileExistsError instead of replacing one."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a file here")
        blob = self._text("hash-object", "-w", "--stdin", stdin=data)

        def edit(index: Mapping[str, str]) -> bool:
            if exclusive and self._text("ls-files", "--", name, env=index):
                raise FileExistsError(name)
            self._text("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", env=index)
            return True

        self._commit(f"Add {name}", edit)

    def remove(self, name: str) -> None:
        """Delete a file, if there is one."""

        def edit(index: Mapping[str, str]) -> bool:
            if not self._text("ls-files", "--", name, env=index):
                return False
            self._text("update-index", "--force-remove", "--", name, env=index)
            return True

        self._commit(f"Remove {name}", edit)

    # ------------------------------------------------------------------ how it moves
    def _commit(self, message: str, edit: _Edit) -> None:
        """Put an edit on top of the branch, again where another was faster."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                # Two that lost to a third must not meet again.
                time.sleep(random.uniform(0.0, 0.1 * 2 ** min(attempt, 5)))
            tip = self._fetched(anew=True)
            with tempfile.TemporaryDirectory(prefix="latdiag-") as folder:
                index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
                self._text("read-tree", tip or "--empty", env=index)
                if not edit(index):
                    return
                tree = self._text("write-tree", env=index)
            parent = ("-p", tip) if tip else ()
            commit = self._text("commit-tree", tree, *parent, "-m", message, env=self._identity())
            if self._moved(commit, tip):
                self._tip = commit
                return
        raise LocalFault(
            f"{self.name} was changed by others {_ATTEMPTS} times while it was written to",
            "try again",
        )

    def _moved(self, commit: str, before: str | None) -> bool:
        """Whether the branch moved from ``before`` to ``commit``; False: another was faster."""
        if self._remote:
            pushed = self._git("push", "--porcelain", _REMOTE, f"{commit}:{self._ref}", fail=False)
            text = (pushed.stdout + pushed.stderr).decode(errors="replace")
            if pushed.returncode and not any(words in text for words in _MOVED):
                raise self._fault("push", pushed)
            return not pushed.returncode
        # A ref that is not there yet is all zeros.
        old = before or "0" * len(commit)
        return not self._git("update-ref", self._ref, commit, old, fail=False).returncode

    def _fetched(self, anew: bool = False) -> str | None:
        """The commit at the tip of the branch; None where there is no such branch."""
        if self._fresh and not anew:
            return self._tip
        if self._remote:
            self._tip = self._remote_tip()
        else:
            commit = f"{self._ref}^{{commit}}"
            found = self._git("rev-parse", "--verify", "--quiet", commit, fail=False)
            self._tip = found.stdout.decode().strip() or None
        self._fresh = True
        return self._tip

    def _remote_tip(self) -> str | None:
        """The commit there, brought here. No ref is written (``--refmap=``: nor the one by which a
        clone remembers the remote's): two that fetch at once into one repository would be in each
        other's way."""
        there = self._git("ls-remote", "--exit-code", _REMOTE, self._ref, fail=False)
        if there.returncode == 2:  # the remote answers, and has no such branch
            return None
        if there.returncode:
            raise self._fault("ls-remote", there)
        tip = there.stdout.decode(errors="replace").split()[0]
        quiet = ("--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=")
        self._text("fetch", *quiet, _REMOTE, self._ref)
        return tip

    def _identity(self) -> dict[str, str]:
        known = self._git("var", "GIT_COMMITTER_IDENT", fail=False).returncode == 0
        return {} if known else _IDENTITY

    # ------------------------------------------------------------------ git itself
    def _text(self, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        return self._git(*words, stdin=stdin, env=env).stdout.decode(errors="replace").strip()

    def _git(
        self,
        *words: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        fail: bool = True,
    ) -> subprocess.CompletedProcess[bytes]:
        quiet = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        try:
            done = subprocess.run(
                ["git", "-C", str(self._folder), *words],
                input=stdin,
                capture_output=True,
                env={**os.environ, **quiet, **(env or {})},
                timeout=_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError as fault:
            raise LocalFault(
                "git is not installed here", "install it, or name a folder"
            ) from fault
        except subprocess.TimeoutExpired as fault:
            raise LocalFault(
                f"git {words[0]} did not end within {_TIMEOUT_S} s", "check the remote"
            ) from fault
        if fail and done.returncode:
            raise self._fault(words[0], done)
        return done

    def _fault(self, verb: str, done: subprocess.CompletedProcess[bytes]) -> LocalFault:
        lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        why = shown(lines[-1] if lines else f"exit code {done.returncode}", 200)
        return LocalFault(
            f"git {verb} failed for {self.name}: {why}", "check the repository and its remote"
        )
