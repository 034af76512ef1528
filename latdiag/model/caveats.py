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
from latdiag.model.text import shown
from latdiag.model.units import show_ms

_ALL = (
    CaveatRow(
        "LD101",
        "{failed} of {sent} requests failed: they have no E2E and no TPOT, and TTFT and ITL hold"
        " only what they streamed before they failed.",
        "Look at the failures first: a server that refuses work looks faster than it is.",
        "A failed request has no end that E2E or TPOT could be taken from. What it streamed before"
        " is real: to leave its first token out would flatter a server that fails the slow ones.",
    ),
    CaveatRow(
        "LD102",
        "The server did not report token counts for {missing} of {requests} requests; latdiag"
        " counted them by {source}.",
        "Let the server count tokens: stream_options.include_usage, or return_token_ids where the"
        " server knows it.",
        "Without a usage block or token ids, the number of output tokens is a count of chunks or"
        " of a tokenizer of ours. Everything per token inherits that doubt.",
    ),
    CaveatRow(
        "LD104",
        "Chunks hold an unknown number of tokens, so ITL leaves those chunks out; ICL counts"
        " chunks.",
        "Ask for counts per chunk: return_token_ids, or stream_options.continuous_usage_stats.",
        "The gap between two chunks is the gap between two tokens only if each chunk holds one"
        " token. Speculative decoding, tool calls and buffering proxies all break that.",
    ),
    CaveatRow(
        "LD105",
        "{share:share} of the prompt tokens came from the server's prefix cache ({rows} of"
        " {requests} requests).",
        "Use another --seed for prompts that the server has not seen; if the cache is part of what"
        " you measure, say so next to the number.",
        "A cached prefix is not computed again: TTFT and prefill are those of a shorter prompt."
        " A repeated seed against a warm server is the usual cause.",
    ),
    CaveatRow(
        "LD106",
        "{rows} of {requests} prompts have another length than was asked for; the largest"
        " difference is {got} tokens instead of {wanted}.",
        "Chat templates add tokens. `latdiag load --tokenizer FILE` makes the length exact.",
        "The prompt that the server counted is longer or shorter than the workload asked for.",
    ),
    CaveatRow(
        "LD107",
        "{rows} of {requests} replies have another length than was asked for; the largest"
        " difference is {got} tokens instead of {wanted}.",
        "Compare TTFT and TPOT, not E2E. Servers that know ignore_eos and min_tokens keep to the"
        " length that is asked for.",
        "End-to-end latency grows with the output. Runs whose output lengths differ cannot be"
        " compared by it; TTFT and TPOT still can.",
    ),
    CaveatRow(
        "LD108",
        "No model was named; {model} is the first of {offered} that the server offers.",
        "Name the model with --model, so that a change on the server cannot change what you"
        " measure.",
        "The model's name came from the server's /v1/models.",
    ),
    CaveatRow(
        "LD109",
        "The server refuses {fields}; latdiag sent the requests without it.",
        "Compare the lengths that you asked for with those that came: this field would have fixed"
        " them.",
        "Some servers answer 400 to request fields that they do not know. They are left away"
        " then, and with them the guarantee they gave.",
    ),
    CaveatRow(
        "LD110",
        "The run ended early ({why}): it holds what happened until then.",
        "Measure again before you compare it with a run that went to its end.",
        "The run ended before its plan: an interrupt, a signal, a full disk, a lost process.",
    ),
    CaveatRow(
        "LD111",
        "{rows} requests were in flight when a process of latdiag was lost; they count as"
        " cut_by_client.",
        "Use their figures only up to the last flush: nothing after it was written.",
        "A process that is killed leaves its unfinished requests in open files. They are counted"
        " and kept out of the latencies that need an end.",
    ),
    CaveatRow(
        "LD113",
        "The server refused {rows} of {sent} requests because of load (429, or 503 with"
        " Retry-After).",
        "Lower --rate or --concurrency, or raise the server's limit.",
        "A server that sheds load asks for a pause. In closed loop the slot waits as asked, so"
        " less was sent than planned; an open loop goes on by its schedule.",
    ),
    CaveatRow(
        "LD114",
        "A file of the run cannot be read ({what}).",
        "Check the disk. What the file held is missing; latdiag reads the other files.",
        "A part of a run is damaged or cut short, by a crash of the machine or a full disk. It is"
        " named and left out, the rest counts.",
    ),
    CaveatRow(
        "LD115",
        "{rows} of {requests} requests were sent twice: the server closed a kept-alive connection"
        " while they were on their way.",
        "Make the server's keep-alive longer than the pauses, or use --connections fresh.",
        "No byte of a reply had come, so a fresh connection got the same request, as every HTTP"
        " client does. The time of the lost try is the client's part of TTFT.",
    ),
    CaveatRow(
        "LD116",
        "{requests} requests use {prompts} prompts: a repeated prompt may come from the server's"
        " prefix cache.",
        "Give as many prompts as requests, or read TTFT as that of a warm cache.",
        "A prompts file is used from the start again when it ends. Servers that do not report"
        " cached tokens serve the repeats faster without a word.",
    ),
    CaveatRow(
        "LD117",
        "These {runs} runs measured {targets} different targets or models; every figure mixes all"
        " their requests.",
        "Diagnose each run by itself; the target shown is that of the first.",
        "Several runs are read as one. That makes sense of repetitions against one server; of"
        " different servers the figures are a mixture that none of them shows.",
    ),
    CaveatRow(
        "LD118",
        "The stream comes {how} ({share:share} of {streams} streams): something"
        " between the server and this client holds tokens back.",
        "Let chunks through at once ({setting}), or measure behind it.",
        "Several events with one stamp, then none for long, again and again from the first token"
        " on: a proxy with a buffer or a timer, or TCP that waits for an acknowledgement, lets"
        " tokens go together. Their gaps are not the server's, so ITL is not stated, nor is TPOT"
        " where the first burst holds much of a reply; the first token waits with the others, so"
        " TTFT is longer by it. The instants themselves are right: the run is valid.",
    ),
    CaveatRow(
        "LD119",
        "{gateway} states in {n} replies ({header}) that it took {took:ms} ms of its own in the"
        " mean until their headers: the gateway has at least so much of the time.",
        "What it takes while the stream runs, and before it begins to count, is not in there:"
        " measure behind it as well.",
        "Some gateways state in a header how long they themselves worked on a request. Headers go"
        " out before the stream, so it is a part of their time, never all of it.",
    ),
    CaveatRow(
        "LD121",
        "A and B are not the same workload ({what}); --force compared them all the same.",
        "Every difference may come from the workload: compare runs that differ in one thing only.",
        "Latency follows the work: longer prompts, longer answers, more requests at once or"
        " another model take another time on the very same server. Such runs are refused by"
        " `latdiag compare` unless --force is given.",
    ),
    CaveatRow(
        "LD123",
        "{n} parts of the capture could not be read ({worst}).",
        "See the list that `latdiag import` prints, and record again what is missing.",
        "What was not readable is missing from every figure: requests, spans or scrapes. It is"
        " counted by what it was and why it was left out.",
    ),
    CaveatRow(
        "LD124",
        "{rows} rows of {table} contradict themselves and are left out ({what}).",
        "A step of this machine's clock that its samples missed does this; where it is many rows,"
        " measure again, or take another copy of the run.",
        "What happens later cannot be stamped earlier, beyond the millisecond that two clocks may"
        " differ by. A row that says so is in no figure: to put its instants in order would be to"
        " invent a latency.",
    ),
    CaveatRow(
        "LD201",
        "The client stamped arrivals in user space ({why}), so every time holds the client's own"
        " delay.",
        "Treat differences under 5 ms as noise. Kernel stamps need Linux, HTTP/1.1 and a direct"
        " connection.",
        "Kernel receive stamps say when bytes reached this machine. A stamp taken after the"
        " read says when the client got round to them.",
    ),
    CaveatRow(
        "LD202",
        "The clock of this machine jumped; TTFT, TPOT and ITL leave out the {rows} requests that"
        " were under way.",
        "Stop what sets the clock during a measurement, or let it slew.",
        "Kernel stamps are of the wall clock and are converted to the monotonic one. When the"
        " wall clock jumps, the stamps before and after the jump cannot be subtracted.",
    ),
    CaveatRow(
        "LD204",
        "The server's kernel delayed its ACK on {rows} of {requests} requests; for these the"
        " network's time has bounds and no exact value.",
        "Read the network's interval. `latdiag load --connections fresh` makes it narrower.",
        "An ACK bounds the way to the server from above only: on a reused connection it may wait"
        " 40 ms, or ride on the reply. Then the network is known to lie between the smallest"
        " round trip seen and the ACK.",
    ),
    CaveatRow(
        "LD211",
        "The clock of {sender} jumped {steps} times against the client's clock.",
        "Check the time service of that machine. Each component is a length on one clock and does"
        " not change; requests during a jump are left out.",
        "No single offset between two clocks fits the causal order of all requests: a request"
        " cannot arrive before it was sent, nor end after its reply was read.",
    ),
    CaveatRow(
        "LD212",
        "The clock of {sender} drifts against the client's by {ppm} ppm.",
        "Check the time service of that machine; no component depends on it.",
        "The offset between two clocks moves steadily: at 100 ppm, 6 ms a minute. Components are"
        " differences on one clock and feel one part in ten thousand of it.",
    ),
    CaveatRow(
        "LD301",
        "{statistic} of {metric} is refused: {n} samples, {needs} are needed.",
        "Send more requests, or read a percentile nearer to the middle.",
        "A percentile needs enough samples beyond it, or it is the largest value seen under"
        " another name. The bound is binomial: 99 % confidence that the stated percentile holds.",
    ),
    CaveatRow(
        "LD302",
        "The slowest 5 % are {n} requests, too few to say where their time goes.",
        "Measure for longer: {needs} requests are enough to break the slowest 5 % down.",
        "The tail's breakdown is a ratio of sums over the slowest requests. With a handful of"
        " them, one odd request decides it.",
    ),
    CaveatRow(
        "LD401",
        "No evidence of this run separates {members}; they are shown as one.",
        "{splits}",
        "Some classes of time look the same to a client, whatever it sends. They are merged and"
        " said to be, instead of one of them being guessed.",
    ),
    CaveatRow(
        "LD402",
        "The client sees only the first TCP connection: 'server' means everything behind {peer}.",
        "If a proxy or load balancer answers there, measure behind it too.",
        "The ACK and the round trip are of the first machine that terminates TCP. A proxy's own"
        " way to the engine counts as server time.",
    ),
    CaveatRow(
        "LD403",
        "The probe's own {rows} requests were not enough to separate queue, prefill and frontend.",
        "See whether they failed. Longer prompts, a larger --max-tokens-total or kernel stamps may"
        " help.",
        "The probe learns what a prompt and a step cost alone from requests of its own. Where too"
        " few of them succeeded, or bore no stamps that can be taken apart, only what any load"
        " shows can be said.",
    ),
    CaveatRow(
        "LD404",
        "The probe cannot see requests of other clients: the time that they cost is in queue and"
        " decode.",
        "Probe while nobody else uses the server{more}.",
        "From outside a stream that is slowed by a stranger looks like one that is slowed by the"
        " probe's own streams, or by a server that is slow.",
    ),
    CaveatRow(
        "LD411",
        "No span arrived for {rows} of {requests} requests; what the spans say is of the others"
        " alone.",
        "Wait longer for late spans (--wait of `load` and `probe`), and let the server sample"
        " every trace that asks for it (traceparent flags 01).",
        "Requests are joined to spans by the trace id that they bear, else by their request or"
        " response id. Those without a span would have to be guessed: they are left out, and"
        " counted.",
    ),
    CaveatRow(
        "LD412",
        "Of {requests} requests with spans, {partial} lack a span, and {contradicted} have spans"
        " that state more time than the client waited.",
        "Look for spans that are dropped or arrive late, and for clocks that jump.",
        "A span that is lost leaves time that no signal parts; a server that states more time"
        " than the client saw had its clock stepped, or was joined wrongly. Where enough other"
        " requests are whole, these are left out of the breakdown, and counted.",
    ),
    CaveatRow(
        "LD413",
        "The client stamped in user space, so {share:share} of the time, between its stamps and"
        " the servers', is unattributed instead of network.",
        "Measure with `latdiag load` or `latdiag probe`: their kernel stamps leave the client's"
        " own delay out.",
        "A stamp in user space is late by whatever its process was busy with. What the client"
        " waited beyond the server's own interval, and beyond a measured round trip, may be the"
        " network, the server's HTTP layer or the client itself.",
    ),
    CaveatRow(
        "LD415",
        "{k} tokens at a time arrive every {t:ms} ms although the server makes one every"
        " {s:ms} ms: something between holds them back (a gateway that buffers the stream).",
        "Let the gateway pass small chunks on at once (HAProxy: option http-no-delay; nginx:"
        " proxy_buffering off), or measure behind it.",
        "A server writes a chunk for every step of its engine. Where several come together, again"
        " and again, and it says that it made them one after the other, something gathers them: a"
        " proxy with a buffer or a timer, or a process in between that gets no processor beside"
        " a busy engine. The first token waits with the others, so TTFT and the gaps between"
        " tokens are its doing, and only the sum of the stream is the server's.",
    ),
    *COLLECTED,
    CaveatRow(
        "LD501",
        "{share:share} of the arrivals have no time stamp of their own, because the client read"
        " them too late; the gaps beside them are left out.",
        "Run fewer streams on this machine (a lower --rate or --concurrency).",
        "When a stream's next chunk reaches the kernel before the last one was read, both carry"
        " one stamp. Such intervals are censored: counted and left out, never guessed.",
    ),
    CaveatRow(
        "LD504",
        "The client ran at real-time priority on the server's own machine and took up to"
        " {share:share} of a core from it.",
        "Run the client on another machine, or use --priority ordinary.",
        "A server's threads keep the reader from its core just when tokens come, and then several"
        " come in one read. With the lowest real-time priority it reads them in time; what it"
        " takes from the server is what it would take anyway, only sooner.",
    ),
    CaveatRow(
        "LD502",
        "Most requests opened a connection of their own: their TTFT holds {connect:ms} ms of DNS,"
        " TCP and TLS (mean).",
        "To see what a client with kept connections sees, use --connections reuse of `latdiag"
        " load` and let the server keep connections open.",
        "TTFT begins when the client begins to work on the request. Over a fresh connection that"
        " holds name resolution, connect and handshake.",
    ),
)

CAVEATS: Mapping[str, CaveatRow] = {row.code: row for row in _ALL}


class _Template(string.Formatter):
    """Facts into a template: exactly those it names, each safe to print."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "share":
            return f"{100 * value:.{1 if value < 0.1 else 0}f} %"
        if format_spec == "ms":
            return show_ms(value)
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
