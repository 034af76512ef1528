"""The words of this project that are neither a metric, a component nor a caveat.

Each table is data for ``latdiag explain``; the reports use the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from latdiag.model.probe_terms import PROBE_TERMS
from latdiag.model.records import Outcome
from latdiag.model.server_terms import SERVER_TERMS
from latdiag.model.term import Term


@dataclass(frozen=True, slots=True)
class AuditRule:
    """One rule of the client's self-audit: a run that breaks it is INVALID (exit 12)."""

    name: str
    title: str
    limit: str
    unit: str
    meaning: str
    remedy: str


_VERDICT_WORDS = (
    "confidence", "measured", "bounded", "inferred", "dominant", "bottleneck", "workload",
    "at_limit", "client_limited",
)  # fmt: skip

TERMS = (
    Term(
        "run",
        "Run",
        "A directory NAME.run: the plan, every request with its time stamps, what the servers"
        " reported, and how well the client itself did. Every verb makes a run or reads one. A"
        " run is readable after a crash; requests that were in flight in a killed process"
        " count as cut_by_client.",
        see=("outcome", "self-audit"),
    ),
    Term(
        "isl",
        "ISL, input sequence length",
        "Tokens of the prompt, as counted by the server if it reports them.",
        also=("input length", "prompt tokens"),
        see=("osl", "token_source", "LD106"),
    ),
    Term(
        "osl",
        "OSL, output sequence length",
        "Tokens of the answer, including reasoning and tool calls, as counted by the server if"
        " it reports them.",
        also=("output length", "completion tokens"),
        see=("isl", "token_source", "LD107"),
    ),
    Term(
        "token_source",
        "Source of a token count",
        "Best first: ids (token ids in every chunk), usage_continuous (a count in every"
        " chunk), usage (one count at the end), tokenizer (counted by latdiag), chunks (one"
        " token per chunk, a guess). Only the first two say how many tokens each chunk"
        " brought; without that ITL is not stated.",
        also=("token source", "tokens"),
        see=("itl", "icl", "LD104"),
    ),
    Term(
        "concurrency",
        "Concurrency (closed loop)",
        "How many requests are kept in flight: the next one starts when one ends. A slow"
        " server then gets less load, so its latency looks better than users would see it.",
        also=("closed loop", "closed"),
        see=("rate",),
    ),
    Term(
        "rate",
        "Rate (open loop)",
        "Requests per second that become due whether or not earlier ones have ended, as with"
        " real users. Each request keeps its due time, and response_time counts from there, so"
        " waiting for the client or the server is not hidden. 'Offered' is what was due,"
        " 'sent' is what was actually sent.",
        also=("open loop", "open", "offered", "sent"),
        see=("concurrency", "response_time", "schedule_lag"),
    ),
    Term(
        "slo",
        "SLO, service level objective",
        "A limit that you state, for example --slo ttft.p95<500ms. Goodput counts the requests"
        " that meet all limits; if one is missed, the exit code is 14.",
        also=("objective", "attainment"),
        see=("goodput", "14"),
    ),
    Term(
        "breakdown",
        "Breakdown",
        "A time interval split into components. The parts add up to the whole exactly, in"
        " integer nanoseconds; what no evidence covers is 'unattributed'. Shares are ratios of"
        " sums over a population. client_e2e is the whole request, client_ttft ends at the"
        " first token, decode starts there, and server is one server's own view.",
        also=("share", "component", "client_e2e", "client_ttft", "server"),
        see=("population", "grade", "merged"),
    ),
    Term(
        "population",
        "Population of a breakdown",
        "Which requests a breakdown covers: mean is all of them, p95_tail the slowest 5 %. The"
        " two often have different causes.",
        also=("mean", "p95_tail", "tail", "slowest 5 %"),
        see=("breakdown", "LD302"),
    ),
    Term(
        "stages",
        "Rows of stages",
        "Where several runs are read together, or a capture has several scenarios, each of them"
        " is a stage with a row of its own: requests (n), failed requests, the planned load (-c"
        " 16 is a concurrency, 4/s a rate), TTFT at the median and p95, and TPOT and E2E at the"
        " median. 'n<130' stands where a percentile needs 130 requests. The largest part is"
        " named only where servers state the times of each request: 'no leader' where two parts"
        " are about equally large, 'not stated' where too few requests can be explained. The"
        " table below the rows, and the verdict, are of all stages together.",
        also=("stage", "scenario", "scenarios", "runs", "largest part", "no leader", "load"),
        see=("verdict", "refused", "LD117"),
    ),
    Term(
        "merged",
        "Merged class",
        "Components that this run's evidence cannot separate, shown as one entry that names"
        " its members. More evidence splits the entry; a guess would not. From outside, nobody"
        " can separate: tokenising and the constant part of prefill; collectives and compute"
        " within a step; a larger batch and other clients' requests; waiting for admission and"
        " other requests' work in the same steps (both are queue); a queue in a gateway and"
        " one in the engine; a KV transfer before the first token and prefill; the network"
        " path there and back.",
        also=("members", "merged class", "identifiable", "identifiability", "contention"),
        see=("grade", "LD401"),
    ),
    Term(
        "grade",
        "Grade of evidence",
        "A: measured per request. B: from the server's aggregates over the window, or per"
        " request from a field that is known only from documentation. C: identified by a"
        " designed probe, with an interval. D: only a physical bound. E: cannot be separated,"
        " so merged.",
        also=(
            "evidence",
            "evidence ladder",
            "grade A",
            "grade B",
            "grade C",
            "grade D",
            "grade E",
        ),
        see=("breakdown", "verdict"),
    ),
    Term(
        "verdict",
        "Verdict",
        "One sentence: which component dominates, how certain that is (measured, bounded,"
        " inferred, insufficient) and what to do next. 'I cannot tell' and 'healthy' are"
        " verdicts too.",
        also=_VERDICT_WORDS,
        see=("healthy", "ambiguous", "insufficient", "grade", "population"),
    ),
    Term(
        "split",
        "TTFT split",
        "TTFT as three parts that this client can prove: client (until the request is on the"
        " wire), network, and server (everything behind the first TCP hop). Where the server"
        " delayed its ACK, the network part is known only as an interval, and so is the server"
        " part.",
        also=("ttft split",),
        see=("ttft", "stamp", "LD204", "LD402"),
    ),
    Term(
        "stamp",
        "Stamp",
        "Who read the clock when bytes arrived: kernel (when the packet reached this machine),"
        " tap (a packet capture) or user (when the client got around to reading).",
        also=("stamp_source", "kernel", "tap", "user", "kernel stamp", "arrival"),
        see=("censored", "read_lag", "LD201"),
    ),
    Term(
        "read_lag",
        "Read lag",
        "The time from the kernel's stamp of an arrival until the client reads it: the error"
        " that user-space stamps would have.",
        also=("lag",),
        see=("stamp", "censored"),
    ),
    Term(
        "interval",
        "Interval",
        "The range in which the value may lie, printed in square brackets or as low-high. For"
        " a statistic, it is the 95 % interval over other samples of the same size; for a"
        " share, it is what the evidence leaves open. n is the number of samples; n_effective"
        " is smaller where samples depend on each other, as the tokens of one request do.",
        also=("n", "n_effective", "effective n", "confidence interval"),
        see=("refused",),
    ),
    Term(
        "refused",
        "Refused percentile",
        "A percentile is printed only if enough samples lie beyond it (99 % confidence that it"
        " is not overstated: p90 needs 64 samples, p99 needs 662). Otherwise the reason is"
        " printed in its place.",
        also=("percentile", "p50", "p90", "p95", "p99"),
        see=("interval", "LD301"),
    ),
    Term(
        "self-audit",
        "Self-audit",
        "The client measures itself as it measures the server. A run that breaks one of these"
        " rules is INVALID, whatever the numbers look like: schedule_lag, first_censored,"
        " reader_cpu, run_queue, rows_lost, clock_step, loop_lag. If too many arrivals are"
        " censored, only ITL is not stated.",
        also=("audit", "invalid", "valid"),
        see=("12", "schedule_lag", "censored"),
    ),
    Term(
        "note",
        "Note (caveat)",
        "Something that makes a figure mean less than it seems, and what to do about it; each"
        " note has a code such as LD204. A screen shows a note only if it changes the verdict"
        " or a figure by more than its interval, and counts the others: --notes shows all of"
        " them.",
        also=("notes", "caveat", "caveats"),
        see=("LD204", "interval"),
    ),
    Term(
        "outcome",
        "Outcome",
        "How one attempt ended. Errors of the measured server are data: they are counted and"
        " kept, and alone never stop a run. One of: " + ", ".join(Outcome) + ".",
        also=("failed", "failure", "outcomes"),
        see=("ok", "LD101"),
    ),
    Term(
        "exit",
        "Exit codes",
        "0 done; 1 a bug in latdiag; 2 a wrong command line or not a run; 10 to 16 a finding"
        " of a check; 130, 141, 143 a signal. Ask for one by its number, for example `latdiag"
        " explain 12`.",
        also=("exit code", "exit codes", "status"),
        see=("0", "2", "12", "15"),
    ),
    *PROBE_TERMS,
    *SERVER_TERMS,
)

OUTCOMES: Mapping[Outcome, str] = {
    Outcome.OK: "The complete answer arrived. The only success.",
    Outcome.HTTP_ERROR: "An HTTP status other than 2xx, except 429 and 503.",
    Outcome.RATE_LIMITED: "The server answered 429 or 503: it sheds load.",
    Outcome.TIMEOUT: "Nothing, or not the end of the answer, arrived within --timeout.",
    Outcome.CUT: "The connection closed in the middle of the answer.",
    Outcome.RESET: "The connection was reset (TCP RST).",
    Outcome.PROTOCOL: "The reply is not HTTP, not an event stream, or larger than the limits.",
    Outcome.REFUSED: "The TCP connection was refused.",
    Outcome.DNS: "The host name did not resolve.",
    Outcome.TLS: "The TLS handshake failed, most often because of the certificate.",
    Outcome.CANCELLED: "Stopped by latdiag itself: the end of the run, Ctrl-C, a signal.",
    Outcome.CUT_BY_CLIENT: "In flight when a client process was lost; known up to a flush.",
}

EXIT_CODES: Mapping[int, str] = {
    0: "Done. Any verdict is a result.",
    1: "A bug in latdiag, nothing else. -vv prints the traceback.",
    2: "The command line is wrong, or the path is not a run, or the run is from a newer latdiag.",
    10: "A regression is proved (gate).",
    11: "Inconclusive, if inconclusive results were set to fail.",
    12: "The measurement is INVALID: the client broke a rule of its self-audit, or the arms of a"
    " gate cannot be compared.",
    13: "Recorded runs are missing or of another kind, or two runs are different workloads.",
    14: "An SLO was missed.",
    15: "A problem with the target: DNS, connect, TLS, 401, 403, 404, or no usable reply at all;"
    " or an export of which it did not take every span.",
    16: "A problem with this machine: disk full, file descriptors, permissions. The run is kept.",
    130: "Interrupted (Ctrl-C). The run is complete up to that point.",
    141: "The program that read the output closed the pipe. Nothing is printed.",
    143: "Terminated (SIGTERM). The run is complete up to that point.",
}

AUDIT_RULES = (
    AuditRule(
        "schedule_lag",
        "effect of late sending on TTFT",
        "max(1 ms, 1 % of it, half its interval)",
        "ms",
        "What late sending adds to a statistic of TTFT: TTFT from the time a request was due,"
        " minus TTFT from the time it was sent (open loop only). The reading is that of the"
        " mean or the percentile that is affected most.",
        "Lower --rate, or run the client on a machine with more free cores, then measure again.",
    ),
    AuditRule(
        "censored",
        "censored arrivals",
        "1 %",
        "%",
        "Arrivals whose own time stamp was overwritten before it was read. The others are"
        " exact, but favour quiet moments, so if too many are missing ITL is not stated. The"
        " other metrics stand.",
        "Run fewer streams on this machine (a lower --rate or --concurrency), then measure again.",
    ),
    AuditRule(
        "first_censored",
        "first tokens without a stamp",
        "10 %",
        "%",
        "First tokens whose own time stamp was overwritten before it was read. Their requests"
        " are left out of TTFT.",
        "Run fewer streams on this machine (a lower --rate or --concurrency), then measure again.",
    ),
    AuditRule(
        "reader_cpu",
        "reader CPU",
        "80 % of a core over any 5 s",
        "%",
        "A reader process that is near a full core reads late.",
        "Lower --rate or --concurrency, or spread the load over several machines, then measure"
        " again.",
    ),
    AuditRule(
        "run_queue",
        "run-queue delay",
        "2 % of wall time; in an open loop with kernel stamps none",
        "%",
        "Other programs held the CPU while this client was ready to read. Kernel stamps are"
        " not affected by that. In a closed loop the next request leaves later, so rates are"
        " not stated.",
        "Close other programs, or run the client on another machine, then measure again.",
    ),
    AuditRule(
        "rows_lost",
        "rows lost",
        "0",
        "",
        "Requests that were sent and are missing from the run.",
        "Check this machine's disk and the log (latdiag -v), then measure again.",
    ),
    AuditRule(
        "clock_step",
        "requests during a clock step",
        "1 %",
        "%",
        "The wall clock jumped while these requests were in flight.",
        "Stop whatever sets this machine's clock, then measure again.",
    ),
    AuditRule(
        "loop_lag",
        "event-loop lag p99",
        "5 ms",
        "ms",
        "Without kernel stamps, this delay is in every arrival; with them it does no harm.",
        "Use kernel stamps (Linux, HTTP/1.1, no proxy) or fewer streams, then measure again.",
    ),
)
