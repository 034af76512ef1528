"""What to be careful about where a run was not the same from its first request to its last."""

from __future__ import annotations

from latdiag.model.caveat import CaveatRow

COURSE = (
    CaveatRow(
        "LD125",
        "{offered:.3g} requests/s were sent and {served:.3g}/s are finished: every percentile and"
        " mean would be larger in a longer run.",
        "Send at most {bearable:.3g}/s, or compare only runs of the same length.",
        "In an open loop that asks for more than the server finishes, requests pile up for as"
        " long as it lasts, and each waits longer than the one before. No latency of such a run"
        " is a property of the server; the rate that it finishes is.",
    ),
    CaveatRow(
        "LD126",
        "The server was not the same all the time: {what}.",
        "Measure again when it has warmed up and nobody else uses it, and compare the two runs.",
        "TPOT is compared beside as many streams, TTFT beside as many requests in flight and"
        " prompts of the same length: what is left changes with time. It is named only far beyond"
        " chance. From outside, other clients' requests look like a slow server.",
    ),
    CaveatRow(
        "LD127",
        "Means and percentiles mix unlike stretches of the run: {what}.",
        "Judge each stretch by itself: a mean over both is a property of neither.",
        "Where a change (LD126) lies in the middle of the workload, the requests on its two sides"
        " are of two servers. Of a drift or a cold start, the two halves of the requests."
        " Intervals of shares hold for as many requests before a step, and in a spell, as there"
        " were.",
    ),
)
