"""run.json: what is known of a run before its first request, and nothing that is secret."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from latdiag import __version__
from latdiag.model.document import OPTIONAL, document
from latdiag.model.secrets import concealed
from latdiag.model.text import shown, without_credentials
from latdiag.store.shape import MAX_TEXT, Amount, Count, Unlike, accepted

_SECRET_OPTIONS = (
    "--base-cmd",
    "--cand-cmd",
    "--header",
    "--body-json",
    "--api-key",
    "--header-env",
    "--api-key-env",
    "--metrics-header-env",
    "--token-env",
    "--prometheus-token-env",
)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom the requests went to; None for what is not known. ``url``: without credentials."""

    url: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint(Target):
    """A target that was looked at: how it is spoken to, the address that answered, and the
    variable that the API key was taken from."""

    dialect: str | None = None
    peer: str | None = None
    api_key_env: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class StackShown:
    """A stack that showed itself before the load, and by what (``grounds``)."""

    name: str
    version: str | None
    grounds: str


@dataclass(frozen=True, slots=True)
class ProbeLimits:
    """What a probe may spend, and the user's own workload as he wrote it."""

    max_tokens: Count
    max_model_len: Count | None
    isl: str | None
    osl: str | None
    rate: Amount | None
    concurrency: Count | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """The plan of requests of ours. ``isl``, ``osl``: mean tokens. Of a design, what its stages
    decide is None, and ``designed``, ``budget`` and ``limits`` are there."""

    requests: Count | None
    duration_ns: Count | None
    warmup: Count | None
    rate: Amount | None
    arrivals: str | None
    concurrency: Count | None
    ramp_ns: Count
    isl: Amount | None
    osl: Amount | None
    prompts: Count | None
    isl_source: str
    shared_prefix: Count
    connections: Literal["reuse", "fresh"]
    workers: Count
    seed: int
    timeout_ns: Count
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

    duration_ns: Count
    wait_ns: Count
    max_disk: Count | None
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
    models_offered: Count
    extras: list[str]
    refused_extras: list[str]
    server: str | None
    #: models that the server listed first, and that answered no request
    passed_over: list[str] = field(default_factory=list, metadata=OPTIONAL)
    #: the media type under which it sends its event streams, where that is another
    label: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class Stamps:
    """How the client took its instants; ``stamp_reason``: why without the kernel's."""

    kernel_stamps: bool
    stamp_reason: str | None


def _system() -> str:
    return f"{platform.system()} {platform.release()}"


@dataclass(frozen=True, slots=True)
class Machine:
    """What ran it."""

    python: str = field(default_factory=platform.python_version)
    system: str = field(default_factory=_system)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadClient(Stamps):
    """With what a load is measured: stamps, priority of the readers, machine and library."""

    priority: Literal["ordinary", "realtime"]
    python: str = field(default_factory=platform.python_version)
    system: str = field(default_factory=_system)
    httpx: str


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
    """The run.json of any verb that makes a run; ``to_json`` is its only writer, and ``SHAPES``
    says what it holds. ``behind``: the server behind the target, where a probe was made of
    both. ``candidate``: the other arm of a gate, whose target is the base."""

    verb: str
    target: Target
    plan: LoadPlan | CollectPlan | NoPlan
    client: LoadClient | Machine | Stamps
    stacks: Sequence[StackShown] = ()
    preflight: Preflight | None = None
    imported: ImportedFrom | None = None
    behind: Endpoint | None = None
    candidate: Endpoint | None = None

    def to_json(self) -> dict[str, object]:
        """The keys of run.json but for its schema. Holds nothing that is secret."""
        keys = {
            "tool": {"name": "latdiag", "version": __version__, "verb": self.verb},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "target": self.target,
            **({"behind": self.behind} if self.behind else {}),
            **({"candidate": self.candidate} if self.candidate else {}),
            "stacks": list(self.stacks),
            "plan": self.plan,
            **({"preflight": self.preflight} if self.preflight else {}),
            "client": self.client,
            **({"imported": self.imported} if self.imported else {}),
            "command": concealed(redacted_command(sys.argv))[:MAX_TEXT],
        }
        return {key: document(value) for key, value in keys.items()}


@dataclass(frozen=True, slots=True)
class Tool:
    """What wrote the run."""

    name: str
    version: str
    verb: str


@dataclass(frozen=True, slots=True)
class _Made:
    tool: Tool


@dataclass(frozen=True, slots=True)
class _Any(_Made):
    """The keys of every run.json."""

    created: str
    stacks: list[StackShown]
    command: str
    schema: Count


@dataclass(frozen=True, slots=True)
class _Loaded(_Any):
    target: Endpoint
    plan: LoadPlan
    preflight: Preflight
    client: LoadClient
    behind: Endpoint | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gated(_Loaded):
    candidate: Endpoint


@dataclass(frozen=True, slots=True)
class _Collected(_Any):
    target: Endpoint
    plan: CollectPlan
    client: Machine


@dataclass(frozen=True, slots=True)
class _Imported(_Any):
    target: Target
    plan: NoPlan
    client: Stamps
    imported: ImportedFrom


#: What a run.json holds, by the verb that made it.
SHAPES = {
    "load": _Loaded,
    "probe": _Loaded,
    "gate": _Gated,
    "collect": _Collected,
    "import": _Imported,
}


def accepted_header(found: Mapping[str, object]) -> dict[str, object]:
    """The run.json of any verb, without keys that none of them has. Unlike where it is none."""
    tool = accepted(_Made, found)["tool"]
    if tool["verb"] not in SHAPES:
        verbs = ", ".join(sorted(SHAPES))
        raise Unlike(f"tool.verb is {shown(tool['verb'], 40)!r}, and none of {verbs}")
    header: dict[str, object] = accepted(SHAPES[tool["verb"]], found)
    return header


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
