"""The words of a probe: its stages, what they teach, and what it answers."""

from __future__ import annotations

from latdiag.model.term import Term

PROBE_TERMS = (
    Term(
        "healthy",
        "Healthy",
        "The verdict if nothing stands out: decode takes most of the time, nothing avoidable"
        " is large, requests take little longer under this load than alone, and TTFT and TPOT"
        " meet a common objective. What they take alone is measured in the designed stages and,"
        " where the server has changed since, by requests of the workload that met no other. It"
        " holds for the load that was sent; a higher --rate or --concurrency finds the load at"
        " which it ends.",
        see=("verdict", "slo", "workload"),
    ),
    Term(
        "overloaded",
        "Overloaded",
        "The verdict if an open loop (--rate) sends more than the server finishes: requests pile"
        " up, so TTFT (or E2E) grows for as long as requests are sent, and percentiles depend on"
        " how long that was. What the server finishes meanwhile is its capacity for this"
        " workload. A tenth less can be asked of it; the replicas that are named assume that each"
        " finishes as much. A closed loop (--concurrency) cannot overload a server, because it"
        " waits for each reply: there the time in queue grows with the concurrency, and the"
        " request rate stays what the server finishes.",
        also=("overload", "capacity", "offered_rate", "served_rate", "bearable_rate"),
        see=("verdict", "rate", "concurrency", "LD125"),
    ),
    Term(
        "change",
        "Change on the way",
        "What did not stay the same while a run lasted (`course.changes` in --json). A step: from"
        " one moment on, what was equal takes longer or less long, as when a replica is added or"
        " lost. A spell: for a while, as when others use the server. A drift: ever slower. A cold"
        " start: slow first, then quicker. TPOT is compared beside as many other streams, TTFT"
        " beside prompts of the same length and as many requests in flight, so a queue of the"
        " run's own is no change. Where a change lies within the workload, `course.stretches` has"
        " its two sides, with the part that leads in each.",
        also=("step", "spell", "drift", "cold_start", "cold start", "course", "stretches"),
        see=("overloaded", "segment", "LD126", "LD127"),
    ),
    Term(
        "ambiguous",
        "Ambiguous",
        "The verdict if two components are so close that another sample of the same requests"
        " might have reversed their order. Both are named. More requests decide it, or show"
        " that neither leads. Also the verdict if nobody waits, and only parts that cannot be"
        " told apart stand between the server and healthy: one of them may be avoidable.",
        see=("verdict", "interval", "budget", "healthy"),
    ),
    Term(
        "insufficient",
        "Insufficient",
        "The measurement does not support the statement. A population needs 30 requests before"
        " its shares get intervals. A tail whose requests follow each other, because they"
        " waited in the same queue, counts for less: it needs 15 separate spells, or 4"
        " independent segments. The shares of those requests are in --json; the report shows"
        " the reason instead.",
        also=("insufficient data",),
        see=("population", "segment", "interval", "LD302"),
    ),
    Term(
        "segment",
        "Segment of the workload",
        "A probe sends its workload in parts with a pause between them, so that the queue of"
        " one part is gone before the next begins. Requests of one segment may have waited for"
        " each other; segments are independent repetitions.",
        also=("segments", "autocorrelation"),
        see=("insufficient", "designed stage"),
    ),
    Term(
        "claims",
        "Claims on a component",
        "Every statement that the evidence makes about a component's share. The breakdown uses"
        " the claim with the best grade that separates the most; the others are kept, because"
        " they must not contradict it. `latdiag diagnose RUN --why COMPONENT` shows them all.",
        also=("claim", "why", "used", "lost"),
        see=("grade", "merged", "breakdown"),
    ),
    Term(
        "designed stage",
        "Designed stage of a probe",
        "Requests that isolate one cause of latency while the others stay constant. S1: cheap"
        " GETs and refused requests, for the path and the frontend. S2: one long stream, for"
        " delivery. S3: prompts of several lengths, one at a time, for prefill. S4: two long"
        " prompts at once, computed in turn or side by side. S5: outputs alone with a short and"
        " a long context, for the decode step. S6: bursts, for the batch and for the number of"
        " requests admitted at once. S7: the requests of S1 beside the workload, for waiting"
        " before the engine. S8: long prompts sent while other streams run, which slow down when"
        " the engine starts on one. S10: the workload, the only stage that metrics and"
        " breakdowns cover. S11: with --behind the same workload at the server behind the"
        " target. S12: small requests, only if the server refused some as too many: they show by"
        " which rule.",
        also=(
            *("stage", "designed", "probe", "S0", "S1", "S2", "S3", "S4", "S5", "S6", "S7"),
            *("S8", "S10", "S11", "S12"),
        ),
        see=("budget", "learned", "segment", "behind"),
    ),
    Term(
        "behind",
        "A gateway and the server behind it",
        "`latdiag probe URL --behind URL2` sends the same workload, segment by segment in turn,"
        " through a gateway (URL) and to the server behind it (URL2), and all other stages to"
        " the server. What requests take longer through the gateway is the gateway's, with the"
        " network between the two; the rest is divided as a probe of the server divides it, and"
        " all adds up to what the client waited at URL. Metrics are those at URL. Without --rate"
        " the rate is one that the server bears easily; the gateway may not. If fewer"
        " streams run at once through the gateway than at the server, it may hold requests back"
        " that would wait at the server otherwise, and the intervals allow for that. The slowest"
        " requests are not taken apart: they have no equals at the server.",
        also=("--behind", "URL2"),
        see=("gateway", "network", "designed stage", "segment"),
    ),
    Term(
        "learned",
        "What the probe learned",
        "What the designed stages show about the server, independent of any workload: what a"
        " prompt costs alone, what a decode step costs and how it grows with other streams and"
        " with context, and how many requests are admitted at once. Intervals show what"
        " another run of the same design might have given (95 %).",
        also=("law", "laws"),
        see=("path", "frontend law", "prefill alone", "decode step", "admitted", "KV transfer"),
    ),
    Term(
        "path",
        "Path behind the first hop",
        "What the cheapest request takes beyond one TCP round trip (round_trip_ms), on an open"
        " connection; opening one takes connect_ms. A few milliseconds are normal for an HTTP"
        " layer. More is a gateway, or a network path that TCP does not see because a proxy"
        " answers for the server: it counts as network, not as queue or prefill.",
        also=("path_ms", "is_way", "HTTP layer", "first hop", "round_trip_ms", "connect_ms"),
        see=("designed stage", "network", "gateway", "LD402"),
    ),
    Term(
        "frontend law",
        "Frontend by prompt length",
        "What parsing, the chat template and tokenising take, by prompt length: from requests"
        " that the server reads completely and then refuses (400 or 422). It is a lower bound,"
        " because a refused request may not get through the whole frontend. A server that"
        " refuses nothing, or refuses in the same time whatever the length, does not show it;"
        " frontend and prefill then stay merged, unless streams that run beside a prompt show"
        " how much of its time the engine takes (S8).",
        also=("frontend_ms",),
        see=("frontend", "merged", "designed stage"),
    ),
    Term(
        "prefill alone",
        "A prompt alone",
        "TTFT of a prompt on the otherwise idle server, without client, network and path, by"
        " length: frontend and prefill. Whatever the same prompt takes longer under the"
        " workload is waiting: for a place among the running requests (queue), or for other"
        " requests' work in the same steps (prefill). Where nothing separates the two, they are"
        " merged.",
        also=("alone", "prompt alone", "alone_ms"),
        see=("prefill", "queue", "frontend law"),
    ),
    Term(
        "decode step",
        "Decode step",
        "The time from token to token of one stream alone, and what each further stream and"
        " each 1 000 tokens of context add. It is computed from sums of several gaps, because"
        " delivery shifts single tokens by more than a step takes. decode.base, decode.batch"
        " and decode.interference follow from it.",
        also=("step", "step_ms", "blocks of gaps"),
        see=("decode", "tpot", "long prompts"),
    ),
    Term(
        "bursts",
        "Tokens in bursts",
        "Most tokens of a long stream arrive right behind another one, and the rest long"
        " after: a gateway, or the server itself, holds tokens back and sends several at once."
        " It holds the first token back too, so prefill stays merged with gateway.",
        also=("bursts_ms", "burst", "coalescing"),
        see=("gateway", "merged", "itl"),
    ),
    Term(
        "admitted",
        "Requests admitted at once",
        "How many requests of a burst were decoding at the same time. If a burst shows a limit"
        " (vLLM: --max-num-seqs, or its KV cache), further requests wait: that is"
        " queue.admission.",
        also=("let_in", "let in", "admission", "tried"),
        see=("queue", "designed stage", "limit"),
    ),
    Term(
        "limit",
        "Limits of a server",
        "What the server has shown of how much it takes. in_flight: so many requests at once, and"
        " it refuses (429, 503) what comes beyond. rate: so many requests in a time, and it"
        " refuses what comes beyond; burst is what it takes at once after a pause. refusals: it"
        " refuses requests as too many, and neither of these rules explains which. streams: so"
        " many run at once, and others wait. output_rate: all streams together get so many"
        " tokens per second, however many there are. A probe that is refused goes on below the"
        " limit: with fewer requests at once, or slower. A limit is only named if no request"
        " contradicts it.",
        also=(
            "limits",
            "in_flight",
            "output_rate",
            "rate limit",
            "429",
            "Retry-After",
            "refusals",
        ),
        see=("admitted", "designed stage", "budget"),
    ),
    Term(
        "long prompts",
        "Long prompts against running streams",
        "Whether streams lose time while another request's long prompt is computed. If they do"
        " (prefill_stops_decode: shared), prefill and decode share an engine, and the loss is"
        " decode.interference. If they do not (separate), prefill may run on a server of its"
        " own. One pause as long as the whole prompt means that prefill is not chunked.",
        also=("prefill_stops_decode", "shared", "separate", "interference"),
        see=("decode step", "KV transfer"),
    ),
    Term(
        "KV transfer",
        "KV transfer",
        "If prefill and decode run on different servers, the KV cache of the prompt moves"
        " between them. It shows as a second token that arrives later than one step after the"
        " first, on an idle server too, and the later the longer the prompt. A late second"
        " token that nothing explains stays in decode, merged. If the first token leaves only"
        " after the transfer, the transfer is hidden in TTFT, and interconnect stays merged"
        " with prefill.",
        also=("transfer_ms", "transfer", "disaggregated"),
        see=("interconnect", "merged", "long prompts"),
    ),
    Term(
        "budget",
        "Budget of a probe",
        "How much a probe spends: quick (about a minute), standard (some minutes, enough for"
        " the tail) or deep (half an hour). The cost is printed first; --max-tokens-total is"
        " never exceeded, and what no longer fits is left out.",
        also=("quick", "standard", "deep", "cost", "max-tokens-total"),
        see=("designed stage", "segment"),
    ),
    Term(
        "demo",
        "The demo stack",
        "A simulated LLM server on this machine with a known fault: `latdiag demo queue`"
        " serves one, `latdiag probe demo:queue` starts and probes one. Faults: healthy,"
        " queue, prefill, decode, interference, kv-transfer, network; and with a gateway in"
        " front: gateway, gateway-tokens, gateway-flush, gateway-queue. It knows where every"
        " nanosecond of each request went, which is how latdiag itself is tested.",
        also=("demo stack", "demo:FAULT", "truth", "fault"),
        see=("designed stage", "verdict"),
    ),
)
