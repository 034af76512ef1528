"""A result on one screen: 24 lines of 79 columns, the answer first.

Order: the answer, what to do and how to be sure; what was measured; the latencies, of
each stage where there are several; where the time went; how far the client can be trusted; how
many notes there are; where the run is.
"""

from __future__ import annotations

from latdiag.diagnosis.result import Result
from latdiag.report import answer, overview, stages, time_table
from latdiag.report.page import Block, Page, screen


def compose(result: Result, ascii_only: bool) -> Page:
    """The screen of ``result``."""
    blocks: list[Block | None] = [*answer.blocks(result), overview.target(result)]
    table = time_table.block(result)
    if answer.is_of_servers(result):
        blocks += [table, overview.heard(result), overview.state(result)]
    else:
        blocks += [overview.metrics(result), stages.block(result), table, overview.state(result)]
    blocks += [overview.validity(result), overview.count(result), overview.saved(result)]
    return screen([block for block in blocks if block is not None], ascii_only)
