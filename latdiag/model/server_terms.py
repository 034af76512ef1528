"""The words of what servers say: spans and scrapes, and how they are joined to requests."""

from __future__ import annotations

from latdiag.model.term import Term

SERVER_TERMS = (
    Term(
        "span",
        "Span",
        "An interval of one request, stated by a server that took part in it, by its own clock"
        " (OpenTelemetry). latdiag takes spans with --otlp, by gRPC at 4317 and HTTP at 4318; only"
        " names and attributes that a stack file knows are kept.",
        see=("sender", "joined"),
    ),
    Term(
        "sender",
        "Sender",
        "One process that exports spans, named by its service.instance.id, else by its service,"
        " host and process. All its spans are of one clock; those of two senders never are.",
        see=("span", "clock offset"),
    ),
    Term(
        "joined",
        "Joined",
        "A request is joined to the spans that bear its trace id, else its request id or response"
        " id. Of the joined, those count in the breakdown whose evidence is whole: partial are"
        " those with a span or a server missing, contradicted those whose servers state more time"
        " than the client saw.",
        see=("span", "unattributed"),
    ),
    Term(
        "clock offset",
        "Clock offset",
        "How far a sender's clock is from the client's, as far as causality tells: nothing arrives"
        " before it was sent. It is reported, with steps and drift; no component depends on it,"
        " since servers' times enter as lengths alone.",
        see=("sender",),
    ),
    Term(
        "scrape",
        "Scrape",
        "One reading of a server's /metrics (--metrics URL), at the begin and the end of a load"
        " and now and then between. Counters are subtracted between the two edges; they count the"
        " traffic of everybody, so a share is claimed only if as many requests finished as were"
        " sent.",
        also=("scrapes", "samples"),
        see=("replica",),
    ),
    Term(
        "replica",
        "Replica",
        "One server of several that serve the same model, told by the URL that was scraped.",
        see=("scrape",),
    ),
)
