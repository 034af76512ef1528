"""A run.json and a writer's state as a load writes them, and the same with changes."""

from __future__ import annotations

from typing import Any

_FIGURES = {"n": 0, "p50_ns": None, "p99_ns": None, "max_ns": None}


def header(verb: str = "load", **changes: Any) -> dict[str, Any]:
    """run.json but for its schema. A change replaces the section of its name; in one that is an
    object only the keys that the change names."""
    found: dict[str, Any] = {
        "tool": {"name": "latdiag", "version": "1.0", "verb": verb},
        "created": "2026-11-23T12:00:00+00:00",
        "target": {
            "url": "http://127.0.0.1:8000/v1",
            "model": "m",
            "dialect": "openai-chat",
            "peer": "127.0.0.1 port 8000",
        },
        "stacks": [],
        "plan": _plan(),
        "preflight": {
            "model_asked": False,
            "models_offered": 1,
            "extras": [],
            "refused_extras": [],
            "server": None,
        },
        "client": {
            "kernel_stamps": True,
            "stamp_reason": None,
            "priority": "ordinary",
            "python": "3.11.7",
            "system": "Linux 6.1",
            "httpx": "0.28.1",
        },
        "command": "latdiag",
    }
    for name, value in changes.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) else value
    return found


def imported() -> dict[str, Any]:
    """run.json of an import."""
    found = header("import")
    return {key: found[key] for key in ("tool", "created", "stacks", "command")} | {
        "target": {"url": None, "model": None},
        "plan": {},
        "client": {"kernel_stamps": False, "stamp_reason": "the client read its clock"},
        "imported": {"captures": [{"name": "a", "clock_id": "capture:a"}], "scenarios": []},
    }


def imported_state() -> dict[str, Any]:
    """What an import says of itself at its end."""
    found = {key: state()[key] for key in ("writer", "pid", "state", "ended")}
    return found | {"counts": {"rows": 0, "spans": 0, "samples": 0, "skipped": {}}}


def received(**changes: Any) -> dict[str, Any]:
    """What the receiver of spans says of itself; ``counts`` as for ``header``."""
    found = state() | {"kind": "otlp", "counts": _counts()}
    del found["audit"]
    for name, value in changes.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) else value
    return found


def _counts() -> dict[str, Any]:
    counted = (
        "exports accepted dropped_attributes rows samples bytes lost senders_total"
        " unknown_senders unknown_spans cpu_ns"
    )
    by_name = ("refused", "refused_exports", "other_signals", "scrapes")
    return {
        **dict.fromkeys(counted.split(), 0),
        **{name: {} for name in by_name},
        "disk_cap_reached": False,
        **dict.fromkeys(("forwarded", "forward_failed", "forward_failure")),
        "scrape_problems": [],
        "senders": [],
    }


def _plan() -> dict[str, Any]:
    return {
        "requests": None,
        "duration_ns": None,
        "warmup": None,
        "rate": None,
        "arrivals": None,
        "concurrency": None,
        "ramp_ns": 0,
        "isl": None,
        "osl": None,
        "prompts": None,
        "isl_source": "text",
        "shared_prefix": 0,
        "connections": "reuse",
        "workers": 1,
        "seed": 1,
        "timeout_ns": 120_000_000_000,
    }


def state(state: str = "closed", **changes: Any) -> dict[str, Any]:
    """What a writer of requests says of itself; ``audit`` and ``counts`` as for ``header``."""
    found: dict[str, Any] = {
        "writer": "w",
        "pid": 1,
        "state": state,
        "ended": "complete" if state == "closed" else None,
        "clock_id": "c1",
        "clock": [],
        "clock_steps": [],
        "audit": {
            "wall_ns": 0,
            "reader_cpu": None,
            "reader_cpu_worst_5s": None,
            "run_queue_share": None,
            "starved_share": None,
            "reader_peak_rss_kb": 0,
            "reader_peak_backlog_bytes": 0,
            "read_lag": _FIGURES,
            "loop_lag": _FIGURES,
            "writer_cpu_ns": 0,
        },
        "counts": {
            "begun": 0,
            "rows": 0,
            "open": 0,
            "lost": None,
            "failed": 0,
            "output_arrivals": 0,
        },
    }
    for name, value in changes.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) else value
    return found
