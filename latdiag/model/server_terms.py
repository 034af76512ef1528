"""The words of what servers say: spans and scrapes, and how they are joined to requests."""

from __future__ import annotations

from latdiag.model.term import Term

SERVER_TERMS = (
    Term(
        "span",
        "Span",
        "A time interval of one request, reported by a server that took part in it, by that"
        " server's clock (OpenTelemetry). latdiag receives spans with --otlp, over gRPC at"
        " port 4317 and HTTP at port 4318; it keeps only names and attributes that a stack"
        " file lists.",
        see=("sender", "joined"),
    ),
    Term(
        "silence",
        "Silence",
        "A pause of all streams at once, on the page of `latdiag report`: for 50 ms or more, and"
        " eight times the median gap, no stream that ran received anything, and there were at"
        " least two. A stall of the server, the prefill of another request and a broken network"
        " look alike here; the breakdown tells them apart where there is evidence.",
        also=("silences", "pause of all streams"),
        see=("decode", "bursts"),
    ),
    Term(
        "watch",
        "Watch",
        "`latdiag watch` receives the spans of production traffic and takes each request apart"
        " 10 s after its last span. It keeps sums of half minutes for one hour, never requests."
        " Every span has one fate: used, open or dropped, with the reason: unknown (no stack uses"
        " its name), unexplained (its request lacks spans, or they contradict each other),"
        " duplicate, late, full (too many are open) or refused.",
        also=("unexplained", "dropped spans"),
        see=("span", "sender"),
    ),
    Term(
        "sender",
        "Sender",
        "One process that exports spans, identified by its service.instance.id, or else by its"
        " service, host and process. All spans of a sender use one clock; two senders never"
        " share one.",
        see=("span", "clock offset"),
    ),
    Term(
        "joined",
        "Joined",
        "A request is joined to the spans that carry its trace id, or else its request id or"
        " response id. Only joined requests with complete evidence count in the breakdown: a"
        " partial one lacks a span or a server, and a contradicted one has servers that state"
        " more time than the client saw.",
        see=("span", "unattributed"),
    ),
    Term(
        "clock offset",
        "Clock offset",
        "How far a sender's clock is from the client's, as far as causality shows: nothing"
        " arrives before it was sent. It is reported with its steps and drift; no component"
        " depends on it, because servers' times are used as durations only.",
        see=("sender",),
    ),
    Term(
        "scrape",
        "Scrape",
        "One reading of a server's /metrics (--metrics URL), at the start and the end of a"
        " load and now and then in between. Counters are subtracted between the two ends. They"
        " count everybody's traffic, so latdiag claims a share only if as many requests"
        " finished as were sent.",
        also=("scrapes", "samples"),
        see=("replica",),
    ),
    Term(
        "replica",
        "Replica",
        "One of several servers that serve the same model, identified by the URL that was"
        " scraped.",
        see=("scrape",),
    ),
)
