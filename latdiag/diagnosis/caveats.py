"""What to be careful about in a result: caveats out of the client's own books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from latdiag.attribution.accounts import Rank
from latdiag.diagnosis import unsent
from latdiag.diagnosis.breakdown import TAIL_ROWS
from latdiag.diagnosis.header import known, section
from latdiag.diagnosis.over_time import caveats_of
from latdiag.diagnosis.splitting import splitting
from latdiag.measurement.digest import Digest
from latdiag.measurement.validity import facts_of_writers
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Result
    from latdiag.store.run import Run

#: What to do about connections that are opened for a request each.
_REUSED = (
    "latdiag reuses connections, but requests that overlap need one each, and a server may close"
    " idle ones: see its keep-alive timeout."
)
_FRESH = (
    "To see what a client with kept-alive connections sees, use `latdiag load --connections reuse`"
    " and let the server keep connections open."
)
#: Fields that fix the length of a reply; what to do without them, and without the others.
_FIXING = frozenset({"ignore_eos", "min_tokens"})
_LENGTHS = (
    "Compare the lengths that you asked for with the actual lengths: these fields would have fixed"
    " them."
)
_COUNTING = (
    "These fields would have told the number of tokens, in all or in each chunk: see the notes on"
    " token counts, if there are any."
)
#: What makes the round trip known, where connections were not opened for each request.
_SHOWN = "--full shows the interval."
_NARROWER = f"{_SHOWN} `latdiag load --connections fresh` makes it narrower."
#: Fields of a request that have a server count the tokens of each chunk.
_COUNTERS = {
    "continuous_usage": "stream_options.continuous_usage_stats",
    "return_token_ids": "return_token_ids",
}
_TO_COUNT = (
    "Ask the server for token counts per chunk: return_token_ids, or"
    " stream_options.continuous_usage_stats."
)
_COUNTED = (
    "The server took {} and states no count for these chunks: read TPOT, which needs only the"
    " count of a whole reply."
)
#: A censored share below this moves no percentile that is stated.
_WORTH_SAYING = 0.001
#: Reasons that one caveat names.
_NAMED = 3


def caveats(result: Result, found: Digest, run: Run) -> list[Caveat]:
    """Everything but what the evidence of servers itself brings up."""
    counts, header = found.measurement.counts, run.header
    good, sent = counts.ok, counts.requests
    failed = sum(counts.failed.values())
    out: list[Caveat] = []
    if failed:
        out.append(caveat("LD101", failed=failed, sent=sent))
    weak = {n: c for n, c in counts.token_source.items() if n in ("chunks", "tokenizer")}
    if weak:
        missing = sum(weak.values())
        source = ", ".join(sorted(weak))
        out.append(caveat("LD102", missing=missing, requests=sent, source=source))
    if counts.tokens_unknown:
        out.append(caveat("LD104", more=_more_counts(header)))
    out += [*_length_caveats(found, good), *unsent.caveats(result, found)]
    out += _header_caveats(header)
    for why in run.cut_short:
        out.append(caveat("LD110", why=why))
    for why in run.unheard:
        out.append(caveat("LD433", why=why))
    if run.open_rows:
        out.append(caveat("LD111", rows=run.open_rows))
    for what in run.caveats:
        out.append(caveat("LD114", what=what))
    out += _contradicted_caveats(run)
    out += [*_skipped_caveats(run), *_stream_caveats(run, sent)]
    limited = counts.failed.get("rate_limited", 0)
    if limited:
        out.append(caveat("LD113", rows=limited, sent=sent))
    censored = censored_share(found)
    if censored is not None and censored > _WORTH_SAYING:
        out.append(caveat("LD501", share=censored))
    if counts.stamp_source.get("user"):
        reason = section(header, "client").get("stamp_reason") or "no kernel stamp arrived"
        out.append(caveat("LD201", why=reason))
    if counts.clock_step:
        out.append(caveat("LD202", rows=counts.clock_step))
    if found.retried:
        out.append(caveat("LD115", rows=found.retried, requests=sent))
    if section(header, "client").get("priority") == "realtime":
        cpu = facts_of_writers(run.writers).reader_cpu_worst_5s
        out.append(caveat("LD504", share=cpu or 0.0))
    prompts = known(section(header, "plan"), "prompts", int)
    if prompts and sent > prompts:
        out.append(caveat("LD116", prompts=prompts, requests=sent))
    out += _connection_caveats(found, header)
    out += _course_caveats(result)
    if result.verdict is not None:
        out += _attribution_caveats(result, found)
    if len(found.split["ttft"]) and not section(header, "behind"):
        peer = section(header, "target").get("peer") or "the target"
        out.append(caveat("LD402", peer=peer))
    return out


def _course_caveats(result: Result) -> list[Caveat]:
    """What happened on the way, where no verdict says it."""
    if not result.valid:
        return []  # the client may be what changed, or what fell behind
    more = result.course.overload if result.course is not None else None
    changes = caveats_of(result.course)
    if more is None or (result.verdict is not None and result.verdict.kind == "overloaded"):
        return changes
    rates = {"offered": more.offered_rate, "served": more.served_rate}
    return [caveat("LD125", **rates, bearable=more.bearable_rate), *changes]


def _connection_caveats(found: Digest, header: Mapping[str, object]) -> list[Caveat]:
    """On connections: advice that contradicts none of the others, nor the plan."""
    n, kept = len(found.split["ttft"]), section(header, "plan").get("connections")
    most = n and found.fresh > n / 2
    out = []
    if found.bounded:
        more = _SHOWN if most or kept == "fresh" else _NARROWER
        out.append(caveat("LD204", rows=found.bounded, requests=n, more=more))
    if most:
        more = _REUSED if kept == "reuse" else _FRESH
        out.append(caveat("LD502", connect=round(found.connect_mean_ns), more=more))
    return out


def _more_counts(header: Mapping[str, object]) -> str:
    """What would have chunks counted, and was not asked for."""
    taken = known(section(header, "preflight"), "extras", list) or []
    asked = [field for extra, field in _COUNTERS.items() if extra in taken]
    return _COUNTED.format(" and ".join(asked)) if asked else _TO_COUNT


def _contradicted_caveats(run: Run) -> list[Caveat]:
    """Rows that were left out because nothing can be as they say."""
    return [
        caveat(
            "LD124",
            rows=reasons.total(),
            table=table,
            what=_named(reasons),
        )
        for table, reasons in run.contradictions.items()
        if reasons
    ]


def _named(reasons: Counter[str]) -> str:
    """The commonest of them, and how many rows the others are."""
    most = reasons.most_common(_NAMED)
    rest = reasons.total() - sum(n for _, n in most)
    others = [f"otherwise: {rest}"] if rest else []
    return "; ".join([*(f"{why}: {n}" for why, n in most), *others])


def _skipped_caveats(run: Run) -> list[Caveat]:
    """Parts of a capture that an import could not read."""
    skipped: dict[str, int] = {}
    for writer in run.writers:
        for what, n in section(section(writer, "counts"), "skipped").items():
            skipped[str(what)] = skipped.get(str(what), 0) + (n if isinstance(n, int) else 0)
    if not skipped:
        return []
    return [caveat("LD123", n=sum(skipped.values()), worst=max(skipped, key=lambda w: skipped[w]))]


def _length_caveats(found: Digest, good: int) -> list[Caveat]:
    counts, out = found.measurement.counts, []
    if counts.cached_tokens and counts.isl.got:
        share = counts.cached_tokens / counts.isl.got
        out.append(caveat("LD105", share=share, rows=counts.cached_rows, requests=good))
    for code, deviation in (("LD106", found.isl), ("LD107", found.osl)):
        if deviation.rows:
            got, wanted = deviation.worst
            out.append(caveat(code, rows=deviation.rows, requests=good, got=got, wanted=wanted))
    return out


def _header_caveats(header: Mapping[str, object]) -> list[Caveat]:
    found, out = section(header, "preflight"), []
    if found.get("model_asked"):
        model = section(header, "target").get("model") or "?"
        before = known(found, "passed_over", list) or []
        place = f"number {len(before) + 1}, after others that took no request," if before else ""
        offered = found.get("models_offered") or 1
        out.append(caveat("LD108", model=model, place=place or "the first", offered=offered))
    refused = known(found, "refused_extras", list)
    if refused:
        more = _LENGTHS if _FIXING.intersection(refused) else _COUNTING
        out.append(caveat("LD109", fields=", ".join(map(str, refused)), more=more))
    if label := known(found, "label", str):
        out.append(caveat("LD141", label=label))
    return out


def _stream_caveats(run: Run, sent: int) -> list[Caveat]:
    """What was odd about the replies' streams."""
    counts = [section(writer, "counts") for writer in run.writers]
    unreadable, marred, held = (
        sum(known(each, name, int) or 0 for each in counts)
        for name in ("unreadable", "marred", "held")
    )
    out = []
    if unreadable:
        out.append(caveat("LD142", events=unreadable, rows=marred, requests=sent))
    if held:
        out.append(caveat("LD143", rows=held, requests=sent))
    return out


def _attribution_caveats(result: Result, found: Digest) -> list[Caveat]:
    out = []
    if found.designed and result.learned is None:
        out.append(caveat("LD403", rows=found.designed))
    if result.learned is not None:
        spoken = result.evidence or result.replies or result.aggregates or result.collected
        more = "" if spoken else ", or measure with its spans (--otlp) or metrics (--metrics URL)"
        out.append(caveat("LD404", more=more))
    mean, tail = result.breakdown("mean"), result.breakdown("p95_tail")
    if tail is not None and tail.n < TAIL_ROWS:
        out.append(caveat("LD302", n=tail.n, needs=20 * TAIL_ROWS))
    for about, share in ((mean, s) for s in mean.shares.values()) if mean is not None else ():
        if members := share.members:
            named = f"{', '.join(members[:-1])} and {members[-1]}"
            splits = splitting(
                members,
                _given(result),
                result.collected.channels if result.collected is not None else (),
                to_probe=not found.designed and about.interval == "client_e2e",
            )
            out.append(caveat("LD401", members=named, splits=splits))
    return out


def _given(result: Result) -> set[Rank]:
    """The kinds of evidence that the run has."""
    there = {
        Rank.SPANS: result.evidence,
        Rank.REPLIES: result.replies,
        Rank.METRICS: result.aggregates,
        Rank.BEHIND: result.target.behind if result.target is not None else None,
    }
    return {rank for rank, each in there.items() if each is not None}


def censored_share(found: Digest) -> float | None:
    """Share of the gaps between chunks that touch an overwritten stamp; None without gaps."""
    left_out = found.measurement.counts.left_out.get("icl", {})
    gaps = found.measurement.reading("icl", "mean").n + sum(left_out.values())
    return left_out.get("censored", 0) / gaps if gaps else None
