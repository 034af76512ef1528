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
)
