"""Everything that makes a number mean less than it seems, with what to do about it.

One row a caveat. Codes are printed, stored and looked up (``latdiag explain LD301``): never
renumber one, never give an old code a new meaning.

    LD1xx  data: what was (not) measured            LD4xx  what nobody here can see
    LD2xx  clocks and stamps                        LD5xx  this client
    LD3xx  statistics
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from latdiag.model.caveat import Caveat, CaveatRow
from latdiag.model.collected_caveats import COLLECTED
from latdiag.model.course_caveats import COURSE
from latdiag.model.target_caveats import TARGETS
from latdiag.model.text import shown
from latdiag.model.units import show_ms

_ALL = (
    CaveatRow(
        "LD101",
        "{failed} of {sent} requests failed. They have no E2E and no TPOT; TTFT and ITL"
        " include what they streamed before they failed.",
        "Look into the failures first: a server that refuses work looks faster than it is.",
        "A failed request has no end, so it has no E2E and no TPOT. What it streamed before it"
        " failed is real: leaving out its first token would flatter a server that fails its"
        " slow requests.",
    ),
    CaveatRow(
        "LD102",
        "The server did not report token counts for {missing} of {requests} requests; latdiag"
        " counted them by {source}.",
        "Have the server count tokens: stream_options.include_usage, or return_token_ids where"
        " the server supports it.",
        "Without a usage block or token ids, latdiag counts output tokens by chunks or with a"
        " tokenizer of its own. Every per-token metric is as uncertain as that count.",
    ),
    CaveatRow(
        "LD104",
        "Some chunks hold an unknown number of tokens. ITL leaves them out; ICL counts every"
        " chunk.",
        "{more:whole}",
        "The gap between two chunks is the gap between two tokens only if each chunk holds one"
        " token. Speculative decoding, tool calls and buffering proxies break that.",
    ),
    CaveatRow(
        "LD105",
        "{share:share} of the prompt tokens came from the server's prefix cache ({rows} of"
        " {requests} requests).",
        "Use another --seed to get prompts that the server has not seen. If the cache is part"
        " of what you measure, say so next to the number.",
        "A cached prefix is not computed again, so TTFT and prefill are those of a shorter"
        " prompt. The usual cause is a repeated seed against a warm server.",
    ),
    CaveatRow(
        "LD106",
        "{rows} of {requests} prompts differ from the requested length; the largest difference"
        " is {got} tokens instead of {wanted}.",
        "Chat templates add tokens. `latdiag load --tokenizer FILE` makes the length exact.",
        "The server counted more or fewer prompt tokens than the workload asked for.",
    ),
    CaveatRow(
        "LD107",
        "{rows} of {requests} replies differ from the requested length; the largest difference"
        " is {got} tokens instead of {wanted}.",
        "Compare TTFT and TPOT, not E2E. Servers that support ignore_eos and min_tokens keep"
        " to the requested length.",
        "E2E grows with the output, so runs with different output lengths cannot be compared"
        " by E2E. TTFT and TPOT still can.",
    ),
    CaveatRow(
        "LD108",
        "No model was named; latdiag used {model}, {place} in the server's list of {offered}.",
        "Name the model with --model, so that a change on the server cannot change what you"
        " measure.",
        "The model name came from the server's /v1/models.",
    ),
    CaveatRow(
        "LD109",
        "The server rejects these request fields: {fields}. latdiag sent the requests without"
        " them.",
        "{more}",
        "Some servers refuse requests with fields that they do not know. latdiag then leaves"
        " these fields out, and with them what they guarantee, for example a fixed output"
        " length.",
    ),
    CaveatRow(
        "LD110",
        "The run ended early ({why}) and holds what happened until then.",
        "Measure again before you compare it with a complete run.",
        "The run ended before its plan was done: an interrupt, a signal, a full disk, or a"
        " lost process.",
    ),
    CaveatRow(
        "LD111",
        "{rows} requests were in flight when a latdiag process was lost; they count as"
        " cut_by_client.",
        "Use their figures only up to the last flush: nothing after it was written.",
        "When a process is killed, its unfinished requests are left in open files. They are"
        " counted, and kept out of the metrics that need an end.",
    ),
    CaveatRow(
        "LD113",
        "The server rejected {rows} of {sent} requests because of load (429, or 503 with"
        " Retry-After).",
        "Lower --rate or --concurrency, or raise the server's limit.",
        "A server that sheds load asks its clients to pause. In a closed loop each slot waits"
        " as long as the server asks, so fewer requests are sent than planned; an open loop"
        " keeps to its schedule.",
    ),
    CaveatRow(
        "LD114",
        "A file of the run cannot be read ({what}).",
        "Check the disk. The content of that file is missing from the results; latdiag reads"
        " the other files.",
        "Part of a run is damaged or cut short, by a machine crash or a full disk. That part"
        " is named and left out; the rest counts.",
    ),
    CaveatRow(
        "LD115",
        "{rows} of {requests} requests were sent twice: the server closed a kept-alive connection"
        " while they were on their way.",
        "Make the server's keep-alive timeout longer than the pauses between requests, or use"
        " `latdiag load --connections fresh`.",
        "No byte of a reply had arrived, so latdiag sent the request again on a new"
        " connection, as every HTTP client does. The time of the lost attempt counts as the"
        " client's part of TTFT.",
    ),
    CaveatRow(
        "LD116",
        "{requests} requests share {prompts} prompts: a repeated prompt may come from the"
        " server's prefix cache.",
        "Supply as many prompts as requests, or read TTFT as that of a warm cache.",
        "At the end of a prompts file latdiag starts again from its beginning. A server that"
        " does not report cached tokens answers the repeated prompts faster without saying"
        " why.",
    ),
    CaveatRow(
        "LD117",
        "These {runs} runs measured {targets} different targets or models; only the row of each"
        " run keeps them apart.",
        "Diagnose each run on its own; the target shown is that of the first run.",
        "Several runs are read as one. That makes sense for repeated runs against one server;"
        " for different servers the figures are a mixture that describes none of them.",
    ),
    CaveatRow(
        "LD118",
        "Tokens arrive {how} ({share:share} of {streams} streams): something between the"
        " server and this client holds them back.",
        "Let it forward chunks immediately ({setting}), or probe with --behind and the URL of the"
        " server behind it.",
        "Several events carry the same time stamp, then none arrive for long, and so on from"
        " the first token: a proxy with a buffer or a timer, or TCP waiting for an"
        " acknowledgement, sends tokens together. The gaps are not the server's, so ITL is not"
        " stated, nor is TPOT if the first burst holds much of a reply. The first token waits"
        " with the others, so TTFT is longer too. The time stamps themselves are right: the"
        " run is valid.",
    ),
    CaveatRow(
        "LD119",
        "{gateway} states in {n} replies ({header}) that its own work before the reply headers"
        " took {took:ms} ms on average: the gateway takes at least this much of the time.",
        "This leaves out its work while the stream runs, and before it starts to count:"
        " `latdiag probe URL --behind URL2`, with the URL of the server behind it, measures all.",
        "Some gateways state in a header how long they themselves worked on a request. Headers"
        " are sent before the stream, so this is part of their time, never all of it.",
    ),
    CaveatRow(
        "LD121",
        "A and B are different workloads ({what}); --force compared them anyway.",
        "Any difference may come from the workload: compare runs that differ in one thing only.",
        "Latency depends on the work: longer prompts, longer answers, more concurrent requests"
        " or another model take a different time on the same server. `latdiag compare` refuses"
        " such runs unless --force is given.",
    ),
    CaveatRow(
        "LD123",
        "{n} parts of the capture could not be read; most often: {worst}.",
        "See the list that `latdiag import` prints, and record the missing parts again.",
        "Whatever could not be read is missing from every figure: requests, spans or scrapes."
        " The import counts it by type and reason.",
    ),
    CaveatRow(
        "LD124",
        "{rows} rows of {table} contradict themselves and are left out ({what}).",
        "A clock step that latdiag did not notice can cause this. If many rows are affected,"
        " measure again, or use another copy of the run.",
        "An event cannot be stamped before the event that caused it, beyond the millisecond by"
        " which two clocks may differ. A row that says so is in no figure: reordering its time"
        " stamps would invent a latency.",
    ),
    CaveatRow(
        "LD201",
        "The client stamped arrivals in user space ({why}), so every time includes the"
        " client's own delay.",
        "Treat differences under 5 ms as noise. Kernel stamps need Linux, HTTP/1.1 and a direct"
        " connection.",
        "Kernel receive stamps say when bytes reached this machine. User-space stamps say when"
        " the client got around to reading them.",
    ),
    CaveatRow(
        "LD202",
        "This machine's clock jumped during the run; TTFT, TPOT and ITL leave out the {rows}"
        " requests that were in flight.",
        "Stop whatever sets the clock during a measurement, or let it slew.",
        "Kernel stamps use the wall clock, and latdiag converts them to the monotonic clock."
        " When the wall clock jumps, stamps from before and after the jump cannot be"
        " subtracted.",
    ),
    CaveatRow(
        "LD204",
        "The server's kernel delayed its ACK on {rows} of {requests} requests, so their"
        " network time is known only as an interval.",
        "{more:whole}",
        "An ACK gives only an upper bound for the time to the server: on a reused connection"
        " it may be held back for 40 ms, or sent with the reply. The network time then lies"
        " between the smallest round trip seen and the ACK.",
    ),
    CaveatRow(
        "LD211",
        "The clock of {sender} jumped relative to the client's clock (number of jumps: {steps}).",
        "Check time synchronisation on that machine. Each component is a duration on one clock"
        " and does not change; requests during a jump are left out.",
        "No single clock offset fits the causal order of all requests: a request cannot arrive"
        " before it was sent, nor end after its reply was read.",
    ),
    CaveatRow(
        "LD212",
        "The clock of {sender} drifts by {ppm} ppm relative to the client's clock.",
        "Check time synchronisation on that machine; no component depends on it.",
        "The offset between the two clocks changes steadily: 100 ppm is 6 ms a minute."
        " Components are differences on one clock, so such a drift changes them by only one"
        " part in ten thousand.",
    ),
    CaveatRow(
        "LD301",
        "{statistic} of {metric} is not stated: there are {n} samples, {needs} are needed.",
        "Send more requests, or read a percentile nearer to the median.",
        "A percentile needs enough samples beyond it; otherwise it is only the largest value"
        " seen. The bound is binomial: 99 % confidence that the stated percentile holds.",
    ),
    CaveatRow(
        "LD302",
        "The slowest 5 % are {n} requests, too few to say where their time goes.",
        "Measure longer: breaking down the slowest 5 % takes at least {needs} requests.",
        "The breakdown of the tail is a ratio of sums over the slowest requests. With only a"
        " few of them, one unusual request decides it.",
    ),
    CaveatRow(
        "LD401",
        "Nothing in this run separates {members}, so they are shown as one part.",
        "{splits:whole}",
        "Some kinds of time look the same to a client, whatever it sends. latdiag merges them"
        " and says so instead of guessing.",
    ),
    CaveatRow(
        "LD402",
        "The client sees only the first TCP hop: 'server' means everything behind {peer}.",
        "If a proxy or load balancer answers there, probe with --behind and the URL of the"
        " server behind it.",
        "The ACK and the round trip belong to the first machine that terminates TCP. A proxy's"
        " own path to the engine counts as server time.",
    ),
    CaveatRow(
        "LD403",
        "The probe's own {rows} requests were not enough to separate queue, prefill and frontend.",
        "Check whether they failed. Longer prompts, a larger --max-tokens-total or kernel"
        " stamps may help.",
        "From requests of its own, the probe learns what a prompt and a decode step cost"
        " alone. If too few of them succeed, or their time stamps are unusable, latdiag can"
        " say only what any load shows.",
    ),
    CaveatRow(
        "LD404",
        "The probe cannot see other clients' requests; the time that they cost counts as queue"
        " and decode.",
        "Probe while nobody else uses the server{more}.",
        "From outside, a stream that another client slows down looks the same as one slowed"
        " down by the probe's own streams, or by a slow server.",
    ),
    CaveatRow(
        "LD411",
        "No spans arrived for {rows} of {requests} requests; the spans describe only the others.",
        "Wait longer for late spans (--wait of `load` and `probe`), and let the server sample"
        " every trace that asks for it (traceparent flags 01).",
        "Requests are joined to spans by trace id, or else by request or response id. Requests"
        " without spans are left out and counted; anything else would be a guess.",
    ),
    CaveatRow(
        "LD412",
        "Of {requests} requests with spans, {partial} lack a span or have time that no span"
        " explains, and {contradicted} have spans that add up to more time than they took.",
        "Look for spans that are dropped or arrive late, and for clocks that jump.",
        "A lost span leaves time that no evidence explains. If a server states more time than"
        " the request took, its clock jumped or its spans belong to another request. Where"
        " enough other requests are complete, these are left out of the breakdown and counted.",
    ),
    CaveatRow(
        "LD413",
        "The client used user-space stamps, so {share:share} of the time, between its stamps"
        " and the servers', counts as unattributed instead of network.",
        "Measure with `latdiag load` or `latdiag probe`: their kernel stamps exclude the"
        " client's own delay.",
        "A user-space stamp is late by whatever its process was busy with. What the client"
        " waited beyond the server's own interval, and beyond a measured round trip, may be"
        " the network, the server's HTTP layer, or the client itself.",
    ),
    CaveatRow(
        "LD415",
        "{k} tokens at a time arrive every {t:ms} ms although the server makes one every"
        " {s:ms} ms: something on the path holds them back, such as a gateway that buffers the"
        " stream.",
        "Let the gateway forward small chunks immediately (HAProxy: option http-no-delay;"
        " nginx: proxy_buffering off), or probe with --behind and the URL of the server behind"
        " it.",
        "A server writes a chunk for every step of its engine. If several arrive together"
        " again and again, and the server says that it made them one after the other,"
        " something collects them: a proxy with a buffer or a timer, or a process on the path"
        " that gets no CPU time beside a busy engine. The first token waits too, so TTFT and"
        " the gaps between tokens show that process; only the total time of the stream is the"
        " server's.",
    ),
    *COURSE,
    *COLLECTED,
    *TARGETS,
    CaveatRow(
        "LD501",
        "{share:share} of the arrivals have no time stamp of their own, because the client"
        " read them too late; the gaps next to them are left out.",
        "Run fewer streams on this machine (a lower --rate or --concurrency).",
        "When a stream's next chunk reaches the kernel before the previous one was read, both"
        " carry the same stamp. Such gaps are censored: counted and left out, never guessed.",
    ),
    CaveatRow(
        "LD504",
        "The client ran at real-time priority on the server's own machine and took up to"
        " {share:share} of a core.",
        "Run the client on another machine, or use --priority ordinary.",
        "Without it, the server's threads keep the client off the CPU just when tokens arrive,"
        " and several tokens then come in one read. At the lowest real-time priority the"
        " client reads them in time. It takes no more CPU than it would otherwise, only"
        " sooner.",
    ),
    CaveatRow(
        "LD502",
        "Most requests opened their own connection, so their TTFT includes {connect:ms} ms of"
        " DNS, TCP and TLS (mean).",
        "{more:whole}",
        "TTFT starts when the client starts work on the request. On a new connection it"
        " includes name resolution, TCP connect and TLS handshake.",
    ),
)

CAVEATS: Mapping[str, CaveatRow] = {row.code: row for row in _ALL}


_SENTENCES = 600  # characters of our own sentences that a fact may hold


class _Template(string.Formatter):
    """Facts into a template: exactly those it names, each safe to print."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "share":
            return f"{100 * value:.{1 if value < 0.1 else 0}f} %"
        if format_spec == "ms":
            return show_ms(value)
        if format_spec == "whole":
            return shown(value, _SENTENCES)
        if isinstance(value, float):
            return f"{value:.4g}"
        return shown(value)


_TEMPLATE = _Template()


def facts_of(row: CaveatRow) -> frozenset[str]:
    """Names of the facts that the caveat's text and remedy take."""
    both = (*_TEMPLATE.parse(row.text), *_TEMPLATE.parse(row.remedy))
    return frozenset(name for _, name, _, _ in both if name)


def caveat(code: str, **facts: object) -> Caveat:
    """One caveat with its facts in words.

    Raises KeyError for a code that the table lacks and TypeError where the facts are not
    exactly those of the row (both are bugs of the caller).
    """
    row = CAVEATS[code]
    wanted = facts_of(row)
    if wanted != facts.keys():
        raise TypeError(f"{code} takes {sorted(wanted)}, not {sorted(facts)}")
    text, remedy = (_TEMPLATE.vformat(each, (), facts) for each in (row.text, row.remedy))
    return Caveat(code, text, remedy)
