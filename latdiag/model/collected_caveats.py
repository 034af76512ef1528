"""The caveats (LD405, LD414 to LD433) on what servers count, and on what was collected of them: a
part of the table in ``caveats``."""

from __future__ import annotations

from latdiag.model.caveat import CaveatRow

COLLECTED = (
    CaveatRow(
        "LD405",
        "The spans name {ranks} ranks that compute each step together. Nothing in this run shows"
        " their collectives: that time is inside prefill and decode.",
        "A profile of the GPUs shows collectives; or compare with a server of another tensor"
        " parallel size.",
        "Where a model is spread over several GPUs, they exchange results in each step. Engines"
        " do not report the time that this takes, and from outside it looks like computing.",
    ),
    CaveatRow(
        "LD414",
        "Only {whole} requests have all their spans, too few to represent the others. Requests"
        " with some spans count too; the time of a missing span is in unattributed.",
        "Find out where spans get lost: an exporter that drops them, a sampler, or a collector"
        " on the path.",
        "When some spans are lost, a component shows only the part that was not lost. Its"
        " grade is that of a bound, and its interval extends upwards by everything that is"
        " unattributed.",
    ),
    CaveatRow(
        "LD416",
        "The breakdown does not use the servers' metrics: {why}.",
        "Scrape every server that the requests reach (one --metrics URL for each), before and"
        " after the load, while nobody else uses them.",
        "Counters and histograms cover all requests of a window together. They describe your"
        " requests only if as many requests finished as you sent, if every server was scraped"
        " at both ends, and if queue and prefill add up to no more than the client waited.",
    ),
    CaveatRow(
        "LD417",
        "The metrics do not agree with {other}: {what}.",
        "Check that every server is scraped, and that no other client uses one of them.",
        "Spans state for each request what metrics state for all of them together. For the"
        " same requests both have the same mean, within 2 % or a millisecond; otherwise one of"
        " the two covers something else, or is wrong.",
    ),
    CaveatRow(
        "LD418",
        "The servers' metrics also count the probe's own requests, so the breakdown of the"
        " workload does not use them.",
        "`latdiag load URL --metrics URL` scrapes around a workload alone.",
        "Besides the workload that it explains, a probe sends requests of its own: prompts"
        " alone, bursts, long prompts against running streams. The servers count all of them"
        " in one sum.",
    ),
    CaveatRow(
        "LD419",
        "latdiag leaves {n} metric series or servers out ({replica}: {why}).",
        "Keep the servers running during a measurement, and scrape each of them at its start"
        " and end.",
        "A counter that restarted between two scrapes says nothing about the time between"
        " them, nor does a series that disappeared; latdiag guesses no rate. What such a"
        " server counted is missing from the sums.",
    ),
    CaveatRow(
        "LD420",
        "Requests without complete evidence differ from the others: they take {left:ms} ms end"
        " to end (median), the others {told:ms} ms.",
        "Sample spans regardless of how long a request takes, and do not drop them under load.",
        "If only slow requests have evidence, or only fast ones, it describes only those. A"
        " sampler that keeps the tail, or a server that drops spans when it is busy, biases"
        " every share.",
    ),
    CaveatRow(
        "LD421",
        "The receiver rejected {spans} spans and {exports} exports ({reasons}).",
        "For token or origin: have the sender present the token, and do not send from a"
        " browser. Otherwise send smaller exports; malformed means that the sender does not"
        " speak OTLP.",
        "Evidence that was sent is missing: it exceeded a limit of the receiver (size, count,"
        " time), had invalid ids, or arrived faster than it could be written. Everything that"
        " is dropped is counted.",
    ),
    CaveatRow(
        "LD422",
        "latdiag stopped collecting at --max-disk: what arrived later is not in the run.",
        "Raise --max-disk, or collect for a shorter time.",
        "A receiver writes as long as something is sent to it; this limit keeps it from"
        " filling the disk.",
    ),
    CaveatRow(
        "LD423",
        "{spans} spans came from {senders} senders of stacks that latdiag does not know"
        " ({names}).",
        "`latdiag stacks` lists the known stacks; your own package can add one.",
        "Spans with names that no stack file lists are stored but not used: latdiag does not"
        " know which interval they cover.",
    ),
    CaveatRow(
        "LD424",
        "No server sent spans.",
        "Turn on the server's exporter and point it at this machine (`latdiag stacks URL`"
        " names the flag). An exporter that found no receiver may wait two minutes before it"
        " tries again.",
        "Exporters that cannot connect back off: one that started before the receiver may stay"
        " silent for up to two minutes. A receiver that runs before the server starts"
        " (`latdiag collect`) avoids that.",
    ),
    CaveatRow(
        "LD425",
        "Scraping metrics failed at {url}: {why}{more}.",
        "Try the URL with curl. A scrape may take 5 s and 32 MiB; redirects to another server are"
        " not followed.",
        "A failed scrape leaves a gap. If the one at the start or the end of a load is"
        " missing, nothing can be subtracted, and that server's metrics say nothing.",
    ),
    CaveatRow(
        "LD426",
        "latdiag could not forward {n} exports to the --forward collector ({why}).",
        "Check that the collector accepts OTLP at that port; latdiag does not retry.",
        "The collector gets a copy: this run has the spans in any case.",
    ),
    CaveatRow(
        "LD427",
        "Of {requests} replies, {silent} state no times, {partial} lack a time that most"
        " others state, and {contradicted} state more time than the client waited; latdiag"
        " does not use these.",
        "Check that every replica has the flag that turns the times on, and that no proxy"
        " answers in its place.",
        "A time in a reply belongs to that request alone. A request without it, or with a time"
        " longer than the client's own wait, says nothing about where its time went. If none"
        " of them fits, the reply comes from another server than the first token, as with"
        " separate prefill and decode servers.",
    ),
    CaveatRow(
        "LD428",
        "{fields} may be a queue or the KV transfer: nothing in this run shows whether one"
        " server did both prefill and decode.",
        "Spans state the role of each server (--otlp of `load` and `probe`).",
        "A reply does not say which role its server has. A vLLM decode server schedules a"
        " request when the KV cache has arrived, so its queue time is the transfer. A server"
        " whose prefill took several steps computed the prompts itself; and if less than a"
        " fraction of a step is left of the wait, no other server did.",
    ),
    CaveatRow(
        "LD429",
        "In {rows} of {requests} requests the server decoded for {ahead:ms} ms (median) before"
        " the client saw a token.",
        "Look for reasoning that the server does not send, tool calls that it sends whole, and a"
        " proxy that holds the stream back.",
        "The server states more decode time than the stream lasted at the client. The"
        " difference counts as decode and lies before the first token: TTFT is long because"
        " tokens were generated, not because the request waited.",
    ),
    CaveatRow(
        "LD430",
        "The results use {used}, which {other} contradict (mean of a request): {what}.",
        "Look for server work that one source cannot see: other requests in the same steps, a"
        " layer in between, tokens that are not sent.",
        "If one kind of evidence states the sum of several components, another may split it."
        " If the two cannot both be right, the one closer to the request is used alone; if it"
        " covers only few of the requests, the other one is used.",
    ),
    CaveatRow(
        "LD431",
        "The receiver got data that is not spans, or not in the protocol of the port: {what}.",
        "Point the trace exporter at the port of its protocol (gRPC: --otlp, HTTP: --otlp-http"
        " with the path /v1/traces), without TLS; turn off its exporters of metrics and logs.",
        "An exporter that uses another protocol than the port, posts to another path, or sends"
        " metrics or logs gets an error that says so, and delivers no span. Its spans are"
        " missing unless it also sends them elsewhere.",
    ),
    CaveatRow(
        "LD432",
        "{lost} rows of spans or metrics that arrived could not be written and are lost.",
        "Free space where the run is stored, and collect again.",
        "The receiver acknowledges spans when it takes them, and writes them in batches a"
        " moment later. If the disk fills up in between, their senders do not send them again."
        " A scrape of metrics that cannot be written is lost as well.",
    ),
    CaveatRow(
        "LD433",
        "The servers were not heard to the end ({why}): what they said later is missing.",
        "Measure again for the servers' part. The client's figures do not depend on it.",
        "The process that receives spans and scrapes metrics was lost during the load, or could"
        " no longer write. What it had written before counts.",
    ),
    CaveatRow(
        "LD434",
        "Not all traces of this run arrived at {place} while it ran ({why}).",
        "Run `latdiag export` on the saved run: it sends all of them, with all that is known.",
        "A live export gives way to the measurement: what it cannot send in time is counted and"
        " left out. No figure of the run depends on it.",
    ),
)
