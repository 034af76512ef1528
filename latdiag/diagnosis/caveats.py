"""What to be careful about in a result: caveats out of the client's own books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latdiag.diagnosis.breakdown import TAIL_ROWS
from latdiag.measurement.digest import Digest
from latdiag.measurement.validity import facts_of_writers
from latdiag.model.caveats import caveat

if TYPE_CHECKING:
    from latdiag.store.run import Run

#: What would tell merged classes apart.
_SPLITS = {
    "network": "A probe from the gateway's own host splits them.",
    "server": "Spans or /metrics of the server split them.",
    "gateway": "Spans of the server or of the gateway split them.",
}
#: A censored share below this moves no percentile that is stated.
_WORTH_SAYING = 0.001


def caveats(result: dict[str, Any], found: Digest, run: Run) -> list[dict[str, str]]:
    """Everything but what the evidence of servers itself brings up."""
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
    censored = censored_share(found)
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
            # Metrics or replies were there, or they would be merged with queue and prefill.
            splits = _SPLITS["gateway" if set(members) == {"frontend", "gateway"} else about]
            out.append(caveat("LD401", members=named, splits=splits))
    return out


def censored_share(found: Digest) -> float | None:
    """Share of the gaps between chunks that touch an overwritten stamp; None without gaps."""
    left_out = found.measurement.counts.left_out.get("icl", {})
    gaps = found.measurement.reading("icl", "mean").n + sum(left_out.values())
    return left_out.get("censored", 0) / gaps if gaps else None
