"""Caveats about servers that keep to the custom of their API in their own way."""

from __future__ import annotations

from latdiag.model.caveat import CaveatRow

TARGETS = (
    CaveatRow(
        "LD141",
        "The server labels its event streams {label}; latdiag read them by their content.",
        "Let the server send Content-Type: text/event-stream. A client that goes by the label"
        " takes these replies for single documents, and shows nothing until their end.",
        "An event stream begins with a field of an event or with a comment, a document with a"
        " bracket. latdiag goes by that, and not by the label.",
    ),
    CaveatRow(
        "LD142",
        "{events} events are no JSON objects; latdiag left them out. {rows} of {requests} replies"
        " held some and are usable nevertheless.",
        "Find out who on the path writes into the stream: clients that expect JSON may fail.",
        "Some gateways write notes of their own into the stream, such as a keep-alive as data."
        " If such an event was a damaged token, that token is missing from the counts.",
    ),
    CaveatRow(
        "LD143",
        "{rows} of {requests} replies went on after their end mark [DONE], without content;"
        " latdiag ended them after 250 ms, or after 20 ms once three in a row had done so, and"
        " closed their connections.",
        "Let the server or the gateway end its replies after [DONE]: clients that wait for the"
        " end of the reply wait as long.",
        "The latencies are not affected: a reply counts as ended at its last content. In a"
        " closed loop the wait lowers the throughput a little, and new connections cost time.",
    ),
    CaveatRow(
        "LD144",
        "{rows} of {requests} replies count more tokens than came one a chunk, {each} on average:"
        " {fate:whole}.",
        "{more:whole}",
        "A reply's usage may count tokens that the client never sees, as hidden reasoning. They"
        " are made before the first one that is sent, so a long time to the first token may be"
        " decode. Where only the total is counted, several tokens in a chunk look the same.",
    ),
)
