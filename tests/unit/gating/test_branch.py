"""Files on a branch of git: whoever pushes second puts its files on top of the first one's."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from latdiag.gate.baseline import branch
from latdiag.gate.baseline.branch import GitBranch
from latdiag.gate.baseline.stores import open_store
from latdiag.model.errors import LocalFault, RunFault, UsageFault


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture(autouse=True)
def no_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a runner: nobody has told git who commits."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Path, Path]:
    """Two clones of one bare repository with a commit of code."""
    bare = tmp_path / "bare.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(bare))
    first, second = tmp_path / "first", tmp_path / "second"
    git(tmp_path, "clone", "-q", str(bare), str(first))
    (first / "code.txt").write_text("code")
    git(first, "add", "code.txt")
    git(first, "-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "-qm", "Code")
    git(first, "push", "-q", "origin", "HEAD:main")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{bare}", str(second))
    return first, second


def test_what_one_clone_puts_another_reads(clones: tuple[Path, Path]) -> None:
    first, second = clones
    before = git(first, "status", "--porcelain=v2", "--branch")
    one = GitBranch("latdiag-baselines", first)
    assert one.names("runs") == []
    one.put("runs/a.json", b"{}\n", exclusive=True)
    other = GitBranch("latdiag-baselines", second)
    assert other.names("runs") == ["a.json"] and other.names("anchors") == []
    assert other.read("runs/a.json", 100) == b"{}\n"
    with pytest.raises(FileExistsError):
        other.put("runs/a.json", b"[]", exclusive=True)
    other.remove("runs/a.json")
    other.remove("runs/a.json")  # nothing to do
    assert GitBranch("latdiag-baselines", first).names("runs") == []
    # The code, its branch and its work tree are as they were, and share no history with it.
    assert git(first, "status", "--porcelain=v2", "--branch") == before
    log = git(first.parent / "bare.git", "log", "--format=%s", "latdiag-baselines")
    assert log.splitlines() == ["Remove runs/a.json", "Add runs/a.json"]


def test_many_who_push_at_once_all_have_their_files_there(clones: tuple[Path, Path]) -> None:
    """Each from a process of git of its own: most pushes lose the race at least once."""
    names = [f"runs/{n:02}.json" for n in range(8)]

    def put(at: int) -> None:
        GitBranch("b", clones[at % 2]).put(names[at], str(at).encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(len(names))))
    there = GitBranch("b", clones[0])
    assert there.names("runs") == [name.removeprefix("runs/") for name in names]
    assert [there.read(name, 10) for name in names] == [str(n).encode() for n in range(8)]


def test_who_reads_writes_no_ref(clones: tuple[Path, Path]) -> None:
    """Two that fetch at once would fail to lock it."""
    GitBranch("b", clones[1]).put("runs/1.json", b"1")
    assert GitBranch("b", clones[0]).names("runs") == ["1.json"]
    refs = subprocess.run(
        ["git", "-C", str(clones[0]), "for-each-ref", "--format=%(refname)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "/b" not in refs.stdout


def test_a_push_that_lost_the_race_is_made_again(
    clones: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another pushes between our fetch and our push, twice."""
    ours, theirs = GitBranch("b", clones[0]), GitBranch("b", clones[1])
    push, raced = ours._moved, []

    def moved(commit: str, before: str | None) -> bool:
        if len(raced) < 2:
            raced.append(commit)
            theirs.put(f"runs/theirs-{len(raced)}.json", b"1")
        return push(commit, before)

    monkeypatch.setattr(ours, "_moved", moved)
    monkeypatch.setattr(branch.random, "uniform", lambda *_: 0.0)
    ours.put("runs/ours.json", b"2")
    assert len(raced) == 2
    names = GitBranch("b", clones[1]).names("runs")
    assert names == ["ours.json", "theirs-1.json", "theirs-2.json"]


def test_without_a_remote_the_branch_is_local(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    store = GitBranch("baselines", tmp_path)
    for n in range(3):
        store.put(f"runs/{n}.json", b"x")
    assert GitBranch("baselines", tmp_path).names("runs") == ["0.json", "1.json", "2.json"]
    assert git(tmp_path, "rev-list", "--count", "refs/heads/baselines") == "3"
    assert git(tmp_path, "log", "-1", "--format=%an <%ae>", "baselines").startswith("latdiag <")


def test_what_git_cannot_do_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LocalFault, match="not a git repository"):
        GitBranch("b", tmp_path)
    git(tmp_path, "init", "-q")
    for name in ("", "-x", "a b", "a..b", "refs/../x"):
        with pytest.raises(UsageFault, match="names no branch"):
            GitBranch(name, tmp_path)
    store = GitBranch("b", tmp_path)
    for name in ("../x", "/x", "a/b/c", "-x", "a/.git"):
        with pytest.raises(ValueError):
            store.put(name, b"")
    store.put("runs/large.json", b"x" * 2_000)
    with pytest.raises(RunFault, match="larger"):
        store.read("runs/large.json", 1_000)
    with pytest.raises(FileNotFoundError):
        store.read("runs/none.json", 1_000)
    git(tmp_path, "remote", "add", "origin", str(tmp_path / "nowhere"))
    with pytest.raises(LocalFault, match="ls-remote failed"):
        GitBranch("b", tmp_path).names("runs")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalFault, match="git is not installed"):
        open_store("git:b")
