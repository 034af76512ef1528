"""run.json: what is known of a run before its first request, and nothing that is secret."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from latdiag import __version__
from latdiag.model.document import OPTIONAL, document
from latdiag.model.secrets import concealed
from latdiag.model.text import without_credentials

_SECRET_OPTIONS = ("--header", "--body-json", "--api-key", "--header-env", "--api-key-env")


@dataclass(frozen=True, slots=True)
class Target:
    """Whom the requests went to; None for what is not known. ``url``: without credentials."""

    url: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint(Target):
    """A target that was looked at: how it is spoken to, and the address that answered."""

    dialect: str | None = None
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class StackShown:
    """A stack that showed itself before the load, and by what (``grounds``)."""

    name: str
    version: str | None
    grounds: str


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """What a probe may spend, and the user's own workload as he wrote it."""

    max_tokens: int
    max_model_len: int | None
    isl: str | None
    osl: str | None
    rate: float | None
    concurrency: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """The plan of requests of ours. ``isl``, ``osl``: mean tokens. Of a design, what its stages
    decide is None, and ``designed``, ``budget`` and ``limits`` are there."""

    requests: int | None
    duration_ns: int | None
    warmup: int | None
    rate: float | None
    arrivals: str | None
    concurrency: int | None
    ramp_ns: int
    isl: float | None
    osl: float | None
    prompts: int | None
    isl_source: str
    shared_prefix: int
    connections: str
    workers: int
    seed: int
    timeout_ns: int
    designed: bool = field(default=False, metadata=OPTIONAL)
    budget: str | None = field(default=None, metadata=OPTIONAL)
    limits: ProbeLimits | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class Doors:
    """Where spans were to be taken: HOST:PORT, None for a door that is shut."""

    grpc: str | None
    http: str | None


@dataclass(frozen=True, slots=True)
class CollectPlan:
    """The plan of a run without requests of ours; URLs without credentials."""

    duration_ns: int
    wait_ns: int
    max_disk: int | None
    otlp: Doors | None
    metrics: list[str]
    forward: str | None


@dataclass(frozen=True, slots=True)
class NoPlan:
    """Others recorded it."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the target answered before the load."""

    model_asked: bool
    models_offered: int
    extras: list[str]
    refused_extras: list[str]
    server: str | None


@dataclass(frozen=True, slots=True)
class Stamps:
    """How the client took its instants; ``stamp_reason``: why without the kernel's."""

    kernel_stamps: bool
    stamp_reason: str | None


@dataclass(frozen=True, slots=True)
class Machine:
    """What ran it."""

    python: str = field(default_factory=platform.python_version)
    system: str = field(default_factory=lambda: f"{platform.system()} {platform.release()}")


@dataclass(frozen=True, slots=True)
class LoadClient:
    """With what a load is measured: stamps, priority of the readers, machine and library."""

    stamps: Stamps
    priority: str
    httpx: str
    machine: Machine = field(default_factory=Machine)

    def to_json(self) -> dict[str, object]:
        stamps, machine = document(self.stamps), document(self.machine)
        return {**stamps, "priority": self.priority, **machine, "httpx": self.httpx}


@dataclass(frozen=True, slots=True)
class CaptureName:
    """A capture that a run was made of. ``clock_id``: of its client."""

    name: str
    clock_id: str


@dataclass(frozen=True, slots=True)
class ImportedFrom:
    """What a run was made of, by names alone."""

    captures: list[CaptureName]
    scenarios: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The run.json of any verb that makes a run; ``to_json`` is its only writer."""

    verb: str
    target: Target
    plan: LoadPlan | CollectPlan | NoPlan
    client: LoadClient | Machine | Stamps
    stacks: Sequence[StackShown] = ()
    preflight: Preflight | None = None
    imported: ImportedFrom | None = None

    def to_json(self) -> dict[str, object]:
        """The keys of run.json but for its schema. Holds nothing that is secret."""
        keys = {
            "tool": {"name": "latdiag", "version": __version__, "verb": self.verb},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "target": self.target,
            "stacks": list(self.stacks),
            "plan": self.plan,
            **({"preflight": self.preflight} if self.preflight else {}),
            "client": self.client,
            **({"imported": self.imported} if self.imported else {}),
            "command": concealed(redacted_command(sys.argv)),
        }
        return {key: document(value) for key, value in keys.items()}


def redacted_command(argv: Sequence[str]) -> str:
    """The command line without header values, bodies, and credentials in URLs."""
    shown, hide = ["latdiag"], False
    for word in argv[1:]:
        name, equals, _ = word.partition("=")
        if hide:
            shown.append("***")
            hide = False
        elif name in _SECRET_OPTIONS:
            shown.append(f"{name}=***" if equals else name)
            hide = not equals
        elif "://" in word:
            shown.append(without_credentials(word))
        else:  # a URL may come without its scheme
            shown.append(word.partition("?")[0])
    return " ".join(json.dumps(w) if " " in w else w for w in shown)
