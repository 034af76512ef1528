"""An attempt about the path to a server as a row: no token is expected of it."""

from __future__ import annotations

from latdiag.load.plan import BUSY, GET, REFUSED
from latdiag.load.row import UNDER_WAY, Row
from latdiag.model.records import Outcome


class PathRow(Row):
    """An attempt of a stage about the path as a row: a GET needs no stream to succeed."""

    __slots__ = ()

    @property
    def scenario(self) -> str:
        return REFUSED if self.begun[10] else GET

    @property
    def succeeded(self) -> bool:
        """Any word of the server's is an answer here, and no failure that could end a probe: a
        refusal is wanted, under whatever status. But for its being busy."""
        ended = self.ended or UNDER_WAY
        if self.scenario == REFUSED and ended.status == 200:
            return super().succeeded
        return not ended.fault and ended.status > 0 and ended.status not in BUSY

    def _verdict(self) -> tuple[Outcome, str]:
        ended = self.ended
        if self.scenario == GET and ended and not ended.fault and ended.status == 200:
            return Outcome.OK, ""
        return super()._verdict()
