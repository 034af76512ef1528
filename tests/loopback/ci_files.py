"""Files of CI servers, read and run as these do: as much of YAML and of GitHub's expressions as
our examples use. What is not understood is an error, so a test cannot pass over it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_KEY = re.compile(r"([A-Za-z_.-]+):(?: (.*))?")
_EXPRESSION = re.compile(r"\$\{\{ (.+?) \}\}")
_CLAUSE = re.compile(r"(\S+) (==|!=) (\S+|'[^']*')")


def read(path: Path) -> Any:
    """The document of a file: maps, lists, texts in a block (``|``, ``>-``) and plain texts."""
    lines = path.read_text(encoding="utf-8").splitlines()
    value, rest = _value(lines, 0)
    assert not [line for line in rest if _told(line)], rest
    return value


def _told(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _value(lines: list[str], least: int) -> tuple[Any, list[str]]:
    """A map or a list that is indented by ``least`` or more, and the lines after it."""
    while lines and not _told(lines[0]):
        lines = lines[1:]
    if not lines or _indent(lines[0]) < least:
        return None, lines
    here = _indent(lines[0])
    if lines[0].lstrip().startswith("- "):
        return _list(lines, here)
    return _map(lines, here)


def _list(lines: list[str], here: int) -> tuple[list[Any], list[str]]:
    found = []
    while lines:
        if not _told(lines[0]):
            lines = lines[1:]
        elif _indent(lines[0]) == here and lines[0].lstrip().startswith("- "):
            inner = lines[0][here + 2 :]
            if _KEY.fullmatch(inner) and not inner.startswith(("'", '"')):
                item, lines = _map([" " * (here + 2) + inner, *lines[1:]], here + 2)
            else:
                item, lines = _scalar(inner, lines[1:], here)
            found.append(item)
        else:
            break
    return found, lines


def _map(lines: list[str], here: int) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    while lines:
        if not _told(lines[0]):
            lines = lines[1:]
            continue
        if _indent(lines[0]) != here:
            assert _indent(lines[0]) < here, lines[0]
            break
        match = _KEY.fullmatch(lines[0].strip())
        if match is None:
            break
        key, text = match[1], match[2]
        if text:
            found[key], lines = _scalar(text, lines[1:], here)
        else:
            found[key], lines = _value(lines[1:], here + 1)
    return found, lines


def _scalar(text: str, lines: list[str], here: int) -> tuple[Any, list[str]]:
    if text not in ("|", ">-"):
        if text.startswith("["):
            return [each.strip() for each in text.strip("[]").split(",")], lines
        quoted = len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]
        return (text[1:-1] if quoted else text), lines
    block = []
    while lines and (not lines[0].strip() or _indent(lines[0]) > here):
        block.append(lines[0])
        lines = lines[1:]
    while block and not block[-1].strip():
        block.pop()
    depth = min(_indent(line) for line in block if line.strip())
    cut = [line[depth:] for line in block]
    return ("\n".join(cut) + "\n" if text == "|" else " ".join(cut)), lines


@dataclass
class Job:
    """A job of GitHub in ``workspace``, whose checkouts are there already. ``github``: facts of
    its event by dotted name. What it did: ``outputs`` by step, ``artifacts``, ``log``."""

    workspace: Path
    environment: Mapping[str, str]
    github: Mapping[str, str]
    temp: Path
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    log: str = ""
    failed: bool = False

    def run(self, workflow: Mapping[str, Any], job: str) -> bool:
        """All steps; whether the job is green."""
        env = {**workflow["env"], **self.environment}
        facts = {f"env.{key}": value for key, value in env.items()}
        self._steps(workflow["jobs"][job]["steps"], facts, env)
        return not self.failed

    def _steps(self, steps: list[Any], facts: Mapping[str, str], env: Mapping[str, str]) -> None:
        for step in steps:
            known = {**facts, **{f"github.{k}": v for k, v in self.github.items()}}
            for name, of in self.outputs.items():
                known |= {f"steps.{name}.outputs.{key}": value for key, value in of.items()}
            if self._holds(step.get("if"), known):
                self._step(step, known, env)

    def _step(
        self, step: Mapping[str, Any], known: Mapping[str, str], env: Mapping[str, str]
    ) -> None:
        unknown = step.keys() - {"name", "id", "if", "uses", "with", "shell", "env", "run"}
        assert not unknown, unknown
        given = {key: _filled(str(text), known) for key, text in step.get("with", {}).items()}
        own = {key: _filled(str(text), known) for key, text in step.get("env", {}).items()}
        if "run" in step:
            self._bash(step, {**env, **own})
        elif step["uses"].startswith("./"):
            folder = self.workspace / step["uses"]
            action = read(folder / "action.yml")
            usual = {
                key: _filled(str(of.get("default", "")), known)
                for key, of in action["inputs"].items()
            }
            assert given.keys() <= usual.keys()
            inputs = {f"inputs.{key}": value for key, value in {**usual, **given}.items()}
            place = {"github.action_path": str(folder)}
            self._steps(action["runs"]["steps"], {**known, **inputs, **place}, env)
        elif step["uses"].startswith("actions/upload-artifact@"):
            self.artifacts[given["name"]] = Path(given["path"])
        else:
            assert step["uses"].startswith("actions/checkout@"), step["uses"]
            assert (self.workspace / given["path"]).is_dir()

    def _bash(self, step: Mapping[str, Any], env: Mapping[str, str]) -> None:
        output = self.temp / f"output-{len(self.outputs)}-{len(self.log)}"
        output.touch()
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.workspace,
            env={
                **os.environ,
                **env,
                "GITHUB_OUTPUT": str(output),
                "RUNNER_TEMP": str(self.temp),
                "GITHUB_REPOSITORY": self.github["repository"],
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
            check=False,
        )
        self.log += f"## {step.get('name')} ({done.returncode})\n{done.stdout}"
        self.failed = self.failed or done.returncode != 0
        pairs = (line.partition("=") for line in output.read_text().splitlines())
        self.outputs[step.get("id", str(len(self.outputs)))] = {k: v for k, _, v in pairs}

    def _holds(self, text: str | None, known: Mapping[str, str]) -> bool:
        if text is None:
            return not self.failed
        clauses = text.split(" && ")
        if not {"always()", "failure()"} & {each.strip() for each in clauses} and self.failed:
            return False
        return all(self._clause(each.strip(), known) for each in clauses)

    def _clause(self, text: str, known: Mapping[str, str]) -> bool:
        if text in ("always()", "failure()"):
            return text == "always()" or self.failed
        match = _CLAUSE.fullmatch(text)
        assert match is not None, text
        one, other = (
            each.strip("'") if each.startswith("'") else known.get(each, "")
            for each in (match[1], match[3])
        )
        return (one == other) == (match[2] == "==")


def _filled(text: str, known: Mapping[str, str]) -> str:
    """With GitHub's expressions replaced; what is not known is empty, as there."""
    return _EXPRESSION.sub(lambda match: known.get(match[1], ""), text)
