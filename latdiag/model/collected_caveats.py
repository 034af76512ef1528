"""The caveats (LD414 to LD432) on what servers count and on what was collected of them: a part of
the table in ``caveats``."""

from __future__ import annotations

from latdiag.model.caveat import CaveatRow

COLLECTED = (
    CaveatRow(
        "LD414",
        "Only {whole} requests have all their spans, too few to stand for the others. Requests"
        " with some spans count too; the time of a missing span is in unattributed.",
        "Find out where spans get lost: an exporter that drops them, a sampler, a collector in"
        " between.",
        "With spans lost here and there, a component shows only what was not lost of it. Its"
        " grade is that of a bound, and its interval reaches up by all that is unattributed.",
    ),
    CaveatRow(
        "LD416",
        "The metrics are not used in the breakdown: {why}.",
        "Scrape every server that the requests reach (one --metrics URL for each), around the load"
        " and while nobody else uses them.",
        "Counters and histograms tell of all requests of a window together. They are one's own"
        " only if as many were finished as were sent, if every server was scraped at both edges,"
        " and if queue and prefill add up to no more than the client waited.",
    ),
    CaveatRow(
        "LD417",
        "The metrics do not fit {other}: {what}.",
        "Check that every server is scraped, and that no other client uses one of them.",
        "Spans say of each request what metrics say of all together. Of the same requests both"
        " have the same mean, within 2 % or a millisecond; else one of the two is of something"
        " else, or wrong.",
    ),
    CaveatRow(
        "LD418",
        "The servers' metrics count the probe's own requests as well as the workload, so the"
        " breakdown of the workload does not use them.",
        "`latdiag load URL --metrics URL` scrapes around a workload alone.",
        "A probe sends requests by design besides those that it explains: prompts alone, bursts,"
        " long prompts into running streams. The servers count them all in one sum.",
    ),
    CaveatRow(
        "LD419",
        "latdiag leaves {n} series or servers out of the metrics ({replica}: {why}).",
        "Keep the servers running through a measurement, and scrape each at its begin and end.",
        "A counter that began anew between two scrapes says nothing of the time between, nor does"
        " a series that is gone: no rate is guessed. What such a server counted is missing in"
        " the sums.",
    ),
    CaveatRow(
        "LD420",
        "The requests without whole evidence are not like the others: they take {left:ms} ms end"
        " to end (median), the others {told:ms} ms.",
        "Sample spans without regard to how long a request takes, and do not drop them when there"
        " are many.",
        "Evidence that is there for slow requests only, or for fast ones only, tells of those: a"
        " sampler that keeps the tail, or a server that drops spans when it is busy, tilts every"
        " share.",
    ),
    CaveatRow(
        "LD421",
        "The receiver refused {spans} spans and {exports} exports ({reasons}).",
        "For token or origin: let the sender show the token, and send from no browser. For the"
        " others: send smaller exports; malformed means that the sender does not speak OTLP.",
        "Evidence that was sent is missing: it broke a bound of the receiver (size, count, time,"
        " ids that are none), or came faster than it could be written. Nothing is dropped in"
        " silence.",
    ),
    CaveatRow(
        "LD422",
        "latdiag stopped collecting at --max-disk: what arrived later is not in the run.",
        "Raise --max-disk, or collect for a shorter time.",
        "A receiver that stands open writes as long as something is sent to it; the cap keeps it"
        " from filling the disk.",
    ),
    CaveatRow(
        "LD423",
        "{spans} spans came from {senders} senders of stacks that latdiag does not know"
        " ({names}).",
        "`latdiag stacks` lists the known stacks; a package of yours can add one.",
        "Spans whose names no stack file has are kept, but say nothing: nobody here knows which"
        " interval they cover.",
    ),
    CaveatRow(
        "LD424",
        "No server sent spans or metrics.",
        "Turn the server's exporter on and point it here (`latdiag stacks URL` names the flag);"
        " an exporter that found nobody may wait two minutes before it tries again.",
        "Exporters that cannot connect back off: one that was started before the receiver may"
        " keep silent for up to two minutes. A receiver that stands before the server does"
        " (`latdiag collect`) avoids that.",
    ),
    CaveatRow(
        "LD425",
        "Scrapes of metrics failed in {n} ways, the first at {url}: {why}.",
        "Try the URL with curl; a scrape has 5 s and 32 MiB, and follows no redirect.",
        "A scrape that fails leaves a gap: with the one at the begin or at the end of a load"
        " missing, nothing can be subtracted, and that server's metrics say nothing.",
    ),
    CaveatRow(
        "LD426",
        "latdiag could not pass {n} exports on to the collector of --forward ({why}).",
        "Check that the collector takes OTLP at that port; latdiag does not try again.",
        "What is forwarded is a copy: the run here has the spans all the same.",
    ),
    CaveatRow(
        "LD427",
        "Of {requests} replies, {silent} state no times, {partial} lack a time that most state,"
        " and {contradicted} state more than the client waited; latdiag does not use these.",
        "Check that every replica has the flag that turns the times on, and that no proxy answers"
        " for one.",
        "A time in a reply is of that request alone. A request without it, or with a time that"
        " does not fit into the client's own wait, says nothing of where its time went. All that"
        " do not fit: the reply is of another server than the one that the first token is of, as"
        " where prefill and decode are apart.",
    ),
    CaveatRow(
        "LD428",
        "{fields} may be a queue or the KV transfer: nothing says whether one server did both"
        " prefill and decode.",
        "Spans state the role of each server (--otlp of `load` and `probe`).",
        "A reply does not say which role its server has. vLLM schedules a request on a decode"
        " server when the KV cache has come: its queue time there is the transfer. A server whose"
        " prefill took several steps computed the prompts itself; and where less than a fraction"
        " of a step is left of the wait, no other did.",
    ),
    CaveatRow(
        "LD429",
        "In {rows} of {requests} requests the server decoded for {ahead:ms} ms (median) before"
        " the client saw a token.",
        "Look for reasoning that the server does not send, tool calls that it sends whole, and a"
        " proxy that holds the stream back.",
        "The server states more decode than the stream lasted that the client saw. It is in"
        " decode, and lies before the first token: TTFT is long for what was generated, not for"
        " what was waited for.",
    ),
    CaveatRow(
        "LD430",
        "Two sources disagree (mean of a request): {what}. This page uses {used}, not {other}.",
        "Look for server work that one source cannot see: other requests in the same steps, a"
        " layer in between, tokens that are not sent.",
        "Where one kind of evidence states the sum of several components, another may split it."
        " Where the two cannot both be right, the one that is nearer to the request stands alone;"
        " where it knows few of the requests, the other does.",
    ),
    CaveatRow(
        "LD431",
        "What came to the receiver was not all spans, or not by the protocol of the port: {what}.",
        "Point the exporter of traces at the port of its protocol (gRPC: --otlp, HTTP: --otlp-http"
        " with the path /v1/traces), without TLS; turn off its exporters of metrics and logs.",
        "An exporter that speaks another protocol than the port, posts to another path, or sends"
        " metrics or logs is told so in the answer, and brings no span. Its spans are missing"
        " unless it sends them elsewhere too.",
    ),
    CaveatRow(
        "LD432",
        "{lost} rows of spans or metrics that came could not be written: they are lost.",
        "Make room where the run is stored, and collect again.",
        "Spans are answered when they are taken and written a moment later, many at once. Where"
        " the disk is full in between, their senders do not send them again. A scrape of metrics"
        " that cannot be written is gone too.",
    ),
)
