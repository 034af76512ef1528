"""Words for a load that could not measure its target."""

from __future__ import annotations

from latdiag.load.work.prepare import Wish
from latdiag.model.errors import TargetFault


def hopeless(wish: Wish) -> str:
    """Why a load that may give up did."""
    return (
        f"more than {100 * (wish.give_up or 0):.0f} % of the requests failed, so latdiag stopped"
    )


def useless(url: str, requests: int, detail: str, path: str | None) -> TargetFault:
    """What is raised where no request of a run got a usable reply."""
    text = f"{url} gave no usable reply in {requests} requests: {detail}"
    return TargetFault(text, f"see the failures in {path}", path)
