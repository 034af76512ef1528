"""The result of a run: the one document that ``--json`` prints and the terminal renders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution import reading
from latdiag.attribution.client_only import partition
from latdiag.attribution.metrics.source import Scraped, doubtful
from latdiag.attribution.replies.source import Stated
from latdiag.attribution.spans.source import Spoken
from latdiag.diagnosis import attribution, caveats, collected, flags
from latdiag.diagnosis.caveats import censored_share
from latdiag.measurement.digest import Digest
from latdiag.measurement.slo import Slo
from latdiag.measurement.validity import Facts, Reading, facts_of_writers, readings
from latdiag.model.errors import UsageFault
from latdiag.model.units import ms
from latdiag.report import json as result_json

if TYPE_CHECKING:
    from latdiag.attribution.parts import Parts
    from latdiag.store.run import Reader, Run

#: Points of a line over time.
_STEPS = 24


def result_of(run: Run, verb: str, slos: Sequence[Slo] = ()) -> dict[str, Any]:
    """Everything that is said of ``run``. ``verb``: load or probe (which adds breakdowns)."""
    return result_and_parts(run, verb, slos)[0]


def result_and_parts(
    run: Run, verb: str, slos: Sequence[Slo] = (), *also: Reader
) -> tuple[dict[str, Any], Parts]:
    """``result_of``, and the requests in components that its breakdown sums up; as any load
    proves them where it has none. ``also``: who else takes the run's rows as they go by."""
    header = run.header
    read = reading.read(run, slos, *also)
    found = read.digest
    _check_clocks(run, found)
    # What gathers beside the load counts spans, and audits nobody.
    writers = [writer for writer in run.writers if writer.get("kind") != "otlp"]
    said = readings(_facts(found, writers))
    result = result_json.blank(verb)
    result["run"] = run.paths[0]
    result["invalid_because"] = [_broken(reading) for reading in said if reading.broken]
    result["valid"] = not result["invalid_because"]
    target = header.get("target") or {}
    result["target"] = {key: target.get(key) for key in ("url", "model", "dialect", "peer")}
    result["stacks"] = header.get("stacks") or []
    captures = (header.get("imported") or {}).get("captures")
    if captures:
        result["target"]["captures"] = [str(each.get("name")) for each in captures]
    result["load"] = _load(found, header)
    result["self_audit"] = _self_audit(found, said, header, writers)
    shown = found.measurement.to_json()
    result["metrics"] = shown["metrics"]
    result["split"] = {"ttft": _split(found)}
    result["slo"] = [slo.judge(found.measurement).to_json() for slo in slos]
    result["errors"] = [
        {"outcome": name, "count": f.count, "status": f.status, "example": f.example}
        for name, f in sorted(found.failures.items(), key=lambda item: -item[1].count)
    ]
    gathered = collected.counts_of(run.writers)
    if gathered is not None:
        result["collected"] = gathered
        result["caveats"] += collected.caveats(run.writers)
    servers, replies, metrics = read.spoken(), read.stated(), read.scraped()
    told = servers is not None or replies is not None
    told = told or (metrics is not None and metrics.parts is not None)
    parts = partition(found.frame)
    if told or verb in ("probe", "diagnose"):
        parts = _attribute(result, found, parts, servers, replies, metrics)
        spoke = [each for each in (servers, replies, metrics) if each is not None]
        if not any(each.parts is parts for each in spoke) and (flag := flags.to_measure(result)):
            result["verdict"]["next"] = f"{result['verdict']['next']} {flag}"
    if replies is not None:
        result["replies"] = replies.document
        _name_stacks(result, replies.stacks, "its replies")
    if metrics is not None:
        result["aggregates"] = metrics.document
        _name_stacks(result, metrics.stacks, "its metrics")
        told_by = ((servers, "the spans"), (replies, "the replies"))
        own = next(((parts, who) for e, who in told_by if e and e.parts is parts), None)
        result["caveats"] += doubtful(metrics, own)
    result["caveats"] += caveats.caveats(result, found, run)
    return result, parts


def _check_clocks(run: Run, found: Digest) -> None:
    """UsageFault for several probes whose streams' instants cannot be set against each other."""
    if len(run.paths) > 1 and found.designed and len(found.frame.clocks) > 1:
        raise UsageFault(
            "these probes were made on different machines or across a reboot, and their clocks"
            " cannot be compared",
            "diagnose them apart",
        )


# ---------------------------------------------------------------------- the client's own truth
def _facts(found: Digest, writers: Sequence[dict[str, Any]]) -> Facts:
    counts = found.measurement.counts
    median = found.measurement.reading("ttft", "p50").value
    user = counts.stamp_source.get("user", 0) > 0
    return Facts(
        schedule_lag_p99_ns=float(np.quantile(found.lags, 0.99)) if len(found.lags) else None,
        median_ttft_ns=median,
        censored_share=censored_share(found),
        clock_step_share=counts.clock_step / counts.requests if counts.requests else None,
        user_stamps=user,
        **facts_of_writers(writers),
    )


def _broken(reading: Reading) -> dict[str, Any]:
    return {
        "rule": reading.rule,
        "text": reading.sentence(),
        "reading": reading.reading,
        "limit": reading.limit,
        "unit": reading.unit,
    }


def _self_audit(
    found: Digest,
    said: Sequence[Reading],
    header: dict[str, Any],
    writers: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    sources = found.measurement.counts.stamp_source
    source = "user" if sources.get("user") else "kernel" if sources.get("kernel") else None
    lags = [(w.get("audit") or {}).get("read_lag", {}).get("p99_ns") for w in writers]
    worst = max((lag for lag in lags if lag is not None), default=None)
    rows = [
        {
            "rule": r.rule,
            "title": r.title,
            "reading": r.reading,
            "limit": r.limit,
            "unit": r.unit,
            "broken": r.broken,
            "reason": r.reason,
        }
        for r in said
    ]
    rows.append(
        {
            "rule": "read_lag",
            "title": "read lag (p99), which the kernel stamps leave out",
            "reading": None if worst is None else ms(worst),
            "limit": None,
            "unit": "ms",
            "broken": False,
            "reason": "no kernel stamps" if worst is None else None,
        }
    )
    total = [(w.get("audit") or {}).get("run_queue_share") for w in writers]
    waited = max((share for share in total if share is not None), default=None)
    rows.append(
        {
            "rule": "run_queue_total",
            "title": "run-queue delay in all, with what waking an idle core takes",
            "reading": None if waited is None else 100 * waited,
            "limit": None,
            "unit": "%",
            "broken": False,
            "reason": "not told by this system" if waited is None else None,
        }
    )
    return {
        "priority": (header.get("client") or {}).get("priority"),
        "stamp_source": source,
        "stamp_reason": (header.get("client") or {}).get("stamp_reason"),
        "readings": rows,
    }


# ---------------------------------------------------------------------- what was run
def _load(found: Digest, header: dict[str, Any]) -> dict[str, Any]:
    counts, plan = found.measurement.counts, header.get("plan") or {}
    span_s = found.measurement.span_ns / 1e9
    isl, osl = counts.isl, counts.osl
    sources = sorted(counts.token_source, key=lambda name: -counts.token_source[name])
    return {
        "requests": counts.requests,
        "ok": counts.ok,
        "failed": dict(counts.failed),
        "offered_rate": plan.get("rate"),
        "sent_rate": found.sent_rate if plan.get("rate") else None,
        "warmup": found.warmups,
        "duration_s": span_s or None,
        "concurrency": plan.get("concurrency"),
        "arrivals": plan.get("arrivals"),
        "isl": plan.get("isl"),
        "osl": plan.get("osl"),
        "prompts": plan.get("prompts"),
        "isl_mean": isl.got / isl.rows if isl.rows else None,
        "osl_mean": osl.got / osl.rows if osl.rows else None,
        "connections": plan.get("connections"),
        "workers": plan.get("workers"),
        "seed": plan.get("seed"),
        "token_source": sources[0] if sources else None,
        "series": _series(found),
    }


def _series(found: Digest) -> dict[str, Any] | None:
    """Median TTFT over time, in as many steps as hold some ten requests each."""
    sent, ttft = found.sent, found.split["ttft"]
    steps = min(_STEPS, len(sent) // 10)
    if steps < 3:
        return None
    since, span = int(sent.min()), int(sent.max() - sent.min()) + 1
    place = (sent - since) * steps // span
    medians = [
        ms(float(np.median(ttft[place == step]))) if (place == step).any() else None
        for step in range(steps)
    ]
    return {"step_s": span / steps / 1e9, "ttft_p50_ms": medians}


def _split(found: Digest) -> dict[str, Any] | None:
    split, n = found.split, len(found.split["ttft"])
    if not n:
        user = found.measurement.counts.stamp_source.get("user")
        reason = "no kernel stamps" if user else "no first token with an exact stamp"
        empty: dict[str, Any] = dict.fromkeys(("client", "network", "server"))
        return {"n": 0, **empty, "reason": reason, "bounded": 0}
    open_lo = split["network"] - split["network_lo"]
    open_hi = split["network_hi"] - split["network"]
    return {
        "n": n,
        "bounded": found.bounded,
        "client": _part(split["client"], split["client"], split["client"]),
        "network": _part(split["network"], split["network_lo"], split["network_hi"]),
        "server": _part(split["server"], split["server"] - open_hi, split["server"] + open_lo),
    }


def _part(
    values: NDArray[np.int64], lo: NDArray[np.int64], hi: NDArray[np.int64]
) -> dict[str, Any]:
    p50, p95 = np.quantile(values, [0.5, 0.95])
    return {
        "p50_ms": ms(float(p50)),
        "p95_ms": ms(float(p95)),
        "mean_ms": ms(float(values.mean())),
        "lo": ms(float(np.median(lo))),
        "hi": ms(float(np.median(hi))),
    }


# ---------------------------------------------------------------------- where the time went
def _attribute(
    result: dict[str, Any],
    found: Digest,
    whole: Parts,
    servers: Spoken | None,
    replies: Stated | None,
    metrics: Scraped | None,
) -> Parts:
    """A probe's designed stages teach the laws; any other load is explained without. Servers
    that spoke of the requests know best, and then what their replies state. ``whole``: what the
    client alone proves."""
    counts = found.measurement.counts
    failed = sum(counts.failed.values()) / counts.requests if counts.requests else 0.0
    parts = None
    if servers is not None:
        parts, result["evidence"] = servers.parts, servers.document
        result["caveats"] += servers.caveats
        _name_stacks(result, servers.stacks, "its spans")
    own = replies.parts if replies is not None else None
    told = metrics.parts if metrics is not None else None
    rungs = attribution.Rungs(parts, own, told)
    if metrics is not None and metrics.document["of"] == "traffic":
        whole = replace(whole, interval="server")  # no client was there
    said = attribution.attribute(whole, found.observations, result["valid"], failed, rungs)
    result["breakdown"], result["leaves"], result["by"] = said.breakdown, said.leaves, said.by
    result["verdict"], result["learned"] = said.verdict, said.learned
    result["claims"] = said.claims
    # What is left out of replies matters where the breakdown rests on them, or might have.
    if replies is not None and parts is None and (own is None or own is said.parts):
        result["caveats"] += replies.caveats
    return said.parts


def _name_stacks(result: dict[str, Any], names: Sequence[str], grounds: str) -> None:
    """Add the stacks that are not named yet."""
    known = {stack["name"] for stack in result["stacks"]}
    new = [{"name": name, "grounds": grounds} for name in names if name not in known]
    result["stacks"] = [*result["stacks"], *new]
