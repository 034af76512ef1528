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
        "{failed} of {sent} requests failed: they have no E2E and no TPOT, and count in TTFT and"
        " ITL only with what they streamed before.",
        "Read the failures first: a server that refuses work looks faster than it is.",
        "A failed request has no end that E2E or TPOT could be taken from. What it streamed before"
        " is real: to leave its first token out would flatter a server that fails the slow ones.",
    ),
    CaveatRow(
        "LD102",
        "The server sent no usage for {missing} of {requests} requests; their token counts come"
        " from {source}.",
        "Let the server count: stream_options.include_usage, or return_token_ids where it is"
        " known.",
        "Without a usage block or token ids, the number of output tokens is a count of chunks or"
        " of a tokenizer of ours. Everything per token inherits that doubt.",
    ),
    CaveatRow(
        "LD104",
        "Chunks hold an unknown number of tokens, so ITL is refused; ICL and TPOT hold.",
        "Ask for counts per chunk: return_token_ids, or stream_options.continuous_usage_stats.",
        "The gap between two chunks is the gap between two tokens only if each chunk holds one"
        " token. Speculative decoding, tool calls and buffering proxies all break that.",
    ),
    CaveatRow(
        "LD105",
        "{share:share} of the prompt tokens came from the server's prefix cache ({rows} of"
        " {requests} requests).",
        "Prompts that should be cold need another --seed; if the cache is part of what you"
        " measure, say so next to the number.",
        "A cached prefix is not computed again: TTFT and prefill are those of a shorter prompt."
        " A repeated seed against a warm server is the usual cause.",
    ),
    CaveatRow(
        "LD106",
        "Input lengths differ from what was asked: {rows} of {requests} requests, at worst"
        " {got} tokens for {wanted}.",
        "Chat templates add tokens; prompts sent as token ids, or a tokenizer given by name,"
        " make the length exact.",
        "The prompt that the server counted is longer or shorter than the workload asked for.",
    ),
    CaveatRow(
        "LD107",
        "Output lengths differ from what was asked: {rows} of {requests} requests, at worst"
        " {got} tokens for {wanted}.",
        "The model stopped by itself: servers that know ignore_eos and min_tokens hold the"
        " length.",
        "End-to-end latency grows with the output. Runs whose output lengths differ cannot be"
        " compared by it; TTFT and TPOT still can.",
    ),
    CaveatRow(
        "LD108",
        "No model was named; {model} is the first of {offered} that the server offers.",
        "Name it with --model, so that a change on the server cannot change what is measured.",
        "The model's name came from the server's /v1/models.",
    ),
    CaveatRow(
        "LD109",
        "The server refuses {fields}; the requests went out without.",
        "What that field would have fixed is not fixed: compare the lengths that were asked"
        " with those that came.",
        "Some servers answer 400 to request fields that they do not know. They are left away"
        " then, and with them the guarantee they gave.",
    ),
    CaveatRow(
        "LD110",
        "The run was cut short ({why}): it holds what happened up to then.",
        "Compare it with other runs only if the same time was left out there.",
        "The run ended before its plan: an interrupt, a signal, a full disk, a lost process.",
    ),
    CaveatRow(
        "LD111",
        "{rows} requests were still in flight when a writer was lost; they are read as"
        " cut_by_client.",
        "Their arrivals hold up to the last flush; nothing after it is known.",
        "A process that is killed leaves its unfinished requests in open files. They are counted"
        " and kept out of the latencies that need an end.",
    ),
    CaveatRow(
        "LD113",
        "The server shed load: 429, or 503 with Retry-After, to {rows} of {sent} requests.",
        "Ask for a lower --rate or --concurrency, or lift the limit.",
        "A server that sheds load asks for a pause. In closed loop the slot waits as asked, so"
        " less was sent than planned; an open loop goes on by its schedule.",
    ),
    CaveatRow(
        "LD114",
        "A file of the run cannot be read ({what}).",
        "What it held is missing; the other files are read. Check the disk.",
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
        "{requests} requests were made of {prompts} prompts: repeats may hit a prefix cache.",
        "Give as many prompts as requests, or read TTFT as that of a warm cache.",
        "A prompts file is used from the start again when it ends. Servers that do not report"
        " cached tokens serve the repeats faster without a word.",
    ),
    CaveatRow(
        "LD117",
        "These {runs} runs are of {targets} different targets or models; every figure is of all"
        " their requests together.",
        "Diagnose them apart; what is said at the top is of the first one.",
        "Several runs are read as one. That makes sense of repetitions against one server; of"
        " different servers the figures are a mixture that none of them shows.",
    ),
    CaveatRow(
        "LD121",
        "A and B are not the same workload ({what}); --force compared them all the same.",
        "Read every difference as one of the workload first; runs that differ in one thing say"
        " what that thing does.",
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
        "Arrivals are stamped in user space ({why}); every instant is late by the client's own"
        " delay.",
        "Kernel stamps need Linux, HTTP/1.1 and a direct connection; until then read"
        " differences under 5 ms as noise.",
        "Kernel receive stamps say when bytes reached this machine. A stamp taken after the"
        " read says when the client got round to them.",
    ),
    CaveatRow(
        "LD202",
        "A clock of this machine stepped; {rows} requests astride of it are left out of TTFT,"
        " TPOT and ITL.",
        "Stop whatever sets the time during a measurement, or let it slew.",
        "Kernel stamps are of the wall clock and are converted to the monotonic one. When the"
        " wall clock jumps, the stamps before and after the jump cannot be subtracted.",
    ),
    CaveatRow(
        "LD204",
        "The server's kernel delayed its ACK on {rows} of {requests} requests; there the"
        " network's share is bounded, not measured.",
        "The interval says how much is open; `latdiag load --connections fresh` gives sharper"
        " ones.",
        "An ACK bounds the way to the server from above only: on a reused connection it may wait"
        " 40 ms, or ride on the reply. Then the network is known to lie between the smallest"
        " round trip seen and the ACK.",
    ),
    CaveatRow(
        "LD211",
        "The clock of {sender} was stepped {steps} times against the client's.",
        "Look at its time service. Components are lengths on one clock each and do not change,"
        " but for requests astride a step, which are left out.",
        "No single offset between two clocks fits the causal order of all requests: a request"
        " cannot arrive before it was sent, nor end after its reply was read.",
    ),
    CaveatRow(
        "LD212",
        "The clock of {sender} drifts against the client's by {ppm} ppm.",
        "Look at its time service; no component depends on it.",
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
        "The slowest 5 % are {n} requests: too few to say what is different about them.",
        "Run longer; {needs} requests make the tail readable.",
        "The tail's breakdown is a ratio of sums over the slowest requests. With a handful of"
        " them, one odd request decides it.",
    ),
    CaveatRow(
        "LD401",
        "{members} cannot be told apart from outside; they are shown as one.",
        "{splits}",
        "Some classes of time look the same to a client, whatever it sends. They are merged and"
        " said to be, instead of one of them being guessed.",
    ),
    CaveatRow(
        "LD402",
        "Only the first TCP hop is seen: 'server' is everything behind {peer}.",
        "If a proxy or load balancer answers there, measure behind it too.",
        "The ACK and the round trip are of the first machine that terminates TCP. A proxy's own"
        " way to the engine counts as server time.",
    ),
    CaveatRow(
        "LD403",
        "The {rows} designed requests taught too little, so queue, prefill and frontend stay"
        " merged.",
        "See the failures above; a server that takes longer prompts, a larger --max-tokens-total"
        " or kernel stamps may change that.",
        "The probe learns what a prompt and a step cost alone from requests of its own. Where too"
        " few of them succeeded, or bore no stamps that can be taken apart, only what any load"
        " shows can be said.",
    ),
    CaveatRow(
        "LD404",
        "Requests of others are not seen: what they cost is in queue and decode.",
        "Probe while nobody else uses the server, or let it speak: its spans and /metrics know"
        " all requests.",
        "From outside a stream that is slowed by a stranger looks like one that is slowed by the"
        " probe's own streams, or by a server that is slow.",
    ),
    CaveatRow(
        "LD411",
        "Of {rows} of {requests} requests no server said anything: they are in the table of"
        " metrics, not in the breakdown.",
        "Wait longer for late spans (--wait), and see that the server samples every trace that"
        " asks for it (traceparent flags 01).",
        "Requests are joined to spans by the trace id that they bear, else by their request or"
        " response id. Those without a span would have to be guessed: they are left out, and"
        " counted.",
    ),
    CaveatRow(
        "LD412",
        "Of {requests} joined requests {partial} have evidence with gaps, and {contradicted} have"
        " evidence that contradicts what the client saw.",
        "Gaps: look for spans that are dropped or come late. Contradictions: look at the clocks"
        " above.",
        "A span that is lost leaves time that no signal parts; a server that states more time"
        " than the client saw had its clock stepped, or was joined wrongly. Where enough other"
        " requests are whole, these are left out of the breakdown, and counted.",
    ),
    CaveatRow(
        "LD413",
        "The client of this run stamped in user space: {share:share} of the time lies between its"
        " stamps and the servers' own, and is unattributed, not network.",
        "Measure with kernel stamps (`latdiag load`, `latdiag probe`): they take the client's own"
        " lag out.",
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
        "{share:share} of the arrivals could not be stamped apart (read too late); the intervals"
        " that touch them are left out.",
        "More --workers, or fewer streams on this machine.",
        "When a stream's next chunk reaches the kernel before the last one was read, both carry"
        " one stamp. Such intervals are censored: counted and left out, never guessed.",
    ),
    CaveatRow(
        "LD504",
        "The readers ran at real-time priority on the server's own machine and took up to"
        " {share:share} of a core before it.",
        "--priority ordinary leaves the order to the system; a client elsewhere disturbs least.",
        "A server's threads keep the reader from its core just when tokens come, and then several"
        " come in one read. With the lowest real-time priority it reads them in time; what it"
        " takes from the server is what it would take anyway, only sooner.",
    ),
    CaveatRow(
        "LD502",
        "Every request opened a connection of its own: TTFT holds {connect:ms} ms of DNS, TCP and"
        " TLS (median).",
        "--connections reuse measures what a client with a pool would see.",
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
