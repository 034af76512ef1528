"""The verdict on a run that asked for more than the server finishes."""

from __future__ import annotations

from latdiag.diagnosis.result import Verdict
from latdiag.measurement.backlog import Backlog
from latdiag.model.units import GLUE, quantity

_WORDS = {"ttft": "TTFT", "e2e": "E2E"}


def overloaded(
    found: Backlog, population: str, dominant: str | None, where: str, following: str
) -> Verdict:
    """``dominant``: the component that leads, if one does; ``where``: a sentence on it, and
    ``following``: what to do about it."""
    return Verdict(
        dominant,
        population,
        "measured",
        "overloaded",
        " ".join(filter(None, (sentence(found), where))),
        f"{advice(found)} {following}".rstrip(),
    )


def sentence(found: Backlog) -> str:
    """What is asked, what is finished, what grows, and what that makes of the percentiles."""
    grew = _WORDS[found.grew]
    first, last = (
        quantity(value, "ms").replace(GLUE, " ") for value in (found.first_ms, found.last_ms)
    )
    return (
        f"The server finishes {rate(found.served_rate)}/s [{rate(found.served_lo)},"
        f" {rate(found.served_hi)}] of the {rate(found.offered_rate)}/s that are sent. {grew} grew"
        f" from {first} to {last} in {found.sent_s:.0f} s, so percentiles and means depend on how"
        " long this run lasted."
    )


def advice(found: Backlog) -> str:
    """What to ask, or how many servers more it takes."""
    more = f"{found.more_replicas} replica{'s' * (found.more_replicas > 1)} like this one"
    return f"Send at most {rate(found.bearable_rate)}/s, or add {more}."


def rate(value: float) -> str:
    """Requests/s, three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}".replace(",", " ")
