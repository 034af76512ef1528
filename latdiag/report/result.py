"""The result of a run: the one document that ``--json`` prints and the terminal renders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from latdiag.attribute import attribution, observations
from latdiag.attribute import digest as digests
from latdiag.attribute.breakdown import TAIL_ROWS
from latdiag.attribute.digest import Digest
from latdiag.attribute.slo import Slo
from latdiag.attribute.validity import Facts, Reading, facts_of_writers, readings
from latdiag.model.caveats import caveat
from latdiag.model.units import ms
from latdiag.report import collected
from latdiag.report import json as result_json
from latdiag.report.scraped import Scraped, doubtful, scraped
from latdiag.report.spoken import Spoken, spoken
from latdiag.report.stated import Stated, stated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latdiag.attribute.parts import Parts
    from latdiag.store.run import Run

#: Points of a line over time.
_STEPS = 24
#: What would tell merged classes apart.
_SPLITS = {
    "network": "A probe from the gateway's own host splits them.",
    "server": "Spans or /metrics of the server split them.",
    "gateway": "Spans of the server or of the gateway split them.",
}
#: A censored share below this moves no percentile that is stated.
_WORTH_SAYING = 0.001


def result_of(run: Run, verb: str, slos: Sequence[Slo] = ()) -> dict[str, Any]:
    """Everything that is said of ``run``. ``verb``: load or probe (which adds breakdowns)."""
    return result_and_parts(run, verb, slos)[0]


def result_and_parts(
    run: Run, verb: str, slos: Sequence[Slo] = ()
) -> tuple[dict[str, Any], Parts]:
    """``result_of``, and the requests in components that its breakdown sums up; as any load
    proves them where it has none."""
    header = run.header
    found = digests.digest(run.batches(list(digests.COLUMNS)), slos)
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
    servers, replies = spoken(run), stated(run)
    metrics = scraped(run, bool(found.designed))
    told = servers is not None or replies is not None
    told = told or (metrics is not None and metrics.parts is not None)
    parts = found.parts
    if told or verb in ("probe", "diagnose"):
        parts = _attribute(result, found, run, servers, replies, metrics)
    if replies is not None:
        result["replies"] = replies.document
        _name_stacks(result, replies.stacks, "its replies")
    if metrics is not None:
        result["aggregates"] = metrics.document
        _name_stacks(result, metrics.stacks, "its metrics")
        result["caveats"] += doubtful(metrics, servers.parts if servers else None)
    result["caveats"] += _caveats(result, found, run)
    return result, parts


# ---------------------------------------------------------------------- the client's own truth
def _facts(found: Digest, writers: Sequence[dict[str, Any]]) -> Facts:
    import numpy as np

    counts = found.measurement.counts
    median = found.measurement.reading("ttft", "p50").value
    user = counts.stamp_source.get("user", 0) > 0
    return Facts(
        schedule_lag_p99_ns=float(np.quantile(found.lags, 0.99)) if len(found.lags) else None,
        median_ttft_ns=median,
        censored_share=_censored_share(found),
        clock_step_share=counts.clock_step / counts.requests if counts.requests else None,
        user_stamps=user,
        **facts_of_writers(writers),
    )


def _censored_share(found: Digest) -> float | None:
    """Share of the gaps between chunks that touch an overwritten stamp; None without gaps."""
    left_out = found.measurement.counts.left_out.get("icl", {})
    gaps = found.measurement.reading("icl", "mean").n + sum(left_out.values())
    return left_out.get("censored", 0) / gaps if gaps else None


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
    import numpy as np

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
    import numpy as np

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
    run: Run,
    servers: Spoken | None,
    replies: Stated | None,
    metrics: Scraped | None,
) -> Parts:
    """A probe's designed stages teach the laws; any other load is explained without. Servers
    that spoke of the requests know best, and then what their replies state."""
    seen = None
    if found.designed:
        seen = observations.observe(run.batches(list(observations.COLUMNS)))
    counts = found.measurement.counts
    failed = sum(counts.failed.values()) / counts.requests if counts.requests else 0.0
    parts = None
    if servers is not None:
        parts, result["evidence"] = servers.parts, servers.document
        result["caveats"] += servers.caveats
        _name_stacks(result, servers.stacks, "its spans")
    own = replies.parts if replies is not None else None
    if parts is None and replies is not None:
        result["caveats"] += replies.caveats
    told = metrics.parts if metrics is not None else None
    rungs = attribution.Rungs(parts, own, told)
    said = attribution.attribute(found.parts, seen, result["valid"], failed, rungs)
    result["breakdown"], result["leaves"], result["by"] = said.breakdown, said.leaves, said.by
    result["verdict"], result["learned"] = said.verdict, said.learned
    result["claims"] = said.claims
    return said.parts


def _name_stacks(result: dict[str, Any], names: Sequence[str], grounds: str) -> None:
    """Add the stacks that are not named yet."""
    known = {stack["name"] for stack in result["stacks"]}
    new = [{"name": name, "grounds": grounds} for name in names if name not in known]
    result["stacks"] = [*result["stacks"], *new]


# ---------------------------------------------------------------------- what to be careful about
def _caveats(result: dict[str, Any], found: Digest, run: Run) -> list[dict[str, str]]:
    counts, header = found.measurement.counts, run.header
    good, sent = counts.ok, counts.requests
    failed = sum(counts.failed.values())
    out: list[dict[str, str]] = []
    if failed:
        out.append(caveat("LD101", failed=failed, sent=sent))
    weak = {n: c for n, c in counts.token_source.items() if n in ("chunks", "tokenizer")}
    if weak:
        missing = sum(weak.values())
        source = ", ".join(sorted(weak))
        out.append(caveat("LD102", missing=missing, requests=sent, source=source))
    if counts.tokens_unknown:
        out.append(caveat("LD104"))
    out += _length_caveats(found, good)
    out += _header_caveats(header)
    for why in run.cut_short:
        out.append(caveat("LD110", why=why))
    if run.open_rows:
        out.append(caveat("LD111", rows=run.open_rows))
    for what in run.caveats:
        out.append(caveat("LD114", what=what))
    out += _skipped_caveats(run)
    limited = counts.failed.get("rate_limited", 0)
    if limited:
        out.append(caveat("LD113", rows=limited, sent=sent))
    censored = _censored_share(found)
    if censored is not None and censored > _WORTH_SAYING:
        out.append(caveat("LD501", share=censored))
    if counts.stamp_source.get("user"):
        why = (header.get("client") or {}).get("stamp_reason") or "no kernel stamp came"
        out.append(caveat("LD201", why=why))
    if counts.clock_step:
        out.append(caveat("LD202", rows=counts.clock_step))
    n = len(found.split["ttft"])
    if found.bounded:
        out.append(caveat("LD204", rows=found.bounded, requests=n))
    if found.retried:
        out.append(caveat("LD115", rows=found.retried, requests=sent))
    if (header.get("client") or {}).get("priority") == "realtime":
        cpu = facts_of_writers(run.writers)["reader_cpu_worst_5s"]
        out.append(caveat("LD504", share=cpu or 0.0))
    prompts = (header.get("plan") or {}).get("prompts")
    if prompts and sent > prompts:
        out.append(caveat("LD116", prompts=prompts, requests=sent))
    if n and found.fresh > n / 2:
        out.append(caveat("LD502", connect=round(found.connect_mean_ns)))
    if result["verdict"] is not None:
        out += _attribution_caveats(result, found)
    if n:
        out.append(caveat("LD402", peer=(header.get("target") or {}).get("peer") or "the target"))
    return out


def _skipped_caveats(run: Run) -> list[dict[str, str]]:
    """Parts of a capture that an import could not read."""
    skipped: dict[str, int] = {}
    for writer in run.writers:
        for what, n in ((writer.get("counts") or {}).get("skipped") or {}).items():
            skipped[str(what)] = skipped.get(str(what), 0) + (n if isinstance(n, int) else 0)
    if not skipped:
        return []
    return [caveat("LD123", n=sum(skipped.values()), worst=max(skipped, key=lambda w: skipped[w]))]


def _length_caveats(found: Digest, good: int) -> list[dict[str, str]]:
    counts, out = found.measurement.counts, []
    if counts.cached_tokens and counts.isl.got:
        share = counts.cached_tokens / counts.isl.got
        out.append(caveat("LD105", share=share, rows=counts.cached_rows, requests=good))
    for code, deviation in (("LD106", found.isl), ("LD107", found.osl)):
        if deviation.rows:
            got, wanted = deviation.worst
            out.append(caveat(code, rows=deviation.rows, requests=good, got=got, wanted=wanted))
    return out


def _header_caveats(header: dict[str, Any]) -> list[dict[str, str]]:
    found, out = header.get("preflight") or {}, []
    if found.get("model_asked"):
        model = (header.get("target") or {}).get("model") or "?"
        out.append(caveat("LD108", model=model, offered=found.get("models_offered") or 1))
    if found.get("refused_extras"):
        out.append(caveat("LD109", fields=", ".join(found["refused_extras"])))
    return out


def _attribution_caveats(result: dict[str, Any], found: Digest) -> list[dict[str, str]]:
    out = []
    if found.designed and result["learned"] is None:
        out.append(caveat("LD403", rows=found.designed))
    if result["learned"] is not None:
        out.append(caveat("LD404"))
    tail = result["breakdown"].get("p95_tail")
    if tail is not None and tail["n"] < TAIL_ROWS:
        out.append(caveat("LD302", n=tail["n"], needs=20 * TAIL_ROWS))
    for entry in (result["breakdown"].get("mean") or {}).values():
        if isinstance(entry, dict) and entry.get("members"):
            members = entry["members"]
            named = f"{', '.join(members[:-1])} and {members[-1]}"
            about = "network" if "network" in members else "server"
            # Metrics were there, or they would be merged with queue and prefill.
            splits = _SPLITS["gateway" if set(members) == {"frontend", "gateway"} else about]
            out.append(caveat("LD401", members=named, splits=splits))
    return out
